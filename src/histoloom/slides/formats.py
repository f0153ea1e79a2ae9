"""The file formats of slides: OpenSlide for scanner files, tifffile for OME and stripped TIFF, Pillow for plain images.

`open_source` picks by content, not by file name. (OpenSlide opens some OME-TIFF, too, but does not see their pyramid.)

Each source has `level_sizes`, (width, height) from fine to coarse, and `tile_sizes` of the levels; `mpp` along x and y,
or None; `bounds`, the scanned area as x, y, width, height in level-0 pixels; `notes` on images that are not read; and
`read_level`, which returns a window of one level, white where the file has no pixels, and the position of its top-left
corner in pixels of that level: OpenSlide takes level-0 integers, so it may differ by a fraction from what was asked.
"""

import math
import struct
from pathlib import Path

import numpy as np
import openslide
import tifffile
from jaxtyping import UInt8

from histoloom.errors import ImageError, SlideError
from histoloom.pictures import WHITE, Coding, coding_of_tiff_page, open_picture, over_white, rgb_pixels
from histoloom.slides.headers import check_header, is_tiff
from histoloom.slides.mpp import imagej_mpp, number, ome_channels_are_rgb, ome_mpp, plausible, tag_mpp, tag_unit
from histoloom.slides.segments import MAX_SEGMENT_BYTES, SegmentCache
from histoloom.slides.unread import note_on_pages, note_on_series
from histoloom.text import one_line

# imagecodecs raises RuntimeError, zlib and Pillow OSError or ValueError, tifffile ValueError, KeyError on odd tags.
READ_ERRORS = (
    openslide.OpenSlideError,
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    SyntaxError,
    tifffile.TiffFileError,
    struct.error,
)


class OpenSlideSource:
    """Whatever OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, CZI, DICOM, tiled TIFF."""

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path):
        self._slide = openslide.OpenSlide(str(path))
        properties = self._slide.properties
        self._is_leica = properties.get("openslide.vendor") == "leica"
        self.level_sizes: list[tuple[int, int]] = list(self._slide.level_dimensions)
        self.tile_sizes = [_tile_size(properties, level) for level in range(len(self.level_sizes))]
        self._downsamples = self._slide.level_downsamples
        self.mpp = plausible(*(number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"))
        if self.mpp is None:
            unit = tag_unit(properties.get("tiff.ResolutionUnit", ""))
            self.mpp = plausible(*(unit / (number(properties.get(f"tiff.{a}Resolution")) or np.inf) for a in "XY"))
        width, height = self.level_sizes[0]
        names = ("x", "y", "width", "height")
        x, y, wide, high = (
            int(properties.get(f"openslide.bounds-{name}", default))
            for name, default in zip(names, (0, 0, width, height), strict=True)
        )
        self.bounds = (x, y, wide, high)

    def read_level(
        self, level: int, left: int, top: int, width: int, height: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        scale = self._downsamples[level]
        (x, from_left), (y, from_top) = (self._start(*place, scale) for place in ((left, 0), (top, 1)))
        image = self._slide.read_region((x, y), level, (width, height))
        alpha = np.asarray(image)[..., 3]
        pixels = np.asarray(image.convert("RGB"))
        if alpha.min() < 255:
            # Half transparent is only the rim of a level at a fractional place, and its color is that of the level.
            pixels = np.where(alpha[..., None] < 128, np.uint8(WHITE), pixels)
        return pixels, (from_left, from_top)

    def _start(self, place: int, axis: int, scale: float) -> tuple[int, float]:
        """The level-0 pixel to ask for, and where in pixels of the level OpenSlide then begins.

        On Leica slides OpenSlide 4.0 cuts off the fraction of the scan's margin and of the place: what it takes for a
        whole pixel of the scan is aimed at in the middle, and is where the uncut margin says.
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
        self._cache = SegmentCache()
        series = max(self._tiff.series, key=lambda s: int(np.prod(s.shape, dtype=object)))
        self._levels = [_color_pages(level, self._tiff, path) for level in series.levels]
        self._alpha = coding_of_tiff_page(self._levels[0][0]).alpha
        first = self._levels[0][0]
        self.level_sizes = [(pages[0].imagewidth, pages[0].imagelength) for pages in self._levels]
        self.tile_sizes = [
            (pages[0].tilewidth, pages[0].tilelength) if pages[0].is_tiled else None for pages in self._levels
        ]
        self.mpp = (
            ome_mpp(self._tiff.ome_metadata or "", *self.level_sizes[0])
            or imagej_mpp(self._tiff.imagej_metadata, first)
            or tag_mpp(first)
        )
        self.bounds = (0, 0, *self.level_sizes[0])
        self.notes = tuple(note_on_series(self._tiff, series, self.level_sizes[0]))

    def read_level(
        self, level: int, left: int, top: int, width: int, height: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        window = np.full((height, width, 3), WHITE, np.uint8)
        for plane, page in enumerate(self._levels[level]):
            self._paste_page(window, (level, plane), page, left, top)
        return window, (float(left), float(top))

    def _paste_page(
        self, window: np.ndarray, key: tuple[int, int], page: tifffile.TiffPage, left: int, top: int
    ) -> None:
        """Copy the segments of `page` that touch the window; a page holds all three colors or one plane of them."""
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

    def _segment(self, key: tuple[int, int], page: tifffile.TiffPage, index: int) -> np.ndarray | None:
        """One decoded tile or strip `h w s`, from the cache where it is there; None where the file is sparse."""
        return self._cache.get((*key, index), lambda: self._decode(page, index))

    def _decode(self, page: tifffile.TiffPage, index: int) -> np.ndarray | None:
        handle = page.parent.filehandle
        with handle.lock:
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
        if len(data) < page.databytecounts[index]:
            raise tifffile.TiffFileError(f"tile {index} ends after {len(data)} of {page.databytecounts[index]} bytes")
        decoded, _, shape = page.decode(data or None, index, jpegtables=page.jpegtables)
        if decoded is None:
            return None
        segment = decoded[0, : shape[1], : shape[2]]
        return over_white(segment, self._alpha == "premultiplied") if self._alpha else segment

    def close(self) -> None:
        self._tiff.close()


class ImageSource:
    """A plain image (PNG, JPEG, WebP, BMP), held in memory whole."""

    notes: tuple[str, ...] = ()
    mpp = None  # dpi in plain images is that of a screen or printer

    def __init__(self, path: Path):
        try:
            picture, coding = open_picture(path)
        except ImageError as error:
            raise SlideError(_image_fault(path, str(error))) from None
        if fault := coding.image_fault():
            raise SlideError(f"{path}: not an 8-bit RGB image: {fault}")
        self._pixels = rgb_pixels(picture)
        self.level_sizes = [picture.size]
        self.tile_sizes: list[tuple[int, int] | None] = [None]
        self.bounds = (0, 0, *picture.size)

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
        check_header(path)
        vendor = openslide.OpenSlide.detect_format(str(path))
        if vendor is not None and not (vendor == "generic-tiff" and _is_for_tifffile(path)):
            return _checked(OpenSlideSource(path), path, vendor == "generic-tiff")
        if is_tiff(path):
            return TiffSource(path)
        return ImageSource(path)
    except SlideError:
        raise
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> SlideError:
    """The error for a file that a library refuses half-way."""
    reason = one_line(str(error), 300) or type(error).__name__
    return SlideError(
        f"{path}: damaged or cut short ({reason}); copy it again and compare its checksum with the original"
    )


def _checked(source: OpenSlideSource, path: Path, is_generic: bool) -> OpenSlideSource:
    """The source, unless its TIFF holds pixels that OpenSlide would give in wrong colors or places.

    Of a `generic` TIFF it gets notes on the images that are not read: those of scanners OpenSlide knows itself.
    """
    if not is_tiff(path):
        return source
    with tifffile.TiffFile(path) as tiff:
        width, height = source.level_sizes[0]
        pages = [page.aspage() for page in tiff.pages]
        same = [page for page in pages if (page.imagewidth, page.imagelength) == (width, height)]
        coding = coding_of_tiff_page(same[0]) if same else None
        try:
            notes = note_on_pages(tiff, source.level_sizes) if is_generic else []
        except SlideError:
            source.close()
            raise
    if coding is not None and coding.kind != "unknown" and (fault := coding.image_fault()):
        source.close()
        raise SlideError(f"{path}: not an 8-bit RGB image: {fault}")
    source.notes = tuple(notes)
    return source


def _image_fault(path: Path, error: str) -> str:
    if "million" in error:
        return f"{path}: too large for a plain image; convert it: vips tiffsave IN OUT.tif --tile --pyramid"
    if "not a picture" in error:
        return f"{path}: not a slide that OpenSlide, tifffile or Pillow can read; export it as OME-TIFF"
    reason = error.partition("(")[2].rpartition(")")[0]
    return str(damaged(path, ValueError(reason)))


def _tile_size(properties: object, level: int) -> tuple[int, int] | None:
    width, height = (
        number(properties.get(f"openslide.level[{level}].tile-{edge}"))  # pyright: ignore[reportAttributeAccessIssue] (a mapping)
        for edge in ("width", "height")
    )
    return (int(width), int(height)) if width and height else None


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
        raise tifffile.TiffFileError("a directory is beyond its end")


def _color_pages(level: tifffile.TiffPageSeries, tiff: tifffile.TiffFile, path: Path) -> list[tifffile.TiffPage]:
    """The page with all colors, or the three pages with one each; raises SlideError for anything but 8-bit RGB."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    channels = sizes.get("S", 1) * sizes.get("C", 1)
    found = f"{level.dtype} with axes {level.axes} of {'x'.join(map(str, level.shape))}"
    pages = [page.aspage() for page in level.pages if page is not None]
    if set(level.axes) - set("YXSC") or len(pages) not in (1, channels) or not pages:
        raise SlideError(f"{path}: not an 8-bit RGB image ({found}); export the H&E image as 8-bit RGB")
    if fault := _page_fault(coding_of_tiff_page(pages[0]), pages, channels, tiff.ome_metadata or ""):
        raise SlideError(f"{path}: not an 8-bit RGB image ({found}): {fault}")
    if any(page.parent is not tiff for page in pages):
        raise SlideError(f"{path}: an OME-TIFF in several files; merge it into one with bfconvert")
    if max(int(np.prod(_segment_size(page), dtype=object)) for page in pages) * channels > MAX_SEGMENT_BYTES:
        raise SlideError(
            f"{path}: one strip holds the whole image; convert it: vips tiffsave IN OUT.tif --tile --pyramid"
        )
    return pages[:3]


def _page_fault(coding: Coding, pages: list[tifffile.TiffPage], channels: int, xml: str) -> str:
    """Why the pages are not one RGB image; empty where they are."""
    is_separate = len(pages) > 1 or pages[0].planarconfig == tifffile.PLANARCONFIG.SEPARATE
    if len(pages) == 3 and coding.kind == "gray" and coding.bits == 8 and ome_channels_are_rgb(xml):
        return ""
    if len(pages) > 1 and coding.kind == "gray":
        return (
            f"its {channels} gray channels are not said to be red, green and blue, so they may be fluorescence; export "
            "the H&E image as 8-bit RGB"
        )
    if fault := coding.image_fault():
        return fault
    if coding.kind == "palette" or channels not in (3, 4) or not coding.is_integer:
        return "export the H&E image as 8-bit RGB"
    if is_separate and channels == 4:
        return "its colors and their transparency are in four planes; save it as interleaved 8-bit RGB"
    return ""


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Height and width of a tile, or of a strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _is_for_tifffile(path: Path) -> bool:
    """Whether OpenSlide would miss the pyramid of an OME-TIFF, or fail at its tiles."""
    with tifffile.TiffFile(path) as tiff:
        return bool(tiff.is_ome) or any(_fails_in_libtiff(page.aspage()) for page in tiff.pages)


def _fails_in_libtiff(page: tifffile.TiffPage) -> bool:
    """Whether a page has tiles without compression whose bytes are no multiple of 1024, by which libtiff reads."""
    tile = page.tilewidth * page.tilelength * page.samplesperpixel * page.bitspersample // 8
    return page.is_tiled and page.compression == 1 and tile % 1024 != 0
