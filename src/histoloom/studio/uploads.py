"""What users upload, read within bounds: sizes are taken from headers and checked before anything is decoded."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import HistoloomError, RequestError
from histoloom.patches.maps import MapReader
from histoloom.pictures import opened_picture, read_image
from histoloom.stain import he_share
from histoloom.studio.settings import StudioConfig
from histoloom.tissue import TissueTable

LEAST_HE = 0.4  # share of stained pixels of the color of H&E, below which a picture is doubtful
T = TypeVar("T")


def read_upload(data: bytes, config: StudioConfig, mpp: float | None) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture, or of a small slide at `mpp` (None: at its own); raises RequestError."""

    def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _read_tiff(path, config, mpp)
        with opened_picture(data, str(path), config.upload_pixels):
            pass  # its header is within bounds
        return read_image(data, str(path))

    return _as_file(data, "the picture", read)


def read_map(data: bytes, table: TissueTable, size: tuple[int, int], edge: int) -> UInt8[np.ndarray, "h w"]:
    """The map in an indexed or gray PNG or TIFF, or in the polygons of a GeoJSON on a map of `size` (width, height).

    Raises RequestError for any other file, for more than `edge` px each way, and for tissue that the model lacks.
    """

    def read(path: Path) -> UInt8[np.ndarray, "h w"]:
        if data.lstrip()[:1] in (b"{", b"["):
            from histoloom.canvas.layout import Layout

            return Layout(path, table, size).read(0, 0, size[1], size[0])
        with opened_picture(data, str(path), edge * edge) as picture:
            if max(picture.size) > edge:
                raise RequestError(
                    f"the map is {picture.width} x {picture.height} px; at most {edge} fit each way", 400
                )
        return MapReader(table).read(path)

    return _as_file(data, "the map", read)


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
            raise RequestError(
                f"the slide is {width} x {height} px; at most {config.upload_pixels / 1e6:.0f} million are read: "
                "export the region that you need",
                413,
            )
        return slide.read(0, 0, (width, height), slide.mpp / scale)


def _as_file(data: bytes, what: str, read: Callable[[Path], T]) -> T:
    """What `read` makes of a file with these bytes, which has a name of our own and is gone afterwards.

    Errors of it become RequestErrors that name `what` instead of the file.
    """
    with tempfile.TemporaryDirectory(prefix="histoloom-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        try:
            return read(path)
        except RequestError:
            raise
        except HistoloomError as error:
            said = str(error).replace(f"{path}: ", "").replace(str(path), "the file")
            raise RequestError(f"{what} cannot be used: {said}", 400) from None
