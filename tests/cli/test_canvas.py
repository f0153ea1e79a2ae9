"""What `histoloom canvas` refuses, in one line."""

import json

import numpy as np
import pytest
from PIL import Image
from slide_files import write_qupath, write_tiled_tiff

SQUARE = [(100, 50), (300, 50), (300, 200), (100, 200)]
QUICK = ("--steps", 1, "--window", 64, "--mpp", 0.5, "--out", "new.tif")


@pytest.fixture
def layouts(tmp_path):
    """Maps of several kinds, by name."""
    folder = tmp_path / "layouts"
    folder.mkdir()
    semantic_map = np.zeros((96, 160), np.uint8)
    semantic_map[40:] = 1
    Image.fromarray(semantic_map).save(folder / "good.png")
    Image.fromarray(semantic_map + 7).save(folder / "unknown.png")
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(folder / "empty.png")
    Image.fromarray(semantic_map[:24]).save(folder / "narrow.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:60])
    write_qupath(folder / "good.geojson", [("gland", [SQUARE])])
    write_qupath(folder / "degrees.geojson", [("gland", [[(-71.1, 42.3), (-71.0, 42.3), (-71.0, 42.4)]])])
    (folder / "none.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    return folder


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("good.geojson", (), "holds polygons, which have no extent; give that of the canvas with --size"),
        ("good.geojson", ("--size", 250, 300), "reaches over the border of the slide, which is 250 x 300 px"),
        ("degrees.geojson", ("--size", 400, 300), "is off the canvas of 400 x 300 px (x -71..-71, y 42..42); give a"),
        ("none.geojson", ("--size", 400, 300), "labels no pixel of the canvas of 400 x 300 px"),
        ("good.png", ("--size", 400, 300), "is 160 x 96 px, and --size 400 300 differs"),
        ("unknown.png", (), "label(s) 7, 8 are in no tissue table"),
        ("empty.png", (), "labels no pixel"),
        ("narrow.png", (), "is 160 x 24 px, narrower than a window of 64 px"),
        ("broken.png", (), "broken.png: cannot read the picture"),
        ("absent.png", (), "absent.png: no such annotation file"),
        ("good.png", ("--mpp", 0), "mpp is 0"),
        ("good.png", ("--overlap", 0), "windows need an overlap above 0"),
        ("good.png", ("--seed", -1), "seed is -1"),
        ("good.png", ("--rest", "bone"), "unknown tissue 'bone'"),
        ("good.png", ("--crops", "nowhere"), "nowhere: no such folder of crops"),
        ("good.png", ("--out", "new.png"), "new.png: name the slide with .tif"),
    ],
)
def test_what_makes_no_canvas_is_answered_in_one_line(fails, tiny_model, layouts, name, options, said):
    assert said in fails("canvas", tiny_model, "--map", layouts / name, *QUICK, *options)


def test_a_canvas_needs_a_scale_and_a_place_of_its_own(fails, tiny_model, layouts, tmp_path):
    words = ("canvas", tiny_model, "--map", layouts / "good.png", "--window", 64, "--steps", 1)
    assert "give micrometers per pixel with --mpp" in fails(*words, "--out", "new.tif")
    (tmp_path / "there.tif").touch()
    assert "there.tif: exists already" in fails(*words, "--mpp", 0.5, "--out", "there.tif")


def test_a_canvas_of_polygons_is_woven(histoloom, tiny_model, layouts, tmp_path):
    words = ("--map", layouts / "good.geojson", "--size", 320, 208, "--rest", "stroma")
    ended = histoloom("canvas", tiny_model, *words, *QUICK)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "wrote new.tif; labels and polygons are in new\n"
    assert "320 x 208 px" in ended.stderr
    assert (tmp_path / "new" / "maps" / "new.tif").is_file()
    again = histoloom("canvas", tiny_model, *words, *QUICK)
    assert (again.code, again.stderr) == (0, "")


def test_a_region_of_a_picture_or_a_slide_is_redrawn(histoloom, tiny_model, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (200, 260, 3), dtype=np.uint8)
    write_tiled_tiff(tmp_path / "slide.tif", pixels, 0.5)
    Image.fromarray(pixels[40:136, 80:176]).save(tmp_path / "region.png")
    Image.fromarray(np.ones((96, 96), np.uint8)).save(tmp_path / "map.png")
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 30:60] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ("inpaint", tiny_model, "--map", "map.png", "--mask", "mask.png", "--steps", 1)
    ended = histoloom(*words, "--image", "region.png", "--out", "one")
    assert ended.code == 0, ended.stderr
    ended = histoloom(*words, "--image", "slide.tif", "--at", 80, 40, "--mpp", 0.5, "--out", "two")
    assert ended.code == 0, ended.stderr
    assert ended.stderr == ""
    ended = histoloom(*words, "--image", "slide.tif", "--at", 0, 0, "--mpp", 0.4, "--slide-mpp", 2, "--out", "three")
    assert "--slide-mpp 2 is not used, since the file says 0.5 um/px" in ended.stderr
    assert "0.4 um/px is finer than the slide's 0.5" in ended.stderr
    for place in ((200, 40), (-1, 0), (5000, 5000)):
        ended = histoloom(*words, "--image", "slide.tif", "--at", *place, "--mpp", 0.5, "--out", "four")
        said = f"slide.tif: is 260 x 200 px, and the region at {place[0]} {place[1]} has 96 x 96 of them"
        assert (ended.code, said in ended.stderr, (tmp_path / "four").exists()) == (1, True, False)
    made, real = (np.asarray(Image.open(tmp_path / "one" / name)) for name in ("image.png", "real.png"))
    np.testing.assert_array_equal(real == 255, mask == 0)
    np.testing.assert_array_equal(made[mask == 0], pixels[40:136, 80:176][mask == 0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "two" / "image.png")), made)
    assert "contains pixels of a patient" in (tmp_path / "one" / "README.md").read_text()
    assert '"command": "inpaint"' in Image.open(tmp_path / "one" / "image.png").text["histoloom"]


def test_what_cannot_be_redrawn_is_answered_in_one_line(fails, tiny_model, layouts):
    pixels = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(layouts / "image.png")
    Image.fromarray(pixels[:24]).save(layouts / "small.png")
    good = layouts / "good.png"
    words = ("inpaint", tiny_model, "--out", "new", "--map", good, "--steps", 1)
    image = ("--image", layouts / "image.png")
    assert "is 160 x 96 px, and the image 160 x 24; give" in fails(
        *words, "--image", layouts / "small.png", "--mask", good
    )
    assert "--mpp 0.5 has no effect without --at" in fails(*words, *image, "--mask", good, "--mpp", 0.5)
    assert "marks everything" in fails(*words, *image, "--mask", layouts / "unknown.png")
    assert "narrow.png: is 160 x 24 px, and the image" in fails(*words, *image, "--mask", layouts / "narrow.png")
    assert "give the scale with --mpp" in fails(*words, *image, "--at", 0, 0, "--mask", good)
    assert "--slide-mpp" in fails(*words, *image, "--at", 0, 0, "--mpp", 1, "--mask", good)


def test_a_slide_is_redrawn_at_a_place(fails, tiny_model, layouts, shared_data):
    words = ("inpaint", tiny_model, "--out", "new", "--map", layouts / "good.png", "--mask", layouts / "good.png")
    slide = shared_data / "slides" / "CMU-1-Small-Region.svs"
    assert "of a slide, say with --at where the map begins" in fails(*words, "--image", slide)
