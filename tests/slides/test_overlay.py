from dataclasses import replace

import numpy as np
import pytest
from full_disk import files_of_at_most
from slide_files import coordinate_image, write_image, write_qupath, write_tiled_tiff

from histoloom.errors import OutputError
from histoloom.slides.annotations import read_annotations
from histoloom.slides.labeling import AnnotationConfig
from histoloom.slides.overlay import draw_overlay, save_overlay
from histoloom.slides.reader import open_slide
from histoloom.slides.tissue import TissueRules, find_tissue, tissue_map
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable((TissueType(0, "gland", "#ff0000"), TissueType(1, "rest", "#0000ff")))
GRAY = 200


@pytest.fixture
def slide(tmp_path):
    """A gray slide of 801 x 600 px."""
    with open_slide(write_image(tmp_path / "a.png", np.full((600, 801, 3), GRAY, np.uint8)), 0.5) as opened:
        yield opened


def annotation(slide, rest: str = ""):
    square = [(200, 100), (400, 100), (400, 300), (200, 300)]
    path = write_qupath(slide.path.with_suffix(".geojson"), [("gland", [square])])
    return read_annotations(path, TABLE, slide.size, slide.mpp, AnnotationConfig(rest=rest))


@pytest.mark.parametrize(("edge", "step"), [(801, 1.0), (267, 3.0), (5000, 1.0)])
def test_annotated_areas_are_tinted_where_they_lie(slide, edge, step):
    picture = draw_overlay(slide, None, annotation(slide), TABLE, edge=edge).astype(int)
    assert max(picture.shape[:2]) == min(edge, 801)
    tinted = picture[..., 0] > picture[..., 2]
    rows, columns = np.nonzero(tinted)
    assert (
        np.abs(
            np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1]) * step - [200, 400, 100, 300]
        ).max()
        <= step
    )
    assert (picture[~tinted] == GRAY).all()


def test_the_rest_is_tinted_faintly(slide):
    picture = draw_overlay(slide, None, annotation(slide, "rest"), TABLE).astype(int)
    drawn, rest = (picture[y, x].max() - picture[y, x].min() for y, x in ((200, 300), (500, 600)))
    assert drawn > 2 * rest > 0


def test_patches_and_tissue_are_outlined(slide):
    mask = np.zeros((75, 101), bool)
    mask[10:40, 20:60] = True
    picture = draw_overlay(slide, tissue_map(mask, 8.0), patches=[(400, 400, 64)])
    assert (picture[400, 400:464] == picture[400, 400]).all()
    assert picture[400, 400].max() < 60
    assert (picture[430, 430] == GRAY).all()
    green = (picture[..., 1] > picture[..., 0] + 50).nonzero()
    assert abs(green[0].min() - 80) <= 2
    assert abs(green[1].max() - 480) <= 2


def test_a_picture_from_what_the_tissue_was_seen_on_is_the_one_that_is_read(tmp_path):
    with open_slide(write_tiled_tiff(tmp_path / "a.tif", coordinate_image(501, 373))) as slide:
        seen = find_tissue(slide, TissueRules(mpp=0.6))
        nothing = tissue_map(np.zeros_like(seen.mask), seen.step)
        read = draw_overlay(slide, nothing, edge=180).astype(int)
        resized = draw_overlay(slide, replace(nothing, thumbnail=seen.thumbnail), edge=180).astype(int)
    assert read.shape == resized.shape == (135, 180, 3)
    assert np.abs(read - resized)[2:-2, 2:-2].max() < 25  # a shift by a pixel would differ by 30


def test_a_real_slide_is_drawn_whole(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as real:
        picture = draw_overlay(real, find_tissue(real), edge=500)
    assert picture.shape == (500, 375, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_picture_that_a_full_disk_cuts_short_is_refused_and_leaves_nothing(suffix, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with files_of_at_most(1000), pytest.raises(OutputError, match="free some space and run again"):
        save_overlay(picture, tmp_path / f"a.{suffix}")
    assert not list(tmp_path.iterdir())
