"""What a slide claims of itself, checked before a native library acts on it.

OpenSlide allocates what a header asks for, and ends the whole process where it cannot. So the sizes in a TIFF are
checked first, and a file of another scanner is opened once in a process of its own.
"""

import functools
import struct
import subprocess
import sys
from pathlib import Path

import tifffile

from histoloom.disk import open_input
from histoloom.errors import SlideError

_LARGEST_EDGE = 2**24  # pixels; the largest slides have some 5e5
_MOST_TILE_BYTES = 2**28
_PROBE_SECONDS = 120
_PROBE = """
import sys, openslide
slide = openslide.OpenSlide(sys.argv[1])
for level in range(slide.level_count):
    slide.read_region((0, 0), level, (64, 64))
"""
_PLAIN = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_header(path: Path) -> None:
    """Raise SlideError for a file that would make a native library end this process."""
    if is_tiff(path):
        if _check_tiff(path):
            return
    elif _head(path).startswith(_PLAIN) and path.suffix.lower() != ".mrxs":  # the picture of a MRXS slide is a JPEG
        return
    status = path.stat()
    if fault := _probe(str(path), status.st_size, status.st_mtime_ns):
        raise SlideError(f"{path}: {fault}; copy it again and compare its checksum with the original")


def is_tiff(path: Path) -> bool:
    """True for the first bytes of TIFF and BigTIFF."""
    return _head(path) in _TIFF


def _head(path: Path) -> bytes:
    with open_input(path) as file:
        return file.read(4)


def _check_tiff(path: Path) -> bool:
    """Check the sizes of all pages; False where tifffile cannot read them, so that nothing is known."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError, struct.error):
        return False
    for page in pages:
        bytes_each = max(page.samplesperpixel, 1) * max(page.bitspersample, 8) // 8
        tile = page.tilewidth * page.tilelength * bytes_each if page.is_tiled else 0
        if max(page.imagewidth, page.imagelength) > _LARGEST_EDGE or tile > _MOST_TILE_BYTES:
            raise SlideError(
                f"{path}: damaged: a page claims {page.imagewidth} x {page.imagelength} px in tiles of "
                f"{page.tilewidth} x {page.tilelength}; copy it again and compare its checksum with the original"
            )
    return True


@functools.lru_cache(4096)
def _probe(path: str, size: int, changed: int) -> str:
    """Open the file in another process; returns what happened to that process, or nothing where it came to its end."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE, path], capture_output=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"damaged: OpenSlide did not open it within {_PROBE_SECONDS} s"
    if done.returncode < 0 or done.returncode > 128:
        return f"damaged: it makes OpenSlide end its process (exit code {done.returncode})"
    return ""
