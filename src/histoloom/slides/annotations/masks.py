"""Label rasters: one value per pixel, at any downsample of the slide; PANDA's mask TIFFs, and any label TIFF or PNG.

A map pixel takes the label under its center (nearest), the same place that `rasterize` asks for. What values mean is
written in `classes.value_ids`; a table with colors among its aliases reads colored masks, any other those in the colors
in which it draws types. Transparent pixels are unlabeled.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image

from histoloom.errors import AnnotationError, ImageError, TissueError
from histoloom.pictures import Coding, coding_of, label_pixels, opened_picture, pack_colors, transparent
from histoloom.shown import by_color, is_reversed, palette_of
from histoloom.slides.annotations.classes import UNKNOWN, color_ids, ignored_ids, value_ids, value_ranges
from histoloom.slides.annotations.label_tiff import TRANSPARENT, ColorPictureError, LabelTiff, labels_of
from histoloom.slides.rasterize import blank_outside, overview_size
from histoloom.text import canonical, shorten
from histoloom.tissue import UNLABELLED, TissueTable

_BLACK, _WHITE = 0x000000, 0xFFFFFF
_MAX_PNG = 1 << 29  # pixels; a PNG is decoded whole
_MAX_PNG_BYTES = 1 << 30
_COMMON = 0.05  # of the pixels: so much 255 deserves a note where a type is missing
_LEAST = 32  # pixels of the longer edge: fewer fit slides of any size
_COARSE = 16  # pixels of the slide to one of the mask: up to this, few pixels are those of a small slide
_GLANCE = 16 << 20  # pixels of the coarsest level that are looked through on opening


class LabelRaster:
    """A label raster that fits a slide of `slide_size` (width, height); pickles as its arguments.

    `rest` is the id of unlabeled pixels. Raises AnnotationError when the raster is broken or of another slide's size,
    TissueError for a value that no type claims: on opening where that is cheap, otherwise in `read`.
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
        self._ranges = value_ranges(table, ignore)
        read, own = _LabelPng if _is_png(path) else LabelTiff, self._own(ignored_ids(table, ignore))
        try:
            self._raster = read(path, bool(self._colors), own)
        except ColorPictureError:
            drawn = {color: int(self._values[value]) for color, value in own.items()}
            self._colors = {_BLACK: UNLABELLED, _WHITE: UNLABELLED} | drawn
            self._raster = read(path, True, own)
        codes = np.array(sorted(self._colors), np.int32)
        self._codes, self._code_ids = codes, np.array([self._colors[int(c)] for c in codes], np.int16)
        self._steps = [downsamples(slide_size, self._raster.sizes[0], path)]
        base_w, base_h = self._raster.sizes[0]
        for width, height in self._raster.sizes[1:]:
            factor_x, factor_y = round(base_w / width), round(base_h / height)
            self._steps.append((self._steps[0][0] * factor_x, self._steps[0][1] * factor_y))
        self.notes = self._glance(ignore)

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

    def _own(self, ignored: Sequence[int]) -> dict[int, int]:
        """By the color in which the table draws one type, and no other, a value that means this type."""
        colors = {tissue.id: int(tissue.color[1:], 16) for tissue in self._table.types}
        is_255_free = self._values[UNLABELLED] == UNLABELLED
        own = {_WHITE: UNLABELLED} if is_255_free else {}
        for tissue, color in colors.items():
            values = np.flatnonzero(self._values == tissue).tolist()
            if tissue in ignored and is_255_free:
                values = [UNLABELLED]
            if values and list(colors.values()).count(color) == 1:
                own[color] = values[0]
        return own

    def _to_ids(self, labels: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        ids = self._ids(labels)
        if (ids == UNKNOWN).any():
            self._refuse(labels[ids == UNKNOWN])
        found = ids.astype(np.uint8)
        if self.rest != UNLABELLED:
            found[found == UNLABELLED] = self.rest
        return found

    def _ids(self, labels: Integer[np.ndarray, "h w"]) -> Integer[np.ndarray, "h w"]:
        """Tissue ids, UNKNOWN where no type claims the label."""
        if self._colors:
            place = np.minimum(np.searchsorted(self._codes, labels), len(self._codes) - 1)
            ids = np.where(self._codes[place] == labels, self._code_ids[place], UNKNOWN)
        elif labels.size and (int(labels.max()) > UNLABELLED or int(labels.min()) < 0):
            small = (labels >= 0) & (labels <= UNLABELLED)
            ids = np.where(small, self._values[np.where(small, labels, 0).astype(np.intp)], UNKNOWN)
            for low, high, tissue in self._ranges:
                ids = np.where((labels > UNLABELLED) & (labels >= low) & (labels <= high), tissue, ids)
        else:
            ids = self._values[labels]
        return np.where(labels == TRANSPARENT, UNLABELLED, ids) if labels.dtype == np.int32 else ids

    def _refuse(self, labels: np.ndarray) -> None:
        unknown = [f"#{v:06x}" if self._colors else str(v) for v in np.unique(labels)[:5].tolist()]
        raise TissueError(
            f"{self.path}: label(s) {', '.join(unknown)} are in no tissue table (known: "
            f"{', '.join(self._table.names)}); add each to tissue.toml as a type or an alias, or ignore it"
        )

    def _glance(self, ignore: Sequence[str]) -> tuple[str, ...]:
        """Look through the coarsest level, if small, for unknown labels (raises) and for none at all (noted)."""
        width, height = self._raster.sizes[-1]
        if width * height > _GLANCE:
            return ()
        labels = self._raster.read(len(self._raster.sizes) - 1, 0, 0, width, height)
        self._to_ids(labels)
        if self._colors or not labels.size:
            return ()
        unlabeled = self._ids(labels) == UNLABELLED
        if unlabeled.all():
            return (f'{self.path}: no pixel has a class; if 255 means one, give that type the alias "255"',)
        found = set(np.unique(self._ids(labels)).tolist())
        zero = [tissue.name for tissue in self._table.types if tissue.id == 0 and 0 not in self._values]
        if zero and (labels == 0).any() and not {"0", *map(canonical, zero)} & set(map(canonical, ignore)):
            return (
                f'{self.path}: 0 counts as unlabeled; if it means {shorten(zero[0])!r}, give that type the alias "0"',
            )
        if len(np.unique(labels[labels != TRANSPARENT])) > 2:
            return ()  # 255 is what most tools write for no label; only of two values it may be a type
        missing = [tissue.name for tissue in self._table.types if tissue.id not in found]
        share = float(((labels == UNLABELLED) & unlabeled).mean())
        if missing and share > _COMMON:
            return (
                f"{self.path}: {share:.0%} of the pixels are 255, which counts as unlabeled, and none is "
                f'{shorten(missing[0])!r}; if 255 means it, give that type the alias "255"',
            )
        return ()


class _LabelPng:
    """A label PNG, read whole. A palette counts by color if the table has colors among its aliases, or if all that it
    shows are colors in which the table draws types, as `own` says; else by index."""

    def __init__(self, path: Path, colors: bool, own: dict[int, int]):
        try:
            with opened_picture(path, limit=_MAX_PNG) as image:
                if (
                    image.width * image.height * len(image.getbands()) * (2 if "16" in image.mode else 1)
                    > _MAX_PNG_BYTES
                ):
                    raise AnnotationError(
                        f"{path}: {image.width} x {image.height} is too large for a PNG; write a tiled TIFF"
                    )
                coding = coding_of(image)
                if fault := coding.label_fault():
                    raise AnnotationError(f"{path}: {fault}")
                image.load()
                hidden = transparent(image)
                pixels = _pixels(image, coding, colors, own, hidden)
        except ImageError as error:
            raise AnnotationError(
                str(error).replace("replace the file or leave it out", "copy it from its source again")
            ) from None
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if hidden is not None and pixels.shape[2] in (2, 4):
            pixels = pixels[:, :, :-1]
        labels = labels_of(pixels, colors, path)
        self._labels = labels if hidden is None else np.where(hidden, np.int32(TRANSPARENT), labels.astype(np.int32))
        self.sizes = [(self._labels.shape[1], self._labels.shape[0])]

    def read(self, level: int, left: int, top: int, right: int, bottom: int) -> Integer[np.ndarray, "h w"]:
        """Labels of a box; there is one level."""
        return self._labels[top:bottom, left:right]


def _pixels(
    image: Image.Image, coding: Coding, colors: bool, own: dict[int, int], hidden: Bool[np.ndarray, "h w"] | None
) -> np.ndarray:
    """Colors, or values as the file stores them; those of a gray picture that a program has indexed, and those that
    mean what the colors of the table show: programs order a palette as they like."""
    palette = palette_of(image)
    if colors:
        return np.asarray(image.convert("RGB"))
    if palette is not None and is_reversed(palette, np.asarray(image)):
        return np.asarray(image.convert("L"))
    if palette is not None and image.mode == "P":
        visible = None if hidden is None else Image.fromarray(~hidden)
        shown = np.flatnonzero(image.histogram(visible)).tolist()
        if meant := by_color(pack_colors(palette).tolist(), shown, own):
            values = np.arange(256, dtype=np.uint8)
            values[list(meant)] = list(meant.values())
            return values[np.asarray(image)]
    pixels = np.asarray(image)
    return label_pixels(image, coding)[0] if pixels.ndim == 2 else pixels


def labels_size(path: Path) -> tuple[int, int]:
    """Width and height of a label raster in its own pixels; raises AnnotationError where it is broken."""
    if not _is_png(path):
        return LabelTiff(path, True).sizes[0]  # whatever its labels are
    try:
        with opened_picture(path, limit=_MAX_PNG) as image:
            return image.size
    except ImageError as error:
        raise AnnotationError(str(error)) from None


def _is_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x89PNG"


def downsamples(slide_size: tuple[int, int], raster_size: tuple[int, int], path: Path) -> tuple[float, float]:
    """Level-0 pixels to a raster pixel, across and down: a whole number where that explains both edges.

    A raster of a slide 1001 px wide at downsample 2 has 500 or 501 columns, of 2 px each; the last may be cut. Raises
    AnnotationError when no single downsample gives both edges within a pixel: the raster belongs to another slide.
    """
    estimates = slide_size[0] / raster_size[0], slide_size[1] / raster_size[1]
    ranges = [(s / (r + 1), s / max(r - 1, 0.5)) for s, r in zip(slide_size, raster_size, strict=True)]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if low >= high or high < 1 or (raster_size[0] > slide_size[0] or raster_size[1] > slide_size[1]):
        raise AnnotationError(
            f"{path}: the mask is {raster_size[0]} x {raster_size[1]}, which does not scale to the slide's "
            f"{slide_size[0]} x {slide_size[1]} pixels; take this slide's own mask, uncropped"
        )
    if max(raster_size) < _LEAST and min(estimates) > _COARSE:
        raise AnnotationError(
            f"{path}: the mask is {raster_size[0]} x {raster_size[1]}, too few pixels to map a slide of "
            f"{slide_size[0]} x {slide_size[1]}; export it with more, such as one per 16 of the slide"
        )
    whole = round(sum(estimates) / 2)
    fits = all(r in (s // max(whole, 1), -(-s // max(whole, 1))) for s, r in zip(slide_size, raster_size, strict=True))
    return (float(whole), float(whole)) if fits else estimates


def _nearest(
    corner: int | float, count: int, step: int | float, raster_step: int | float, limit: int
) -> Integer[np.ndarray, " n"]:
    """Raster index under each center of a map's columns or rows, held inside the raster."""
    centers = corner + (np.arange(count) + 0.5) * step
    return np.clip(np.floor(centers / raster_step), 0, limit - 1).astype(np.intp)
