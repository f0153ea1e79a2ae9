"""The file formats of slides: OpenSlide for scanner files, tifffile for OME and stripped TIFF, Pillow for plain images.

`open_source` picks by content, not by file name. (OpenSlide opens some OME-TIFF too, but does not see their pyramid.)

Each source has `level_sizes`, (width, height) from fine to coarse; `mpp` along x and y, or None; `bounds`, the scanned
area as x, y, width, height in level-0 pixels; and `read_level`, which returns a window of one level, white where the
file has no pixels, and the position of its top-left corner in pixels of that level: OpenSlide takes level-0 integers,
so it may differ by a fraction from what was asked for.
"""

import math
import re
import struct
import threading
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import openslide
import tifffile
from jaxtyping import UInt8
from PIL import Image

from histoloom.errors import SlideError

WHITE = 255
CACHE_BYTES = 64 << 20  # decoded TIFF segments kept per open slide: two rows of 512 px tiles of a wide slide
MAX_SEGMENT_BYTES = 1 << 30  # a segment is decoded whole; a strip beyond this holds the whole slide
# Coarser than this (below 1,270 dpi) is a screen or a printer, left in the tag by the program that saved the file.
COARSEST_MPP = 20.0
_MICROMETRES = {"": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0}
_TAG_UNITS = {"inch": 25400.0, "centimeter": 10000.0, "2": 25400.0, "3": 10000.0}


# imagecodecs raises RuntimeError, zlib and Pillow OSError or ValueError, tifffile ValueError, KeyError on odd tags.
READ_ERRORS = (
    openslide.OpenSlideError,
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    SyntaxError,
    tifffile.TiffFileError,
    struct.error,
)


class OpenSlideSource:
    """Whatever OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, DICOM, tiled TIFF."""

    def __init__(self, path: Path):
        self._slide = openslide.OpenSlide(str(path))
        properties = self._slide.properties
        self._is_leica = properties.get("openslide.vendor") == "leica"
        self.level_sizes = list(self._slide.level_dimensions)
        self._downsamples = self._slide.level_downsamples
        self.mpp = _plausible(*(_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"))
        if self.mpp is None:
            unit = _TAG_UNITS.get(properties.get("tiff.ResolutionUnit", ""), 0.0)
            self.mpp = _plausible(*(unit / (_number(properties.get(f"tiff.{a}Resolution")) or np.inf) for a in "XY"))
        width, height = self.level_sizes[0]
        names = ("x", "y", "width", "height")
        bounds = (
            properties.get(f"openslide.bounds-{name}", default)
            for name, default in zip(names, (0, 0, width, height), strict=True)
        )
        self.bounds = tuple(int(value) for value in bounds)

    def read_level(
        self, level: int, left: int, top: int, width: int, height: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        scale = self._downsamples[level]
        (x, from_left), (y, from_top) = (self._start(*place, scale) for place in ((left, 0), (top, 1)))
        image = self._slide.read_region((x, y), level, (width, height))
        alpha = np.asarray(image)[..., 3]
        pixels = np.asarray(image.convert("RGB"))
        if alpha.min() < 255:
            # Half transparent is only the rim of a level at a fractional place, and its colour is that of the level.
            pixels = np.where(alpha[..., None] < 128, np.uint8(WHITE), pixels)
        return pixels, (from_left, from_top)

    def _start(self, place: int, axis: int, scale: float) -> tuple[int, float]:
        """The level-0 pixel to ask for, and where in pixels of the level OpenSlide then begins.

        On Leica slides OpenSlide 4.0 cuts off the fraction of the scan's margin and of the place: what it takes for a
        whole pixel of the scan is aimed at in the middle, and lies where the uncut margin says.
        """
        if not self._is_leica:
            start = round(place * scale)
            return start, start / scale
        margin = self.bounds[axis] / scale
        pixel = round(place - margin)
        aim, half = (math.ceil, 0.5) if pixel >= 0 else (math.floor, -0.5)
        return aim((pixel + math.floor(margin)) * scale + half * (scale - 1)), pixel + margin

    def close(self) -> None:
        self._slide.close()


class TiffSource:
    """OME-TIFF and any other 8-bit RGB TIFF, decoded tile by tile (or strip by strip)."""

    def __init__(self, path: Path):
        self._tiff = tifffile.TiffFile(path)
        _check_directories(self._tiff)
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple, np.ndarray | None] = OrderedDict()
        self._cached_bytes = 0
        series = max(self._tiff.series, key=lambda s: int(np.prod(s.shape)))
        self._levels = [_color_pages(level, self._tiff, path) for level in series.levels]
        self.level_sizes = [(pages[0].imagewidth, pages[0].imagelength) for pages in self._levels]
        self.mpp = _ome_mpp(self._tiff.ome_metadata or "", *self.level_sizes[0]) or _tag_mpp(self._levels[0][0])
        self.bounds = (0, 0, *self.level_sizes[0])

    def read_level(
        self, level: int, left: int, top: int, width: int, height: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        window = np.full((height, width, 3), WHITE, np.uint8)
        for plane, page in enumerate(self._levels[level]):
            self._paste_page(window, (level, plane), page, left, top)
        return window, (float(left), float(top))

    def _paste_page(self, window: np.ndarray, key: tuple, page: tifffile.TiffPage, left: int, top: int) -> None:
        """Copy the segments of `page` that touch the window; a page holds all three colours or one plane of them."""
        tile_h, tile_w = _segment_size(page)
        columns, rows = -(-page.imagewidth // tile_w), -(-page.imagelength // tile_h)
        single_plane = len(self._levels[key[0]]) == 3
        planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
        for plane in range(min(planes, 3)):
            target = window[..., key[1], None] if single_plane else window[..., plane, None] if planes > 1 else window
            for row in range(max(top // tile_h, 0), min(-(-(top + window.shape[0]) // tile_h), rows)):
                for column in range(max(left // tile_w, 0), min(-(-(left + window.shape[1]) // tile_w), columns)):
                    segment = self._segment(key, page, (plane * rows + row) * columns + column)
                    if segment is not None:
                        _paste(target, segment, column * tile_w - left, row * tile_h - top)

    def _segment(self, key: tuple, page: tifffile.TiffPage, index: int) -> np.ndarray | None:
        """One decoded tile or strip `h w s`, from the cache where it is there; None where the file is sparse."""
        key = (*key, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            handle = page.parent.filehandle
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
        if len(data) < page.databytecounts[index]:
            raise tifffile.TiffFileError(f"tile {index} ends after {len(data)} of {page.databytecounts[index]} bytes")
        decoded, _, shape = page.decode(data or None, index, jpegtables=page.jpegtables)
        segment = None if decoded is None else decoded[0, : shape[1], : shape[2]]
        with self._lock:
            if key not in self._cache:
                self._cache[key] = segment
                self._cached_bytes += 0 if segment is None else segment.nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                dropped = self._cache.popitem(last=False)[1]
                self._cached_bytes -= 0 if dropped is None else dropped.nbytes
        return segment

    def close(self) -> None:
        self._tiff.close()


class ImageSource:
    """A plain image (PNG, JPEG, WebP, BMP), held in memory whole."""

    mpp = None  # dpi in plain images is that of a screen or printer

    def __init__(self, path: Path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", Image.DecompressionBombWarning
                )  # twice that size is an error, caught below
                image = Image.open(path)
        except Image.DecompressionBombError:
            raise SlideError(
                f"{path}: too large for a plain image; convert it: vips tiffsave IN OUT.tif --tile --pyramid"
            ) from None
        except (OSError, ValueError, SyntaxError):
            raise SlideError(
                f"{path}: not a slide that OpenSlide, tifffile or Pillow can read; export it as OME-TIFF"
            ) from None
        if image.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
            raise SlideError(f"{path}: not a colour image of 8 bits (Pillow mode {image.mode}); save it as 8-bit RGB")
        with image:
            rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (WHITE, WHITE, WHITE, 255))
        self._pixels = np.asarray(Image.alpha_composite(canvas, rgba).convert("RGB"))
        self.level_sizes = [rgba.size]
        self.bounds = (0, 0, *rgba.size)

    def read_level(
        self, level: int, left: int, top: int, width: int, height: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        window = np.full((height, width, 3), WHITE, np.uint8)
        _paste(window, self._pixels, -left, -top)
        return window, (float(left), float(top))

    def close(self) -> None:
        self._pixels = np.empty((0, 0, 3), np.uint8)


Source = OpenSlideSource | TiffSource | ImageSource


def open_source(path: Path) -> Source:
    """Open the file with the library that reads it; raises SlideError naming the file and what to do."""
    if path.is_dir():
        raise SlideError(f"{path}: a folder, not a slide; give the file in it (for DICOM any of its .dcm files)")
    if not path.is_file():
        raise SlideError(f"{path}: no such slide; check the path")
    try:
        vendor = openslide.OpenSlide.detect_format(str(path))
        if vendor is not None and not (vendor == "generic-tiff" and _is_ome(path)):
            return OpenSlideSource(path)
        if _is_tiff(path):
            return TiffSource(path)
        return ImageSource(path)
    except SlideError:
        raise
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> SlideError:
    """The error for a file that a library refuses half-way."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return SlideError(
        f"{path}: damaged or cut short ({reason}); copy it again and compare its checksum with the original"
    )


def _paste(target: np.ndarray, piece: np.ndarray, x: int, y: int) -> None:
    """Copy `piece` into `target` with its corner at (x, y), clipped; extra channels are dropped."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + piece.shape[0], target.shape[0]), min(x + piece.shape[1], target.shape[1])
    if top < bottom and left < right:
        target[top:bottom, left:right] = piece[top - y : bottom - y, left - x : right - x, : target.shape[2]]


def _check_directories(tiff: tifffile.TiffFile) -> None:
    """Raise TiffFileError where a page is missing: tifffile takes the pages before it for the whole file."""
    if not len(tiff.pages):
        raise tifffile.TiffFileError("its directory is missing")
    layout, file, start = tiff.tiff, tiff.filehandle, tiff.pages[-1].offset
    file.seek(start)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(start + layout.tagnosize + tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize).ljust(layout.offsetsize, b"\1"))
    if following:
        raise tifffile.TiffFileError("a directory lies beyond its end")


def _color_pages(level: tifffile.TiffPageSeries, tiff: tifffile.TiffFile, path: Path) -> list[tifffile.TiffPage]:
    """The page with all colours, or the three pages with one each; raises SlideError for anything but 8-bit RGB."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    channels = sizes.get("S", 1) * sizes.get("C", 1)
    plain = (
        level.dtype == np.uint8
        and channels in (3, 4)
        and set(level.axes) <= set("YXSC")
        and len(level.pages) in (1, channels)
    )
    pages = [
        level.pages[i].aspage() if hasattr(level.pages[i], "aspage") else level.pages[i]
        for i in range(len(level.pages))
    ]
    if not plain or any(page.photometric == tifffile.PHOTOMETRIC.PALETTE for page in pages):
        found = f"{level.dtype} with axes {level.axes} of {'x'.join(map(str, level.shape))}"
        raise SlideError(f"{path}: not an 8-bit RGB image ({found}); export the H&E image as 8-bit RGB")
    if any(page.parent is not tiff for page in pages):
        raise SlideError(f"{path}: an OME-TIFF in several files; merge it into one with bfconvert")
    if max(int(np.prod(_segment_size(page))) for page in pages) * channels > MAX_SEGMENT_BYTES:
        raise SlideError(
            f"{path}: one strip holds the whole image; convert it: vips tiffsave IN OUT.tif --tile --pyramid"
        )
    return pages[:3]


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Height and width of a tile, or of a strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _is_ome(path: Path) -> bool:
    with tifffile.TiffFile(path) as tiff:
        return bool(tiff.is_ome)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _ome_mpp(xml: str, width: int, height: int) -> tuple[float, float] | None:
    """PhysicalSizeX and -Y of the image of this size; by pattern, since XML from strangers is not parsed."""
    for tag in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml):
        values = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if (values.get("SizeX"), values.get("SizeY")) == (str(width), str(height)):
            sizes = (_number(values.get(f"PhysicalSize{axis}")) for axis in "XY")
            units = (_MICROMETRES.get(values.get(f"PhysicalSize{axis}Unit", ""), np.nan) for axis in "XY")
            return _plausible(*((size or np.nan) * unit for size, unit in zip(sizes, units, strict=True)))
    return None


def _tag_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """From XResolution, YResolution and ResolutionUnit; None without a unit or where the value is that of a screen."""
    unit = _TAG_UNITS.get(str(int(page.tags.valueof("ResolutionUnit", default=1))), 0.0)
    values = [page.tags.valueof(f"{axis}Resolution", default=(0, 1)) for axis in "XY"]
    if not all(numerator and denominator for numerator, denominator in values):
        return None
    return _plausible(*(unit * denominator / numerator for numerator, denominator in values))


def _plausible(x: float | None, y: float | None) -> tuple[float, float] | None:
    """The pair where both are pixel sizes of a microscope, else None."""
    return (x, y) if x and y and 0 < x <= COARSEST_MPP and 0 < y <= COARSEST_MPP else None


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
