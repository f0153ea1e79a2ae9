"""What the studio holds for one user: uploads, maps, crops and results, in memory, by names that it makes itself.

Nothing is written to the disk, so nothing stays after the server has stopped.
"""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Integer
from PIL import Image

from histoloom.conditioning.inputs import Crop
from histoloom.errors import RequestError
from histoloom.web.tokens import new_token


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels that the page may show: uint8 `h w 3`, or `h w` for a map of ids or a mask."""

    pixels: Integer[np.ndarray, "h w *c"]

    @property
    def held(self) -> int:
        """Bytes of memory."""
        return self.pixels.nbytes

    def png(self) -> bytes:
        """The picture as a file."""
        return as_png(Image.fromarray(self.pixels))


@dataclass(frozen=True, eq=False)
class Upload(Picture):
    """A picture that the user has uploaded."""


@dataclass(frozen=True, eq=False)
class ShownCrop(Picture):
    """A crop, and the place that it was cut from."""

    x: int = 0
    y: int = 0

    def crop(self, tissue: int, source: str) -> Crop:
        """The crop of a tissue type; raises ImageError for one that is too small."""
        return Crop(self.pixels, tissue, source, self.x, self.y)


@dataclass(frozen=True, eq=False)
class Result(Picture):
    """A woven image as a PNG, and the zip that explains it."""

    image: bytes = b""
    zip: bytes = field(default=b"", repr=False)

    @property
    def held(self) -> int:
        """Bytes of memory."""
        return self.pixels.nbytes + len(self.image) + len(self.zip)

    def png(self) -> bytes:
        """The picture as it was woven, with its provenance."""
        return self.image


P = TypeVar("P", bound=Picture)


class Shelf:
    """The items of one user, the last used at the end; threads may share it."""

    def __init__(self, most_bytes: int):
        self._most, self._held, self._lock = most_bytes, 0, threading.Lock()
        self._items: OrderedDict[str, Picture] = OrderedDict()

    def put(self, item: Picture) -> str:
        """Hold an item, and return its name; others leave where there is no room.

        Those leave first that were not used for longest, and crops after all else: they are small, and hard to cut
        again.
        """
        name = new_token()
        with self._lock:
            leaving = sorted(self._items, key=lambda old: isinstance(self._items[old], ShownCrop))
            self._items[name] = item
            self._held += item.held
            for old in leaving:
                if self._held <= self._most:
                    break
                self._held -= self._items.pop(old).held
        return name

    def drop(self, name: str) -> None:
        """Hold an item no longer."""
        with self._lock:
            item = self._items.pop(name, None)
            self._held -= item.held if item else 0

    def find(self, name: object, kind: type[P]) -> P | None:
        """The item of this name and kind, if it is held; it counts as used."""
        if not isinstance(name, str):
            return None
        with self._lock:
            item = self._items.get(name)
            if item is not None:
                self._items.move_to_end(name)
        return item if isinstance(item, kind) else None

    def get(self, name: object, kind: type[P], what: str) -> P:
        """The item of this name and kind; raises RequestError."""
        item = self.find(name, kind)
        if item is None:
            raise RequestError(f"{what} is no longer held here; add it again", 404)
        return item


def url_of(name: str) -> str:
    """Where the page finds the picture of an item."""
    return f"/api/images/{name}.png"


def as_png(picture: Image.Image) -> bytes:
    """The bytes of a picture that the page shows once: fast rather than small."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
