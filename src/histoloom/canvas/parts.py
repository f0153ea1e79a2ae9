"""Finished rows of a canvas on disk, TILE px at a time, so that a killed run goes on where it was."""

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import OutputError
from histoloom.files import write_bytes

TILE = 256  # px: edge of a tile of the slide, and rows of a part
_LAST_LEVEL = 512  # px: the longer edge of the coarsest level is at most this
_MOST_LEVELS = 9  # of which the coarsest has one row per part


class Parts:
    """The parts of an image of `shape` (height, width) in the folder `folder`."""

    def __init__(self, folder: Path, shape: tuple[int, int]):
        self.folder, self.shape = folder, shape
        self.count = -(-shape[0] // TILE)

    def finished(self, first: int = 0, last: int | None = None) -> int:
        """The first part from `first` on, and before `last`, that is not there; `last` where all are."""
        last = self.count if last is None else last
        return next((n for n in range(first, last) if not self._path(n).is_file()), last)

    def missing(self) -> int:
        """How many parts are not there."""
        return sum(not self._path(n).is_file() for n in range(self.count))

    def write(self, rows: Iterable[UInt8[np.ndarray, "r w 3"]], number: int, last: int | None = None) -> None:
        """Write the parts from `number` on, up to `last`, from the rows that begin there."""
        held: list[np.ndarray] = []
        last = self.count if last is None else last
        for part in rows:
            held.append(part)
            while number < last and sum(map(len, held)) >= self._rows(number):
                pixels = np.concatenate(held)
                mine, held = pixels[: self._rows(number)], [pixels[self._rows(number) :]]
                encoded = io.BytesIO()  # numpy hides why the disk refuses
                np.save(encoded, mine, allow_pickle=False)
                write_bytes(self._path(number), encoded.getvalue())
                number += 1
            if number == last:
                return

    def read(self, number: int) -> UInt8[np.ndarray, "r w 3"]:
        """A finished part; raises OutputError where it is damaged."""
        path = self._path(number)
        try:
            pixels = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise OutputError(f"{path}: cannot be read ({error}); remove it and give the same command again") from None
        if pixels.shape != (self._rows(number), self.shape[1], 3) or pixels.dtype != np.uint8:
            raise OutputError(f"{path}: is not a part of this canvas; remove it and give the same command again")
        return pixels

    def level(self, level: int) -> Iterator[UInt8[np.ndarray, "r w 3"]]:
        """The rows of a level of the pyramid, which is halved `level` times: means of 2 x 2 px."""
        height = level_sizes(self.shape)[level][1]
        for number in range(self.count):
            pixels = self.read(number)
            for _ in range(level):
                pixels = _halved(pixels)
            rows = TILE >> level
            yield pixels[: max(0, height - number * rows)]

    def _rows(self, number: int) -> int:
        return max(0, min(TILE, self.shape[0] - number * TILE))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"


def level_sizes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height of all levels of an image of `shape` (height, width): each half of the one before."""
    height, width = shape
    count = max(0, math.ceil(math.log2(max(shape) / _LAST_LEVEL)))
    levels = min(count, _MOST_LEVELS - 1, int(math.log2(min(shape))))
    return [(width >> level, height >> level) for level in range(levels + 1)]


def rows_of_tiles(shape: tuple[int, int]) -> int:
    """Rows of tiles at all levels."""
    return sum(-(-height // TILE) for _, height in level_sizes(shape))


def _halved(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    height, width = (edge // 2 for edge in pixels.shape[:2])
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
