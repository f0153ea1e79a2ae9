"""A whole slide as one large image: ask for a place, a size and an mpp, get pixels.

Pixels are areas, not points: pixel `i` at `mpp` covers micrometers `[i, i + 1) * mpp`. `read` returns the area that was
asked for, whatever levels the file has, so that a map drawn by the same rule agrees with it.
"""

import math
import os
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from histoloom.errors import SlideError
from histoloom.pictures import RESAMPLING, WHITE
from histoloom.slides.formats import READ_ERRORS, Source, damaged, open_source
from histoloom.slides.pyramid import Level, find_levels

FIT = 0.75  # pixels: a level is returned as it is when no corner of the area moves by more than this
LEVEL_SLACK = 1.02  # a level up to 2 % coarser than asked for still serves: 0.5 mpp from a level of 0.504
SUPPORT = 3  # Lanczos reaches this many output pixels
BLOCK = 4096  # level pixels read at a time along each axis: 64 MB, however large the area
SQUARE = 0.05  # pixels whose sides differ by more are refused
SAME_MPP = 0.02  # of the given mpp: less is rounding
UPSAMPLING = 1.1  # enlarging by less is not worth a note


class Slide:
    """An open slide: `size` (width, height) and `mpp` of level 0, `levels` from fine to coarse, `bounds` of the scan.

    `notes` has one line for each thing that is doubtful. A context manager. Threads may share it; a process that
    inherits or unpickles it opens the file again.
    """

    def __init__(self, path: Path | str, slide_mpp: float | None = None, overrule_mpp: bool = False):
        self.path = Path(path)
        if slide_mpp is not None and not (math.isfinite(slide_mpp) and slide_mpp > 0):
            raise SlideError(
                f"{self.path}: --slide-mpp {slide_mpp} is not a pixel size; give micrometers per pixel, such as 0.25"
            )
        self._source: Source | None = open_source(self.path)
        self._pid = os.getpid()
        if min(edge for size in self._source.level_sizes for edge in size) < 1:
            self.close()
            raise damaged(self.path, ValueError("a level without pixels"))
        self.size: tuple[int, int] = self._source.level_sizes[0]
        self.bounds = self._source.bounds
        try:
            self.says_mpp = self._source.mpp is not None  # whether the file does
            self.mpp, notes = _mpp(self.path, self._source.mpp, slide_mpp, overrule_mpp)
            self.levels, doubts = find_levels(self._source.level_sizes, self._source.tile_sizes, self._level_pixels)
        except SlideError:
            self.close()
            raise
        self.notes: tuple[str, ...] = tuple(f"{self.path}: {note}" for note in (*self._source.notes, *notes, *doubts))

    def read(
        self, x: int | float, y: int | float, size: int | tuple[int, int], mpp: float
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of the area whose top-left corner is (x, y) in level-0 pixels.

        `size` is the edge, or (width, height), of the result in pixels of `mpp`. Beyond the slide, and where the file
        has no pixels, the result is white. Raises SlideError where the file is damaged.
        """
        width, height = (size, size) if isinstance(size, int) else size
        x, y, scale = float(x), float(y), mpp / self.mpp
        first_column, last_column = _inside(x, width, scale, self.size[0])
        first_row, last_row = _inside(y, height, scale, self.size[1])
        inner = last_column - first_column, last_row - first_row
        if inner == (width, height) and max(inner) * scale <= BLOCK:
            return self._read_block(x, y, width, height, scale)
        canvas = np.full((height, width, 3), WHITE, np.uint8)
        step = max(int(BLOCK * self._level_for(scale).downsample_x / scale), 1)
        for top in range(first_row, last_row, step):
            for left in range(first_column, last_column, step):
                right, bottom = min(left + step, last_column), min(top + step, last_row)
                block = self._read_block(x + left * scale, y + top * scale, right - left, bottom - top, scale)
                canvas[top:bottom, left:right] = block
        return canvas

    def covers(self, x: int | float, y: int | float, size: tuple[int, int], mpp: float) -> bool:
        """Whether all of an area as `read` takes it is on the slide, to half a pixel."""
        scale = mpp / self.mpp
        ranges = (_inside(float(at), n, scale, edge) for at, n, edge in zip((x, y), size, self.size, strict=True))
        return all(found == (0, n) for found, n in zip(ranges, size, strict=True))

    def thumbnail(self, mpp: float) -> UInt8[np.ndarray, "h w 3"]:
        """The whole slide at `mpp`; its last row and column may be cut by the slide's edge."""
        width, height = (max(math.ceil(edge * self.mpp / mpp - 1e-6), 1) for edge in self.size)
        return self.read(0, 0, (width, height), mpp)

    def notes_at(self, mpp: float) -> tuple[str, ...]:
        """A line where reading at `mpp` enlarges the pixels of the slide: there is no more detail than it has."""
        if mpp >= self.mpp / UPSAMPLING:
            return ()
        return (
            f"{self.path}: {mpp:g} um/px is finer than the slide's {self.mpp:.4g}; its pixels are enlarged "
            f"{self.mpp / mpp:.3g}-fold",
        )

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        if self._source is not None and self._pid == os.getpid():
            self._source.close()
        self._source = None

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.size
        return f"Slide({self.path.name!r}, {width} x {height} px, {self.mpp:.4g} um/px, {len(self.levels)} levels)"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_source": None}

    def _open(self) -> Source:
        """The file, opened in this process: handles of C libraries do not survive a fork."""
        if self._source is None or self._pid != os.getpid():
            self._source, self._pid = open_source(self.path), os.getpid()
        return self._source

    def _level_for(self, scale: float) -> Level:
        """The coarsest level that is still as fine as `scale` level-0 pixels per pixel."""
        fine_enough = [level for level in self.levels if level.downsample_x <= scale * LEVEL_SLACK]
        return max(fine_enough, key=lambda level: level.downsample_x, default=self.levels[0])

    def _read_block(self, x: float, y: float, width: int, height: int, scale: float) -> UInt8[np.ndarray, "h w 3"]:
        """An area whose pixel centers are all on the slide."""
        level = self._level_for(scale)
        step_x, step_y = scale / level.downsample_x, scale / level.downsample_y
        left, top = x / level.downsample_x, y / level.downsample_y
        area = (left, top, left + width * step_x, top + height * step_y)
        near_left, near_top = round((left + area[2] - width) / 2), round((top + area[3] - height) / 2)
        within = 0 <= near_left <= level.width - width and 0 <= near_top <= level.height - height
        if within and _fits(area, (near_left, near_top), width, height):
            pixels, origin = self._read_level(level, near_left, near_top, width, height)
            if _fits(area, origin, width, height):
                return pixels
        margin_x, margin_y = (math.ceil(SUPPORT * max(step, 1)) + 1 for step in (step_x, step_y))
        from_x, to_x = max(math.floor(left) - margin_x, 0), min(math.ceil(area[2]) + margin_x, level.width)
        from_y, to_y = max(math.floor(top) - margin_y, 0), min(math.ceil(area[3]) + margin_y, level.height)
        pixels, (origin_x, origin_y) = self._read_level(level, from_x, from_y, to_x - from_x, to_y - from_y)
        box = (area[0] - origin_x, area[1] - origin_y, area[2] - origin_x, area[3] - origin_y)
        return _resample(pixels, box, (width, height))

    def _read_level(
        self, level: Level, left: int, top: int, width: int, height: int
    ) -> tuple[np.ndarray, tuple[float, float]]:
        try:
            return self._open().read_level(level.index, left, top, width, height)
        except READ_ERRORS as error:
            raise damaged(self.path, error) from None

    def _level_pixels(self, index: int, left: int, top: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        return self._read_level(Level(0, 0, 1.0, 1.0, index), left, top, width, height)[0]


def open_slide(path: Path | str, slide_mpp: float | None = None, overrule_mpp: bool = False) -> Slide:
    """Open a slide; `slide_mpp` (micrometers per level-0 pixel) is used where the file does not say.

    With `overrule_mpp` it is also used where the file says something else. Raises SlideError for a file that is not a
    slide, is damaged, or does not say its mpp.
    """
    return Slide(path, slide_mpp, overrule_mpp)


def _mpp(
    path: Path, found: tuple[float, float] | None, slide_mpp: float | None, overrule: bool
) -> tuple[float, list[str]]:
    """The pixel size of the file, else the given one, and a note where they differ.

    Raises SlideError for neither, and for pixels that are not square.
    """
    if found is None or (overrule and slide_mpp is not None):
        if slide_mpp is None:
            raise SlideError(f"{path}: the file does not say its micrometers per pixel; give them with --slide-mpp")
        return float(slide_mpp), []
    if abs(found[0] / found[1] - 1) > SQUARE:
        raise SlideError(
            f"{path}: pixels are not square ({found[0]:.4g} x {found[1]:.4g} um); resample it to square pixels"
        )
    mpp = (found[0] + found[1]) / 2
    if slide_mpp is None or abs(mpp / slide_mpp - 1) < SAME_MPP:
        return mpp, []
    return mpp, [
        f"--slide-mpp {slide_mpp:g} is not used, since the file says {mpp:.4g} um/px; `patches` and `overlay` "
        "use it with --overrule-mpp"
    ]


def _inside(start: float, length: int, scale: float, edge: int) -> tuple[int, int]:
    """First and last + 1 of the pixels whose centers, at `start + (i + 0.5) * scale`, are on the slide."""
    first = min(max(math.ceil(-start / scale - 0.5), 0), length)
    last = min(max(math.ceil((edge - start) / scale - 0.5), first), length)
    return first, last


def _fits(
    area: tuple[float, float, float, float], origin: tuple[int | float, int | float], width: int, height: int
) -> bool:
    """Whether level pixels from `origin` on show `area` (left, top, right, bottom) closely enough as they are."""
    corners = (*origin, origin[0] + width, origin[1] + height)
    return max(abs(have - want) for have, want in zip(corners, area, strict=True)) <= FIT


def _resample(
    pixels: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float], size: tuple[int, int]
) -> UInt8[np.ndarray, "oh ow 3"]:
    """The `box` of `pixels` at `size`; it may reach beyond them by a part of a pixel, where the edge is repeated."""
    height, width = pixels.shape[:2]
    before_x, before_y = (math.ceil(max(-edge, 0)) for edge in box[:2])
    after_x, after_y = math.ceil(max(box[2] - width, 0)), math.ceil(max(box[3] - height, 0))
    if before_x or before_y or after_x or after_y:
        pixels = np.pad(pixels, ((before_y, after_y), (before_x, after_x), (0, 0)), mode="edge")
    shifted = (box[0] + before_x, box[1] + before_y, box[2] + before_x, box[3] + before_y)
    return np.asarray(Image.fromarray(pixels).resize(size, RESAMPLING, box=shifted))
