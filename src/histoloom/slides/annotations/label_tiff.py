"""Windows of a label TIFF without reading the whole: only the tiles or strips that a window meets are decoded."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Bool, Int32, Integer, UInt8

from histoloom.errors import AnnotationError
from histoloom.pictures import coding_of_tiff_page, pack_colors
from histoloom.shown import by_color, is_reversed
from histoloom.slides.segments import MAX_SEGMENT_BYTES, SegmentCache
from histoloom.text import one_line
from histoloom.tissue import UNLABELLED

TRANSPARENT = -1  # a label that no file holds
_PROBE = 64  # pixels of a reduced level that are held against the base
_BROKEN = (
    OSError, tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError, RuntimeError, AttributeError,
    ArithmeticError, MemoryError, struct.error,
)  # fmt: skip


class ColorPictureError(AnnotationError):
    """A picture whose labels are colors, which was read by its red channel."""


class LabelTiff:
    """The levels of a label TIFF, finest first, their (width, height) in `sizes`; safe to share between threads.

    A palette counts by color if `colors`, or if all that it shows are colors of `own`, which has a label for each; else
    by index. Raises AnnotationError, here and in `read`, for a file that is broken, truncated or not a label raster.
    """

    def __init__(self, path: Path, colors: bool, own: dict[int, int] | None = None):
        self.path, self._colors = path, colors
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = _levels(tiff)
                for page in pages:
                    _ = page.decode, page.jpegtables  # built from the tags while the file is open
                    if min(*_segment_size(page), page.imagewidth, page.imagelength) < 1:
                        raise ValueError("a page without pixels")
                palette = _palette(pages[0])
                coding = replace(coding_of_tiff_page(pages[0]), pages=_full_size(tiff, pages[0]))
        except _BROKEN as error:
            reason = one_line(str(error), 200)
            raise AnnotationError(f"{path}: not readable as TIFF ({reason}); copy it from its source again") from None
        base = pages[0]
        if fault := coding.label_fault():
            raise AnnotationError(f"{path}: {fault}")
        channels = base.samplesperpixel - bool(coding.alpha)
        if coding.kind != "rgb" and channels > 1:
            raise AnnotationError(
                f"{path}: holds {channels} channels; save the one that counts as a picture of its own"
            )
        if palette is not None and is_reversed(palette, np.zeros(0, np.uint8)):
            raise AnnotationError(
                f"{path}: its palette is white, then black, so that its indices say the contrary of what it shows; "
                "save it as gray"
            )
        if base.planarconfig != 1 or base.dtype is None or base.dtype.kind not in "uib" or base.imagedepth != 1:
            raise AnnotationError(f"{path}: not a label raster ({base.dtype}, {base.axes}); write labels as uint8 h w")
        tile_w, tile_h = _segment_size(base)
        if tile_w * tile_h * base.samplesperpixel * base.dtype.itemsize > MAX_SEGMENT_BYTES // 4:
            raise AnnotationError(f"{path}: one strip holds {tile_w} x {tile_h} labels; write a tiled TIFF")
        self._alpha, self._dtype = bool(coding.alpha), np.uint8 if base.dtype == bool else base.dtype
        self._cache, self._meaning = SegmentCache(), None
        self._pages = [base, *(page for page in pages[1:] if self._picks_labels(base, page))]
        self.sizes = [(page.imagewidth, page.imagelength) for page in self._pages]
        if coding.kind == "rgb" and not colors:
            self._look_for_colors()
        if palette is not None:
            self._meaning = pack_colors(palette) if colors else self._by_color(pack_colors(palette), own or {})
            self._cache = SegmentCache()  # of indices so far

    def read(self, level: int, left: int, top: int, right: int, bottom: int) -> Integer[np.ndarray, "h w"]:
        """Labels (or packed colors) of a box in pixels of the level; the box is inside and not empty."""
        return self._read(self._pages[level], left, top, right, bottom)

    def _read(self, page: tifffile.TiffPage, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        tile_w, tile_h = _segment_size(page)
        across = -(-page.imagewidth // tile_w)
        out = np.zeros((bottom - top, right - left), np.int32 if self._colors or self._alpha else self._dtype)
        for row in range(top // tile_h, -(-bottom // tile_h)):
            for column in range(left // tile_w, -(-right // tile_w)):
                index = row * across + column
                labels = self._cache.get((page.offset, index), lambda index=index: self._decode(page, index))
                if labels is None:  # a sparse tile holds nothing
                    continue
                y, x = row * tile_h, column * tile_w
                y0, x0 = max(top, y), max(left, x)
                y1, x1 = min(bottom, y + labels.shape[0]), min(right, x + labels.shape[1])
                out[y0 - top : y1 - top, x0 - left : x1 - left] = labels[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def _decode(self, page: tifffile.TiffPage, index: int) -> np.ndarray | None:
        """One tile or strip. The file is opened each time (20 us), so that forks and threads share no position."""
        try:
            if page.databytecounts[index] == 0:
                return None
            with self.path.open("rb") as file:
                file.seek(page.dataoffsets[index])
                packed = file.read(page.databytecounts[index])
            if len(packed) < page.databytecounts[index]:
                raise OSError("the file ends too early")
            pixels, _, (_, height, width, _) = page.decode(packed, index, jpegtables=page.jpegtables)
            if pixels is None:
                return None
            if self._meaning is None:
                return labels_of(pixels[0, :height, :width], self._colors, self.path, self._alpha)
            indices = labels_of(pixels[0, :height, :width], False, self.path, self._alpha)
            return np.where(indices == TRANSPARENT, TRANSPARENT, self._meaning[indices])
        except _BROKEN as error:
            raise AnnotationError(
                f"{self.path}: part {index} of the label TIFF is broken ({one_line(str(error), 200)}); copy it from "
                "its source again"
            ) from None

    def _look_for_colors(self) -> None:
        """Look through the coarsest level; raises ColorPictureError."""
        (width, height), step = self.sizes[-1], _segment_size(self._pages[-1])[1]
        for top in range(0, height, step):
            self._read(self._pages[-1], 0, top, width, min(top + step, height))

    def _by_color(self, palette: Int32[np.ndarray, " n"], own: dict[int, int]) -> Int32[np.ndarray, " n"] | None:
        """The label of each index where colors count. The whole mask is looked through if the answer depends on it."""
        labels = np.arange(len(palette), dtype=np.int32)
        colors = {color: label for color, label in own.items() if label != UNLABELLED}  # white fills up palettes
        if all(colors.get(color, index) == index for index, color in enumerate(palette.tolist())):
            return None
        (width, height), used = self.sizes[0], np.zeros(len(palette) + 1, bool)
        tile_h = _segment_size(self._pages[0])[1]
        for top in range(0, height, tile_h):
            used[self.read(0, 0, top, width, min(top + tile_h, height))] = True  # TRANSPARENT is the last
        meant = by_color(palette.tolist(), np.flatnonzero(used[:-1]).tolist(), own)
        labels[list(meant)] = list(meant.values())
        return labels if meant else None

    def _picks_labels(self, base: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
        """Whether a reduced level shows labels of the base: a level that averages them invents classes.

        Looked at where labels change first, since only there an average differs.
        """
        factor = round(base.imagewidth / page.imagewidth)
        if abs(base.imagewidth / factor - page.imagewidth) > 1 or abs(base.imagelength / factor - page.imagelength) > 1:
            return False
        width, height = page.imagewidth, page.imagelength
        for top in range(0, height, _PROBE):
            small = self._read(page, 0, top, width, min(top + _PROBE, height))
            changes = (small[:, 1:] != small[:, :-1]).any(axis=0)
            if not changes.any():
                continue
            left = max(0, int(changes.argmax()) - _PROBE // 2)
            w = min(_PROBE, width - left, base.imagewidth // factor - left)
            h = min(len(small), base.imagelength // factor - top)
            box = (factor * left, factor * top, factor * (left + w), factor * (top + h))
            blocks = self._read(base, *box).reshape(h, factor, w, factor)
            return bool((blocks == small[:h, None, left : left + w, None]).any(axis=(1, 3)).all())
        return True


def labels_of(
    pixels: Integer[np.ndarray, "h w c"] | Bool[np.ndarray, "h w c"], colors: bool, path: Path, alpha: bool = False
) -> Integer[np.ndarray, "h w"]:
    """Labels (h w) from pixels: the first channel, or packed 0xrrggbb if `colors`; -1 where `alpha`, the last, is 0.

    PANDA keeps the label in the red channel and leaves the others empty. Raises ColorPictureError when the others hold
    something else.
    """
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)  # not view: PIL stores True as 255
    channels = pixels[:, :, :-1] if alpha else pixels
    if colors:
        labels = pack_colors(channels if channels.shape[2] > 2 else np.repeat(channels[:, :, :1], 3, axis=2))
    else:
        labels = _first_channel(channels, path)
    return np.where(pixels[:, :, -1] == 0, np.int32(TRANSPARENT), labels.astype(np.int32)) if alpha else labels


def _first_channel(pixels: Integer[np.ndarray, "h w c"], path: Path) -> Integer[np.ndarray, "h w"]:
    red, others = pixels[:, :, :1], pixels[:, :, 1:3]
    if pixels.shape[2] > 2 and others.any() and (others != red).any():
        raise ColorPictureError(f"{path}: a color picture, not labels in the red channel")
    return np.ascontiguousarray(pixels[:, :, 0])


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Width and height of a tile, or of a strip."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def _full_size(tiff: tifffile.TiffFile, base: tifffile.TiffPage) -> int:
    """How many pages have the size of the largest, also where a series says so of pages without a directory."""
    size = (base.imagewidth, base.imagelength)
    pages = sum((page.imagewidth, page.imagelength) == size for page in map(_page, tiff.pages))
    planes = [
        series.size // (base.imagewidth * base.imagelength * base.samplesperpixel)
        for series in tiff.series
        if series.size and (series.keyframe.imagewidth, series.keyframe.imagelength) == size
    ]
    return max(pages, *planes, 1)


def _page(page: tifffile.TiffPage | tifffile.TiffFrame) -> tifffile.TiffPage:
    """A page with all its tags, which tifffile may have left to the first of its series."""
    return page.aspage()


def _palette(page: tifffile.TiffPage) -> UInt8[np.ndarray, "n 3"] | None:
    """The colors of an indexed page, which a TIFF file holds in 16 bits; None for any other."""
    return None if page.colormap is None else (np.asarray(page.colormap).T >> 8).astype(np.uint8)


def _levels(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The largest page and the reduced copies of it, in falling size."""
    pages = [*map(_page, tiff.pages), *(level.keyframe for series in tiff.series[:1] for level in series.levels[1:])]
    base = max(pages, key=lambda page: page.imagewidth * page.imagelength).aspage()
    same = {
        (page.imagewidth, page.imagelength): page.aspage()
        for page in pages
        if page.dtype == base.dtype
        and page.samplesperpixel == base.samplesperpixel
        and page.imagewidth < base.imagewidth
    }
    return [base, *(same[size] for size in sorted(same, reverse=True))]
