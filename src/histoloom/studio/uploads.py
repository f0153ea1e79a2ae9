"""What users upload, read within bounds: sizes are taken from headers and checked before anything is decoded."""

import codecs
import math
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from histoloom.disk import reason
from histoloom.errors import HistoloomError, RequestError
from histoloom.patches.maps import MapReader
from histoloom.pictures import opened_picture, read_image
from histoloom.stain import he_share
from histoloom.studio.settings import StudioConfig
from histoloom.studio.task import LEAST_EDGE
from histoloom.studio.wording import for_page
from histoloom.tissue import UNLABELLED, TissueTable

LEAST_HE = 0.4  # share of stained pixels of the color of H&E, below which a picture is doubtful
T = TypeVar("T")


def read_upload(data: bytes, config: StudioConfig, mpp: float | None) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture, or of a small slide at `mpp` (None: at its own); raises RequestError."""

    def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff(path, config, mpp)
        width, height = _size(data, path)
        if width * height > config.upload_pixels:
            raise _too_large("picture", width, height, config)
        return read_image(data, str(path))

    return _as_file(data, "the picture", read)


def read_map(
    data: bytes, table: TissueTable, size: tuple[int, int], edge: int
) -> tuple[UInt8[np.ndarray, "h w"], list[str]]:
    """The map in an indexed or gray PNG or TIFF, or in the polygons of a GeoJSON on a map of `size` (width, height).

    With a line for each thing that was left out or repaired. Raises RequestError for any other file, for a map that is
    empty, for less than LEAST_EDGE or more than `edge` px each way, and for tissue that the model lacks.
    """

    def read(path: Path) -> tuple[UInt8[np.ndarray, "h w"], list[str]]:
        if _is_json(data):
            from histoloom.canvas.layout import Layout

            layout = Layout(path, table, size)
            return layout.read(0, 0, size[1], size[0]), [_of_page(note, path) for note in layout.notes]
        width, height = _size(data, path)
        if max(width, height) > edge:
            raise RequestError(f"the map is {width} x {height} px; at most {edge} fit each way", 400)
        if min(width, height) < LEAST_EDGE:
            raise RequestError(f"the map is {width} x {height} px; it needs {LEAST_EDGE} or more each way", 400)
        return MapReader(table).read(path), []

    semantic_map, notes = _as_file(data, "the map", read)
    if (semantic_map == UNLABELLED).all():
        why = f" ({notes[0]})" if notes else ""
        raise RequestError(f"the map is empty: the file labels no pixel with a tissue type{why}", 400)
    return semantic_map, notes


def stain_warning(pixels: UInt8[np.ndarray, "h w 3"]) -> str | None:
    """Why a picture does not look like H&E, in one line; None where it does."""
    share = he_share(pixels)
    if math.isnan(share):
        return "this shows no stain; choose a place with tissue"
    if share < LEAST_HE:
        return f"this does not look like H&E: {share:.0%} of its stained pixels have the color of H&E"
    return None


def _read_tiff(path: Path, config: StudioConfig, mpp: float | None) -> UInt8[np.ndarray, "h w 3"]:
    """A slide whole, at `mpp` where it says its own; raises SlideError, or RequestError for one that is too large."""
    from histoloom.slides.reader import open_slide

    with open_slide(path, 1.0) as slide:  # where the file does not say it, pixels are taken as they are
        scale = slide.mpp / (mpp if mpp and slide.says_mpp else slide.mpp)
        width, height = (max(round(edge * scale), 1) for edge in slide.size)
        if width * height > config.upload_pixels:
            raise _too_large("slide", width, height, config)
        return slide.read(0, 0, (width, height), slide.mpp / scale)


def _is_json(data: bytes) -> bool:
    """Whether a file begins as JSON does, in any coding of `decode_text`; pictures begin otherwise."""
    is_marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return is_marked or data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")


def _size(data: bytes, path: Path) -> tuple[int, int]:
    """Width and height of a picture by its header; nothing is decoded."""
    with opened_picture(data, str(path), sys.maxsize) as picture:
        return picture.size


def _too_large(what: str, width: int, height: int, config: StudioConfig) -> RequestError:
    most = f"{config.upload_pixels / 1e6:g} million"
    return RequestError(
        f"the {what} is {width} x {height} px; at most {most} are read: export the region that you need", 413
    )


def _as_file(data: bytes, what: str, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file with these bytes, which has a name of our own and is gone afterwards.

    Errors of it become RequestErrors that name `what` instead of the file.
    """
    with ExitStack() as stack:
        try:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="histoloom-"))) / "upload"
            path.write_bytes(data)
        except OSError as error:
            raise RequestError(
                f"the server cannot hold {what} ({reason(error)}); tell whoever runs the studio, and try again", 503
            ) from None
        try:
            return read(path)
        except RequestError:
            raise
        except HistoloomError as error:
            raise RequestError(f"{what} cannot be used: {_of_page(error, path)}", 400) from None


def _of_page(message: object, path: Path) -> str:
    """A message about the file at `path`, whose name the user has never seen."""
    return for_page(message).replace(f"{path}: ", "").replace(str(path), "the file")
