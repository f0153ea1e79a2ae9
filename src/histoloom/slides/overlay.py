"""A picture of what was made of a slide: tissue, annotation and chosen patches on a thumbnail."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, PngImagePlugin
from scipy import ndimage

from histoloom.errors import OutputError
from histoloom.pictures import RESAMPLING, write_picture
from histoloom.slides.annotations import AnnotationMap
from histoloom.slides.rasterize import overview_size
from histoloom.slides.reader import Slide
from histoloom.slides.tissue import TissueMap
from histoloom.tissue import UNLABELLED, TissueTable
from histoloom.walk import MARK

__all__ = ["EDGE", "draw_overlay", "save_overlay"]

EDGE = 1600  # pixels: the longer side of the picture
_TINT = 0.45  # how much of the annotation's color covers the tissue
_REST_TINT = 0.15  # where nothing was drawn, and the rest has a type of its own
_TISSUE_LINE = (0, 150, 60)
_PATCH_LINE = (20, 20, 20)


def draw_overlay(
    slide: Slide,
    tissue: TissueMap | None = None,
    annotation: AnnotationMap | None = None,
    table: TissueTable | None = None,
    patches: Sequence[tuple[int, int, int]] = (),
    edge: int = EDGE,
) -> UInt8[np.ndarray, "h w 3"]:
    """The slide at most `edge` pixels long; `patches` are (x, y, size) in level-0 pixels.

    Annotated areas are tinted by the colors of `table`, faintly where only the rest has a type; the rim of the tissue
    is green, patches are dark squares.
    """
    step = max(max(slide.size) / edge, 1.0)
    picture = _picture(slide, tissue, step)
    if annotation is not None and table is not None:
        picture = _tint(picture, annotation.overview(step), annotation.rest, table)
    image = Image.fromarray(picture)
    if tissue is not None:
        mask = Image.fromarray(tissue.mask).resize(image.size, box=_box(tissue, image.size, step))
        inside = np.asarray(mask, bool)
        rim = inside & ~np.asarray(ndimage.binary_erosion(inside, iterations=2), bool)
        image.paste(_TISSUE_LINE, mask=Image.fromarray(rim))
    draw = ImageDraw.Draw(image)
    for x, y, size in patches:
        draw.rectangle((x / step, y / step, (x + size) / step, (y + size) / step), outline=_PATCH_LINE, width=2)
    return np.asarray(image)


def picture_format(path: Path) -> str:
    """PNG or JPEG, by the suffix of a picture to write; raises OutputError for another one."""
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path}: cannot be written; give a name that ends in .png or .jpg")
    return kind


def save_overlay(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Write the picture as PNG or JPEG with a mark by which no walk takes it for a slide.

    Raises OutputError where the disk refuses, or for another suffix.
    """
    kind = picture_format(path)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", MARK.decode())
    options = {"pnginfo": text} if kind == "PNG" else {"quality": 85, "comment": MARK}
    write_picture(path, Image.fromarray(picture), kind, **options)


def _picture(slide: Slide, tissue: TissueMap | None, step: float) -> UInt8[np.ndarray, "h w 3"]:
    """The slide, one pixel per `step` level-0 pixels: from what its tissue was seen on, where that is fine enough.

    An index decodes nothing but thumbnails, so that one less is half of its decoding.
    """
    if tissue is None or tissue.thumbnail is None or tissue.step > step:
        return slide.thumbnail(step * slide.mpp)
    size = overview_size(slide.size, step)
    seen = Image.fromarray(tissue.thumbnail)
    return np.asarray(seen.resize(size, RESAMPLING, box=_box(tissue, size, step)))


def _tint(
    picture: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "mh mw"], rest: int, table: TissueTable
) -> UInt8[np.ndarray, "h w 3"]:
    height, width = picture.shape[:2]
    semantic_map = semantic_map[:height, :width]
    share = np.where(semantic_map == rest, _REST_TINT, _TINT) * (semantic_map != UNLABELLED)
    mixed = (1 - share[..., None]) * picture + share[..., None] * table.colorize(semantic_map)
    return np.rint(mixed).astype(np.uint8)


def _box(tissue: TissueMap, size: tuple[int, int], step: float) -> tuple[float, float, float, float]:
    """The part of the mask that the picture shows: both are rounded up to whole pixels of their own."""
    height, width = tissue.mask.shape
    right, bottom = (float(min(n * step / tissue.step, seen)) for n, seen in zip(size, (width, height), strict=True))
    return 0.0, 0.0, right, bottom
