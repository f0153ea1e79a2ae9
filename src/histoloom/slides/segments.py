"""Decoded tiles and strips of TIFF files, kept in memory up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

CACHE_BYTES = 64 << 20  # per open file: two rows of 512 px tiles of a wide slide
MAX_SEGMENT_BYTES = 1 << 30  # a segment is decoded whole; a strip beyond this holds the whole slide


class SegmentCache:
    """The segments that were used last; threads may share it. None stands for a segment without data."""

    def __init__(self, most_bytes: int = CACHE_BYTES):
        self._most, self._held = most_bytes, 0
        self._lock = threading.Lock()
        self._segments: OrderedDict[Hashable, np.ndarray | None] = OrderedDict()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray | None]) -> np.ndarray | None:
        """The segment of this key, from `decode` where it is not held."""
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
                return self._segments[key]
        segment = decode()
        with self._lock:
            if key not in self._segments:
                self._segments[key] = segment
                self._held += _bytes(segment)
            while self._held > self._most and len(self._segments) > 1:
                self._held -= _bytes(self._segments.popitem(last=False)[1])
        return segment


def _bytes(segment: np.ndarray | None) -> int:
    return 0 if segment is None else segment.nbytes
