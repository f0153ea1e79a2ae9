"""Label rasters: one value per pixel, at any downsample of the slide; PANDA's mask TIFFs, and any label TIFF or PNG.

A map pixel takes the label under its centre (nearest), the same place that `rasterize` asks for. What values mean is
written in `classes.value_ids`; a table with colours among its aliases reads coloured masks.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from histoloom.errors import AnnotationError, TissueError
from histoloom.slides.annotations.classes import UNKNOWN, color_ids, value_ids
from histoloom.slides.annotations.label_tiff import LabelTiff, labels_of
from histoloom.slides.rasterize import blank_outside, overview_size
from histoloom.tissue import UNLABELLED, TissueTable

_MAX_PNG = 1 << 30  # pixels; a PNG is decoded whole
_GLANCE = 16 << 20  # pixels of the coarsest level that are looked through on opening


class LabelRaster:
    """A label raster that fits a slide of `slide_size` (width, height); pickles as its arguments.

    `rest` is the id of unlabelled pixels. Raises AnnotationError when the raster is broken or of another slide's size,
    TissueError for a value that no type claims: on opening where that is cheap, else in `read`.
    """

    def __init__(
        self,
        path: Path,
        table: TissueTable,
        slide_size: tuple[int, int],
        slide_mpp: int | float,
        rest: int = UNLABELLED,
        ignore: Sequence[str] = (),
    ):
        self.path, self.slide_size, self.slide_mpp, self.rest = path, slide_size, slide_mpp, rest
        self._arguments = (path, table, slide_size, slide_mpp, rest, ignore)
        self._table = table
        self._values, self._colors = value_ids(table, ignore), color_ids(table, ignore)
        if self._colors:
            codes = np.array(sorted(self._colors), np.uint32)
            self._codes, self._code_ids = codes, np.array([self._colors[int(c)] for c in codes], np.int16)
        with path.open("rb") as file:
            is_png = file.read(4) == b"\x89PNG"
        self._raster = (_LabelPng if is_png else LabelTiff)(path, bool(self._colors))
        self._steps = [downsamples(slide_size, self._raster.sizes[0], path)]
        base_w, base_h = self._raster.sizes[0]
        for width, height in self._raster.sizes[1:]:
            factor_x, factor_y = round(base_w / width), round(base_h / height)
            self._steps.append((self._steps[0][0] * factor_x, self._steps[0][1] * factor_y))
        self.notes = self._glance()

    def __reduce__(self):
        return LabelRaster, self._arguments

    def read(
        self, x: int | float, y: int | float, size: int | tuple[int, int], mpp: int | float
    ) -> UInt8[np.ndarray, "h w"]:
        """The map of a window: `x, y` its level-0 corner, `size` its edge or (width, height) in pixels of `mpp`."""
        return self._sample(x, y, size, mpp / self.slide_mpp)

    def overview(self, downsample: int | float) -> UInt8[np.ndarray, "h w"]:
        """The map of the whole slide, `downsample` level-0 pixels to a pixel; the last row and column may stick out."""
        return self._sample(0, 0, overview_size(self.slide_size, downsample), downsample)

    def _sample(
        self, x: int | float, y: int | float, size: int | tuple[int, int], step: int | float
    ) -> UInt8[np.ndarray, "h w"]:
        width, height = (size, size) if isinstance(size, int) else size
        # A level may be used when its pixels are no larger than the map's: still within one pixel of the map.
        level = max(i for i, (sx, sy) in enumerate(self._steps) if i == 0 or max(sx, sy) <= step * (1 + 1e-6))
        step_x, step_y = self._steps[level]
        columns = _nearest(x, width, step, step_x, self._raster.sizes[level][0])
        rows = _nearest(y, height, step, step_y, self._raster.sizes[level][1])
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        labels = self._raster.read(level, *box)
        semantic_map = self._to_ids(labels[np.ix_(rows - rows[0], columns - columns[0])])
        blank_outside(semantic_map, x, y, step, self.slide_size)
        return semantic_map

    def _to_ids(self, labels: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        if self._colors:
            place = np.minimum(np.searchsorted(self._codes, labels), len(self._codes) - 1)
            ids = np.where(self._codes[place] == labels, self._code_ids[place], UNKNOWN)
        elif labels.size and (int(labels.max()) > UNLABELLED or int(labels.min()) < 0):
            ids = np.full(labels.shape, UNKNOWN)
        else:
            ids = self._values[labels]
        if (ids == UNKNOWN).any():
            self._refuse(labels[ids == UNKNOWN])
        found = ids.astype(np.uint8)
        if self.rest != UNLABELLED:
            found[found == UNLABELLED] = self.rest
        return found

    def _refuse(self, labels: np.ndarray) -> None:
        unknown = [f"#{v:06x}" if self._colors else str(v) for v in np.unique(labels)[:5].tolist()]
        raise TissueError(
            f"{self.path}: label(s) {', '.join(unknown)} are in no tissue table (known: "
            f"{', '.join(self._table.names)}); add each to tissue.toml as a type or an alias, or ignore it"
        )

    def _glance(self) -> tuple[str, ...]:
        """Look through the coarsest level, if small, for unknown labels (raises) and for none at all (noted)."""
        width, height = self._raster.sizes[-1]
        if width * height > _GLANCE:
            return ()
        labels = self._raster.read(len(self._raster.sizes) - 1, 0, 0, width, height)
        self._to_ids(labels)
        ids = self._values[labels] if not self._colors else None
        if ids is not None and (ids == UNLABELLED).all():
            return (f'{self.path}: no pixel has a class; if 255 means one, give that type the alias "255"',)
        return ()


class _LabelPng:
    """A label PNG, read whole; a palette counts by index, or by colour if the table has colours."""

    def __init__(self, path: Path, colors: bool):
        try:
            # Not Image.open: it refuses masks of 20,000 px, which slides need. The size is checked here instead.
            with path.open("rb") as file, PngImagePlugin.PngImageFile(file) as image:
                if image.width * image.height > _MAX_PNG:
                    raise AnnotationError(
                        f"{path}: {image.width} x {image.height} is too large for a PNG; write a tiled TIFF"
                    )
                pixels = np.asarray(image.convert("RGB") if colors else image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, UnidentifiedImageError) as error:
            raise AnnotationError(f"{path}: not readable as PNG ({error}); copy it from its source again") from None
        self._labels = labels_of(pixels.reshape(*pixels.shape[:2], -1), colors, path)
        self.sizes = [(self._labels.shape[1], self._labels.shape[0])]

    def read(self, level: int, left: int, top: int, right: int, bottom: int) -> Integer[np.ndarray, "h w"]:
        """Labels of a box; there is one level."""
        return self._labels[top:bottom, left:right]


def downsamples(slide_size: tuple[int, int], raster_size: tuple[int, int], path: Path) -> tuple[float, float]:
    """Level-0 pixels to a raster pixel, across and down: a whole number where that explains both edges.

    A raster of a slide 1001 px wide at downsample 2 has 500 or 501 columns, of 2 px each; the last may be cut. Raises
    AnnotationError when no one downsample gives both edges, within a pixel: the raster belongs to another slide.
    """
    estimates = tuple(s / r for s, r in zip(slide_size, raster_size, strict=True))
    ranges = [(s / (r + 1), s / max(r - 1, 0.5)) for s, r in zip(slide_size, raster_size, strict=True)]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if low >= high or high < 1 or (raster_size[0] > slide_size[0] or raster_size[1] > slide_size[1]):
        raise AnnotationError(
            f"{path}: the mask is {raster_size[0]} x {raster_size[1]}, which is no scale of the slide's "
            f"{slide_size[0]} x {slide_size[1]} pixels; take this slide's own mask, uncropped"
        )
    whole = round(sum(estimates) / 2)
    fits = all(r in (s // max(whole, 1), -(-s // max(whole, 1))) for s, r in zip(slide_size, raster_size, strict=True))
    return (float(whole), float(whole)) if fits else estimates


def _nearest(
    corner: int | float, count: int, step: int | float, raster_step: int | float, limit: int
) -> Integer[np.ndarray, " n"]:
    """Raster index under each centre of a map's columns or rows, held inside the raster."""
    centres = corner + (np.arange(count) + 0.5) * step
    return np.clip(np.floor(centres / raster_step), 0, limit - 1).astype(np.intp)
