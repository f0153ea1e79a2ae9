"""What a pixel of a file means, decided once for images, maps, crops, shards and slides; and the one way to open them.

An image is 8-bit RGB. Transparent pixels show the glass behind them: white. Gray, CMYK, CIELAB, other depths and
pictures that are stored mirrored or turned are refused by name, since a guess would give wrong colors in silence. A map
holds labels, so a lossy coding of it is refused, and transparent pixels of it are unlabeled.

Sizes are read from the header and bounded before anything is decoded.
"""

import contextlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8
from PIL import Image, PngImagePlugin

from histoloom.disk import open_input
from histoloom.errors import ImageError, InputError
from histoloom.files import write_bytes
from histoloom.text import one_line

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp", ".jp2")
MAX_PIXELS = 178_956_970  # of an image that is decoded whole: where Pillow refuses, 0.5 GB of RGB
WHITE = 255
RESAMPLING = Image.Resampling.LANCZOS  # of images, wherever their magnification changes
# What Pillow raises for damaged files; MemoryError for sizes that no machine has.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "JPEG2000")  # none of them runs a program, as EPS does
_TRANSPARENCY = {1: "premultiplied", 2: "straight"}  # ExtraSamples of TIFF; 0 and others are not alpha
_TIFF_KINDS = {0: "gray", 1: "gray", 2: "rgb", 3: "palette", 5: "cmyk", 6: "ycbcr", 8: "lab", 9: "lab", 10: "lab"}
_TIFF_LOSSY = {6, 7, 22610, 33003, 33005, 33007, 34712, 34892, 50001, 50002, 52546}  # JPEG, JPEG 2000, XR, XL, WebP
_TIFF_DECODED_YCBCR = {6, 7, 22610, 33003, 34712, 34892, 50001, 50002}  # their decoders give RGB
_ORIENTATION, _PHOTOMETRIC, _BITS, _COMPRESSION = 0x0112, 262, 258, 259
_KINDS = {"1": "gray", "L": "gray", "LA": "gray", "La": "gray", "P": "palette", "PA": "palette", "RGB": "rgb",
          "RGBA": "rgb", "RGBX": "rgb", "CMYK": "cmyk", "YCbCr": "ycbcr", "LAB": "lab", "HSV": "hsv",
          "I": "gray", "F": "gray"}  # fmt: skip
_CURES = {
    "gray": "is grayscale, and H&E images have colors; export the color image",
    "cmyk": "holds CMYK inks for a printer; save it as RGB",
    "lab": "holds CIELAB colors; save it as RGB",
    "ycbcr": "holds YCbCr colors without a codec that defines them; save it as RGB",
}


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What a file says of its pixels."""

    kind: str  # rgb, gray, palette, cmyk, ycbcr, lab
    bits: int = 8  # per sample
    is_integer: bool = True
    alpha: str = ""  # "", straight, premultiplied
    orientation: int = 1  # EXIF and TIFF: 1 is upright
    lossy: str = ""  # the codec that changes values, if any
    pages: int = 1
    is_inverted: bool = False  # TIFF whose 0 is white

    def image_fault(self) -> str:
        """Why these pixels are not an 8-bit RGB image, with a cure; empty if they are."""
        if self.kind in _CURES:
            return _CURES[self.kind]
        if self.kind not in ("rgb", "palette"):
            return f"holds {self.kind} colors; save it as RGB"
        if self.bits != 8 and self.kind != "palette":
            return f"has {self.bits} bits per color; save it as 8-bit RGB, with the contrast that you want"
        return self._layout_fault()

    def label_fault(self) -> str:
        """Why these pixels cannot hold labels, with a cure; empty where they can."""
        if self.lossy:
            return f"is coded by {self.lossy}, a lossy format that blurs values: save maps as PNG from their source"
        if not self.is_integer:
            return "holds real numbers, and labels are whole numbers; save it as indexed or gray, 8 or 16 bit"
        if self.kind not in ("gray", "palette", "rgb"):
            return f"holds {self.kind} colors; save maps as indexed, gray or RGB PNG"
        if self.bits > 8 and (self.kind == "rgb" or self.alpha):
            return f"has {self.bits} bits per channel; save maps as indexed or gray, 8 or 16 bit"
        return self._layout_fault()

    def _layout_fault(self) -> str:
        if self.pages > 1:
            return f"holds {self.pages} pages; save the one that counts as a picture of its own"
        if self.orientation not in (0, 1):
            return f"is stored rotated or mirrored (orientation {self.orientation}); save it upright"
        return ""


def open_picture(source: Path | bytes, where: str = "", limit: int = MAX_PIXELS) -> tuple[Image.Image, Coding]:
    """A picture with its pixels loaded, and what it says of them; `where` names bytes in errors.

    Raises ImageError for a file that is broken, of an unknown format, or larger than `limit` pixels.
    """
    with opened_picture(source, where, limit) as picture:
        coding = coding_of(picture)
        picture.load()
        return picture, coding


@contextmanager
def opened_picture(source: Path | bytes, where: str = "", limit: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A picture whose header is read and whose pixels are not: its size is checked here. Raises ImageError."""
    where = where or ("image" if isinstance(source, bytes) else str(source))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # of large sizes, which are bounded here, and of odd metadata
            file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open_input(source))
            picture = stack.enter_context(_open(file))
            if picture.width * picture.height > limit:
                raise ImageError(
                    f"{where}: is {picture.width} x {picture.height} px; at most {limit / 1e6:.0f} million are read "
                    "whole: cut it into patches"
                )
            yield picture
    except InputError:
        raise
    except BROKEN as error:
        raise ImageError(
            f"{where}: cannot read the picture ({_reason(error)}); replace the file or leave it out"
        ) from None


def read_image(source: Path | bytes, where: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """An image as 8-bit RGB; transparent pixels are white. Raises ImageError for what is broken or no such image."""
    picture, coding = open_picture(source, where)
    if fault := coding.image_fault():
        raise ImageError(f"{where or source}: {fault}")
    return rgb_pixels(picture)


def write_picture(path: Path, picture: Image.Image, kind: str = "PNG", **options: object) -> None:
    """Write a whole picture; raises OutputError. Pillow itself takes a JPEG that a full disk cuts short for written."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    write_bytes(path, buffer.getvalue())


def rgb_pixels(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a color picture as RGB, laid over white where they are transparent."""
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB"))
    picture = picture.convert("RGBA")
    glass = Image.new("RGBA", picture.size, (WHITE, WHITE, WHITE, 255))
    return np.asarray(Image.alpha_composite(glass, picture).convert("RGB"))


def check_rgb(pixels: object, where: str) -> None:
    """Raise ImageError, naming `where`, for anything but an array of RGB pixels, uint8 `h w 3`."""
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise ImageError(
            f"{where}: is a {kind}; give an array of RGB pixels, such as np.asarray(picture.convert('RGB'))"
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ImageError(f"{where}: holds {pixels.dtype} of shape {pixels.shape}; give RGB pixels, uint8 `h w 3`")


def over_white(
    pixels: UInt8[np.ndarray, "h w c"], premultiplied: bool, opaque: int = 255
) -> UInt8[np.ndarray, "h w 3"]:
    """RGBA pixels laid over white."""
    color, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:4].astype(np.uint32)
    covered = color if premultiplied else color * alpha / opaque
    return np.minimum(np.rint(covered + WHITE * (1 - alpha / opaque)), 255).astype(np.uint8)


def transparent(picture: Image.Image) -> Bool[np.ndarray, "h w"] | None:
    """True where a picture is wholly transparent; None where it has no transparency."""
    if not picture.has_transparency_data:
        return None
    return np.asarray(picture.convert("RGBA"))[..., 3] == 0


def label_pixels(picture: Image.Image, coding: Coding) -> tuple[Integer[np.ndarray, "h w"], bool]:
    """The labels of a map as the file stores them: values or indices, or colors as 0xrrggbb (then True)."""
    pixels = np.asarray(picture)
    if coding.kind == "rgb":
        return pack_colors(pixels), True
    values = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 0])
    values = values.astype(np.uint8) if values.dtype == bool else values
    if coding.is_inverted and picture.mode in ("1", "L"):  # Pillow turns white-is-zero around
        values = np.uint8(1 if picture.mode == "1" else 255) - values
    if picture.mode == "L" and coding.bits in (2, 4):  # and spreads few bits over 0 to 255
        values = values // np.uint8(255 // (2**coding.bits - 1))
    return values, False


def pack_colors(pixels: UInt8[np.ndarray, "*n c"]) -> Int32[np.ndarray, "*n"]:
    """Colors as 0xrrggbb."""
    packed = pixels[..., 0].astype(np.int32)
    for channel in (1, 2):  # in place: strips of masks are large
        packed <<= 8
        packed |= pixels[..., channel]
    return packed


def read_labels(source: Path | bytes, where: str = "") -> UInt8[np.ndarray, "h w"]:
    """The map of a patch, whose pixels are ids of 8 bits; raises ImageError for any other picture."""
    picture, coding = open_picture(source, where)
    if fault := coding.label_fault():
        raise ImageError(f"{where or source}: its map {fault}")
    labels, is_color = label_pixels(picture, coding)
    if is_color or labels.dtype != np.uint8:
        raise ImageError(f"{where or source}: its map holds pixels of kind {picture.mode}, not ids of 8 bits")
    return labels


def coding_of(picture: Image.Image) -> Coding:
    """What a picture that was opened by Pillow says of its pixels."""
    tags = getattr(picture, "tag_v2", None)
    kind, bits = _KINDS.get(picture.mode.split(";")[0], picture.mode), _bits(picture)
    lossy = _lossy(picture)
    if tags is not None:
        kind = _TIFF_KINDS.get(_first(tags[_PHOTOMETRIC]), kind) if _PHOTOMETRIC in tags else kind
        if kind == "ycbcr" and _first(tags.get(_COMPRESSION, 1)) in _TIFF_DECODED_YCBCR:
            kind = "rgb"
    elif kind == "ycbcr":
        kind = "rgb"  # JPEG, which defines it
    return Coding(
        kind=kind,
        bits=bits,
        is_integer=picture.mode != "F",
        alpha="straight" if picture.has_transparency_data else "",
        orientation=picture.getexif().get(_ORIENTATION, 1),
        lossy=lossy,
        is_inverted=tags is not None and _first(tags.get(_PHOTOMETRIC, 0)) == 0,  # as Pillow
        pages=getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1,
    )


def coding_of_tiff_page(page: object) -> Coding:
    """What a page of a TIFF file that was opened by tifffile says of its pixels."""
    compression = int(getattr(page, "compression", 1))
    kind = _TIFF_KINDS.get(int(getattr(page, "photometric", None) or 0), "unknown")
    if kind == "ycbcr" and compression in _TIFF_DECODED_YCBCR:
        kind = "rgb"
    extra = tuple(int(sample) for sample in getattr(page, "extrasamples", ()))
    tag = page.tags.get(_ORIENTATION)  # pyright: ignore[reportAttributeAccessIssue] (tifffile is an optional package)
    dtype = getattr(page, "dtype", None)
    return Coding(
        kind=kind,
        bits=int(getattr(page, "bitspersample", 8)),
        is_integer=dtype is not None and dtype.kind in "uib",
        alpha=next((_TRANSPARENCY[sample] for sample in extra if sample in _TRANSPARENCY), ""),
        orientation=int(tag.value) if tag is not None else 1,
        lossy=f"TIFF compression {compression}" if compression in _TIFF_LOSSY else "",
    )


def _open(file: io.BufferedReader | io.BytesIO) -> Image.Image:
    is_png = file.read(4) == b"\x89PNG"
    file.seek(0)
    if is_png:  # not Image.open, which has a bound of its own that maps of slides exceed
        picture = PngImagePlugin.PngImageFile(file)
        value = picture.info.get("transparency")
        if picture.mode == "L" and isinstance(value, int):  # Pillow spreads few bits over 0 to 255, and not this value
            picture.info["transparency"] = value * (255 // (2 ** _bits(picture) - 1))
        return picture
    return Image.open(file, formats=_FORMATS)


def _reason(error: Exception) -> str:
    reason = one_line(str(getattr(error, "strerror", None) or error), 200)
    return "not a picture" if "cannot identify" in reason else reason or type(error).__name__


def _bits(picture: Image.Image) -> int:
    """Bits per sample in the file: Pillow's mode is RGB for 16 bits, too, of which it keeps the high ones."""
    tags = getattr(picture, "tag_v2", None)
    if tags is not None:
        bits = tags.get(_BITS, (1,))
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if picture.format == "JPEG2000":
        return _jpeg2000_bits(picture)
    raw = " ".join(str(tile.args) for tile in getattr(picture, "tile", ())[:1])
    if "16" in raw or picture.mode.startswith("I;16"):
        return 16
    few = re.search(r"[LP];([124])\b", raw)
    return int(few[1]) if few else {"1": 1, "I": 32, "F": 32}.get(picture.mode, 8)


def _lossy(picture: Image.Image) -> str:
    if picture.format in ("JPEG", "MPO"):
        return "JPEG"
    if picture.format == "WEBP":
        return "" if b"VP8L" in _head(picture, 64) or _is_lossless_webp(_head(picture, 4096)) else "lossy WebP"
    if picture.format == "JPEG2000":
        head = _head(picture, 4096)
        style = head.find(b"\xff\x52\x00")  # coding style: its last byte names the wavelet, 1 is reversible
        return "" if style >= 0 and head[style + 13 : style + 14] == b"\x01" else "lossy JPEG 2000"
    tags = getattr(picture, "tag_v2", None)
    compression = _first(tags.get(_COMPRESSION, 1)) if tags is not None else 1
    return f"TIFF compression {compression}" if compression in _TIFF_LOSSY else ""


def _is_lossless_webp(head: bytes) -> bool:
    """Whether the image chunk of an extended WebP is lossless."""
    place = 12
    while place + 8 <= len(head):
        name, size = head[place : place + 4], int.from_bytes(head[place + 4 : place + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        place += 8 + size + size % 2
    return False


def _jpeg2000_bits(picture: Image.Image) -> int:
    head = _head(picture, 4096)
    size = head.find(b"\xff\x4f\xff\x51")  # start of codestream, then sizes: components and their depths
    if size < 0 or len(head) < size + 43:
        return 8
    components = int.from_bytes(head[size + 40 : size + 42], "big")
    return max((depth & 0x7F) + 1 for depth in head[size + 42 : size + 42 + 3 * components : 3])


def _head(picture: Image.Image, count: int) -> bytes:
    file = getattr(picture, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    file.seek(0)
    head = file.read(count)
    file.seek(place)
    return head


def _first(value: object) -> int:
    return int(value[0] if isinstance(value, tuple) else value)  # pyright: ignore[reportArgumentType] (a TIFF tag)
