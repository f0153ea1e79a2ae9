"""The map of a canvas, read window by window, and where each of its types is, coarsely."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Int, UInt8

from histoloom.errors import AnnotationError, InputError
from histoloom.slides.annotations import AnnotationMap, raster_size, read_annotations
from histoloom.slides.labeling import AnnotationConfig
from histoloom.tissue import UNLABELLED, TissueTable

BLOCK = 32  # px: regions that are less than this apart count as one
_BAND = 32  # blocks that are read at once


class Layout:
    """A map of `shape` (height, width); `notes` has one line for each thing that is doubtful.

    A label raster has the size of the canvas. Polygons are in px of the canvas, whose (width, height) is `size`. Raises
    InputError for a size that does not fit the file, AnnotationError for polygons beyond the canvas.
    """

    def __init__(self, path: Path, table: TissueTable, size: tuple[int, int] | None = None, rest: str = ""):
        found = raster_size(path)
        if found is None and size is None:
            raise InputError(f"{path}: holds polygons, which have no extent; give that of the canvas with --size")
        if found is not None and size is not None and found != size:
            raise InputError(
                f"{path}: is {found[0]} x {found[1]} px, and --size {size[0]} {size[1]} differs; leave --size out"
            )
        width, height = found or size or (0, 0)
        self.path, self.shape = path, (height, width)
        self.size, self.rest = size, rest
        try:
            self._map: AnnotationMap = read_annotations(path, table, (width, height), 1.0, AnnotationConfig(rest=rest))
        except AnnotationError as error:
            where, off, place = str(error).partition(": is off the slide (")
            if not off:
                raise
            raise AnnotationError(
                f"{where}: is off the canvas of {width} x {height} px ({place.split(';')[0]}); give a larger --size, "
                "or the coordinates in px of the canvas"
            ) from None
        beyond = [note for note in self._map.notes if "over the border" in note]
        if beyond:
            raise InputError(
                f"{beyond[0].replace('; cut there', '')}, which is {width} x {height} px; give a larger --size, or the "
                "coordinates in px of the canvas"
            )
        self.notes = self._map.notes

    def read(self, y: int, x: int, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
        """The map of a window; beyond the canvas, its rim is repeated."""
        top, left = (min(max(first, 0), edge - 1) for first, edge in zip((y, x), self.shape, strict=True))
        bottom, right = (
            min(max(first + length, start + 1), edge)
            for first, length, start, edge in zip((y, x), (height, width), (top, left), self.shape, strict=True)
        )
        inner = self._map.read(left, top, (right - left, bottom - top), 1.0)
        around = ((top - y, y + height - bottom), (left - x, x + width - right))
        return np.pad(inner, [(max(a, 0), max(b, 0)) for a, b in around], mode="edge")[:height, :width]


@dataclass(frozen=True, eq=False)
class Regions:
    """The connected regions of each type, in blocks of BLOCK px, and how many px each type has."""

    labels: dict[int, Int[np.ndarray, "y x"]]  # by type: the number of a region, from 1 on; 0 where the type is not
    pixels: Int[np.ndarray, " 256"]


def find_regions(layout: Layout) -> Regions:
    """Look through the whole map once; raises InputError where nothing is labeled, TissueError for unknown labels."""
    height, width = layout.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    present: dict[int, Bool[np.ndarray, "y x"]] = {}
    pixels = np.zeros(256, np.int64)
    for first in range(0, rows, _BAND):
        count = min(_BAND, rows - first)
        part = layout.read(first * BLOCK, 0, count * BLOCK, columns * BLOCK)
        pixels += np.bincount(part[: height - first * BLOCK, :width].ravel(), minlength=256)
        blocks = part.reshape(count, BLOCK, columns, BLOCK)
        for tissue in np.unique(part).tolist():
            shown = present.setdefault(tissue, np.zeros((rows, columns), bool))
            shown[first : first + count] = (blocks == tissue).any((1, 3))
    present.pop(UNLABELLED, None)
    if not present:
        raise InputError(
            f"{layout.path}: labels no pixel of the canvas of {width} x {height} px; are its coordinates in px?"
        )
    labels = {tissue: _numbered(shown) for tissue, shown in sorted(present.items())}
    return Regions(labels, pixels)


def _numbered(shown: Bool[np.ndarray, "y x"]) -> Int[np.ndarray, "y x"]:
    """A number for each region, whose blocks may touch at a corner."""
    numbers = np.zeros(shown.shape, np.int32)
    scipy.ndimage.label(shown, np.ones((3, 3), bool), output=numbers)
    return numbers
