"""Pixels and map of one window speak of the same place: within one pixel, on every format, at every mpp.

The pixels of the slide encode their own coordinates. What they say is looked up in the drawn shapes by shapely, which
draws no maps; the map of the window must agree, but for pixels less than one target pixel from an outline.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from scanner_files import FORMATS, write_mrxs, write_scn
from slide_files import MPP, WAVE, coordinate_image, write_asap, write_panda_mask, write_qupath

from histoloom.patches.from_slides import annotation_of
from histoloom.slides.annotations import AnnotationMap, read_annotations
from histoloom.slides.labeling import AnnotationConfig
from histoloom.slides.reader import Slide, open_slide
from histoloom.tissue import UNLABELLED, TissueTable, TissueType

TABLE = TissueTable((TissueType(0, "gland", "#112233", ("1",)), TissueType(1, "tumour", "#445566", ("2",))))
SIZES = [(501, 373), (320, 256), (379, 597)]
SCALES = (0.8, 1.0, 1.0012, 2.0, 2.008, 3.3, 5.2)  # level-0 pixels per pixel: levels that fit, and levels that do not


def shapes(width: int, height: int) -> dict[str, list[tuple[float, float]]]:
    """A slanted gland, its lumen (a hole), and a tumour that covers a part of it and reaches over the corner."""
    gland = [(0.05, 0.3), (0.45, 0.02), (0.9, 0.35), (0.7, 0.8), (0.2, 0.95)]
    lumen = [(0.3, 0.4), (0.45, 0.3), (0.5, 0.5), (0.35, 0.6)]
    tumour = [(0.55, 0.55), (1.05, 0.45), (1.04, 1.06), (0.4, 1.03)]
    rings = {"gland": gland, "lumen": lumen, "tumour": tumour}
    return {name: [(x * width, y * height) for x, y in ring] for name, ring in rings.items()}


def areas(width: int, height: int) -> list[shapely.Polygon]:
    """What has id 0 and 1, as drawn: the tumour lies on top."""
    drawn = shapes(width, height)
    return [shapely.Polygon(drawn["gland"], [drawn["lumen"]]), shapely.Polygon(drawn["tumour"])]


def ids_at(x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    """The tissue id at level-0 places."""
    gland, tumour = (shapely.contains_xy(area, x, y) for area in areas(width, height))
    return np.where(tumour, 1, np.where(gland, 0, UNLABELLED)).astype(np.uint8)


def label_raster(width: int, height: int, factor: int) -> np.ndarray:
    """Labels 1 and 2 (0 where nothing was drawn) at the centers of `factor` x `factor` pixels."""
    x, y = np.meshgrid(*((np.arange(-(-edge // factor)) + 0.5) * factor for edge in (width, height)))
    ids = ids_at(x, y, width, height)
    return np.where(ids == UNLABELLED, 0, ids + 1).astype(np.uint8)


def annotate(folder: Path, kind: str, width: int, height: int) -> tuple[Path, int]:
    """The shapes in one of the formats, and how many level-0 pixels its own pixels span (0 for outlines)."""
    drawn = shapes(width, height)
    if kind == "qupath":
        rings = [("gland", [drawn["gland"], drawn["lumen"]]), ("tumour", [drawn["tumour"]])]
        return write_qupath(folder / "a.geojson", rings), 0
    if kind == "asap":
        # ASAP cuts `_2` out of everything: the lumen lies outside the tumour.
        groups = [("gland", drawn["gland"]), ("tumour", drawn["tumour"]), ("_2", drawn["lumen"])]
        return write_asap(folder / "a.xml", groups), 0
    if kind == "panda":
        return write_panda_mask(folder / "a_mask.tiff", label_raster(width, height, 1)), 1
    if kind == "png at 2":
        Image.fromarray(label_raster(width, height, 2)).save(folder / "a.png")
        return folder / "a.png", 2
    tifffile.imwrite(folder / "a.tif", label_raster(width, height, 1), rowsperstrip=11, compression="zlib")
    return folder / "a.tif", 1


def said_places(pixels: np.ndarray, x: float, y: float, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The level-0 x and y that each pixel says it shows, and where y can be read: on the steep parts of its wave."""
    height, width = pixels.shape[:2]
    values = (pixels.astype(float) - 127.5) / 110
    want_x = np.broadcast_to(x + (np.arange(width) + 0.5) * scale, (height, width))
    want_y = np.broadcast_to((y + (np.arange(height) + 0.5) * scale)[:, None], (height, width))
    turn_x, turn_y = 2 * np.pi * want_x / WAVE, 2 * np.pi * want_y / WAVE
    off_x = np.angle(np.exp(1j * (np.arctan2(values[..., 0], values[..., 1]) - turn_x)))
    rising = np.arcsin(np.clip(values[..., 2], -1, 1))
    off_y = np.angle(np.exp(1j * (np.where(np.cos(turn_y) > 0, rising, np.pi - rising) - turn_y)))
    return want_x + off_x * WAVE / (2 * np.pi), want_y + off_y * WAVE / (2 * np.pi), np.abs(np.cos(turn_y)) > 0.7


def windows(size: tuple[int, int], scale: float) -> list[tuple[int, int, int]]:
    """x, y and edge of windows in the middle and at all borders of a scan."""
    edge = int(min(96, min(size) / scale))
    far_x, far_y = (int(length - edge * scale) for length in size)
    return [(x, y, edge) for x, y in {(0, 0), (far_x // 2 + 1, far_y // 3), (far_x, 0), (0, far_y), (far_x, far_y)}]


def worst_disagreement(slide: Slide, annotation: AnnotationMap, scale: float, raster_pixel: int = 0) -> float:
    """Of all pixels whose map is not what they say: the largest distance to an outline, in target pixels.

    A label raster itself knows an outline to half the diagonal of its own pixel only.
    """
    worst, seen, blur = 0.0, set(), raster_pixel / 2**0.5
    (left, top), size = slide.bounds[:2], slide.bounds[2:]
    outlines = shapely.union_all([area.boundary for area in areas(*size)])
    for x, y, edge in windows(size, scale):
        place = (left + x, top + y, edge, MPP * scale)
        pixels, semantic_map = slide.read(*place), annotation.read(*place)
        said_x, said_y, readable = said_places(pixels, x, y, scale)
        wrong = readable & (ids_at(said_x, said_y, *size) != semantic_map)
        away = shapely.distance(outlines, shapely.points(said_x[wrong], said_y[wrong])) - blur
        worst = max(worst, away.max(initial=0) / scale)
        assert readable.mean() > 0.3
        seen |= set(np.unique(semantic_map).tolist())
    assert seen == {0, 1, UNLABELLED}
    return worst


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_pixels_and_map_agree_within_a_pixel_on_every_slide_format(tmp_path, name, width, height):
    path = FORMATS[name](tmp_path / name, coordinate_image(width, height))
    drawn, _ = annotate(tmp_path, "qupath", width, height)
    with open_slide(path, MPP) as slide:
        annotation = read_annotations(drawn, TABLE, slide.size, slide.mpp)
        for scale in SCALES:
            assert worst_disagreement(slide, annotation, scale) < 1, scale


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("write", [partial(write_scn, margin=37), partial(write_mrxs, empty=1)])
def test_pixels_and_map_agree_where_the_scan_lies_off_the_corner_of_the_glass(tmp_path, write, width, height):
    path = write(tmp_path / f"slide.{write.func.__name__.removeprefix('write_')}", coordinate_image(width, height))
    drawn, _ = annotate(tmp_path, "qupath", width, height)
    with open_slide(path) as slide:
        assert slide.bounds[0] > 0
        assert slide.bounds[2:] == (width, height)
        annotation = annotation_of(drawn, slide, TABLE, AnnotationConfig())  # QuPath counts from the scan
        for scale in SCALES:
            assert worst_disagreement(slide, annotation, scale) < 1, scale


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("kind", ["qupath", "asap", "panda", "png at 2", "stripped tiff"])
def test_pixels_and_map_agree_within_a_pixel_on_every_annotation_format(tmp_path, kind, width, height):
    path = FORMATS["tiled.tif"](tmp_path / "slide.tif", coordinate_image(width, height))
    drawn, raster_pixel = annotate(tmp_path, kind, width, height)
    with open_slide(path) as slide:
        annotation = read_annotations(drawn, TABLE, slide.size, slide.mpp)
        for scale in (scale for scale in SCALES if scale >= raster_pixel):
            assert worst_disagreement(slide, annotation, scale, raster_pixel) < 1, scale


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("kind", ["qupath", "asap", "panda", "png at 2", "stripped tiff"])
def test_pixels_and_map_end_at_the_same_border(tmp_path, kind, width, height):
    path = FORMATS["strips.tif"](tmp_path / "slide.tif", np.full((height, width, 3), 90, np.uint8))
    drawn, _ = annotate(tmp_path, kind, width, height)
    whole_table = TissueTable((*TABLE.types, TissueType(2, "rest", "#778899")))
    with open_slide(path) as slide:
        annotation = read_annotations(drawn, whole_table, slide.size, slide.mpp, AnnotationConfig(rest="rest"))
        for scale in SCALES:
            place = (-17, -9, (int(width / scale) + 40, int(height / scale) + 30), MPP * scale)
            white = (slide.read(*place) == 255).all(-1)
            assert np.array_equal(white, annotation.read(*place) == UNLABELLED), scale
