"""Canvases on disk: what is written opens in what it is for, and agrees with the map."""

import json
import pickle
from contextlib import chdir, nullcontext
from itertools import pairwise

import numpy as np
import openslide
import pytest
import tifffile
from folders import files
from PIL import Image
from slide_files import write_qupath
from typer.testing import CliRunner
from weaving import grain

from histoloom.canvas import strips, weave
from histoloom.canvas.card import write_card
from histoloom.canvas.layout import Layout, find_regions
from histoloom.canvas.parts import level_sizes
from histoloom.canvas.settings import CanvasConfig
from histoloom.canvas.weave import folder_of, space, weave_canvas
from histoloom.cli.main import app
from histoloom.conditioning.inputs import Crop
from histoloom.distributed import Workers, run_made
from histoloom.errors import ConfigError, OutputError
from histoloom.generation.bank import CropBank
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches
from histoloom.slides.annotations import read_annotations
from histoloom.slides.reader import open_slide
from histoloom.tissue import TissueTable

CONFIG = CanvasConfig(steps=1, window=128, crop_cell=60.0)
TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
SIZE = (1100, 530)
BANK = CropBank({"one": [Crop(grain(i), i // 2) for i in range(6)]})


def wanted() -> np.ndarray:
    """Waves of two types, a disk of a third, and an unlabeled corner."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width]
    semantic_map = (np.sin(x / 60) + np.sin(y / 45) > 0).astype(np.uint8)
    semantic_map[(x - 300) ** 2 + (y - 300) ** 2 < 90**2] = 2
    semantic_map[:64, :100] = 255
    return semantic_map


@pytest.fixture(scope="module")
def woven(make_pipeline, tmp_path_factory):
    """The folder of a canvas, woven once."""
    folder = tmp_path_factory.mktemp("canvas")
    Image.fromarray(wanted()).save(folder / "map.png")
    said = []
    make(make_pipeline(), folder, CONFIG, say=said.append)
    assert "1100 x 530 px" in said[-1]
    return folder


def make(pipeline, folder, config, name="slide.tif", **options) -> None:
    layout = Layout(folder / "map.png", pipeline.table)
    weave_canvas(pipeline, layout, BANK, config, 0.5, folder / name, **options)


def test_openslide_sees_every_level_and_the_scale(woven):
    slide = openslide.OpenSlide(str(woven / "slide.tif"))
    assert slide.level_dimensions == ((1100, 530), (550, 265), (275, 132))
    assert [float(d) for d in slide.level_downsamples] == pytest.approx([1, 2, 4], rel=0.01)
    levels = [
        np.asarray(slide.read_region((0, 0), i, size).convert("RGB")).astype(int)
        for i, size in enumerate(slide.level_dimensions)
    ]
    for fine, coarse in pairwise(levels):
        height, width = coarse.shape[:2]
        means = fine[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean((1, 3))
        assert np.abs(means - coarse).max() <= 0.5
    with open_slide(woven / "slide.tif") as opened:
        assert opened.mpp == pytest.approx(0.5)
        assert len(opened.levels) == 3
        assert not opened.notes


def test_labels_and_polygons_agree_with_the_map_at_every_level(woven):
    with tifffile.TiffFile(woven / "slide" / "maps" / "slide.tif") as tiff:
        levels = [page.asarray() for page in tiff.pages]
    assert [level.shape[::-1] for level in levels] == level_sizes((SIZE[1], SIZE[0]))
    np.testing.assert_array_equal(levels[0], wanted())
    for step, coarse in ((2, levels[1]), (4, levels[2])):
        (height, width), base = coarse.shape, levels[0]
        blocks = base[: step * height, : step * width].reshape(height, step, width, step)
        assert (blocks == coarse[:, None, :, None]).any((1, 3)).all()
    polygons = read_annotations(woven / "slide" / "geojson" / "slide.geojson", TABLE, SIZE, 0.5)
    assert (polygons.read(0, 0, SIZE, 0.5) == wanted()).mean() > 0.995


def test_patches_reads_a_canvas_back(woven):
    words = "patches slide.tif --annotations slide/maps --tissue slide/tissue.toml --mpp 0.5 --size 96 --out cut"
    rules = "--low 0 --high 1 --min-tissue 0 --min-focus 0 --val-share 0 --pixels"
    with chdir(woven):
        done = CliRunner().invoke(app, [*words.split(), *rules.split()])
    assert done.exit_code == 0, done.output
    cut = load_patches(woven / "cut", "train")
    slide = openslide.OpenSlide(str(woven / "slide.tif"))
    assert len(cut) > 20
    for image, semantic_map, (x, y, _) in zip(cut.images, cut.semantic_maps, cut.places, strict=True):
        np.testing.assert_array_equal(semantic_map, wanted()[y : y + 96, x : x + 96])
        np.testing.assert_array_equal(image, np.asarray(slide.read_region((x, y), 0, (96, 96)).convert("RGB")))


def test_a_canvas_says_what_made_it_and_names_no_place(woven):
    about = json.loads(openslide.OpenSlide(str(woven / "slide.tif")).properties["openslide.comment"])
    assert about["synthetic"]
    assert (about["seed"], about["steps"], about["mpp"]) == (0, 1, 0.5)
    for name, data in (files(woven / "slide") | {"slide.tif": (woven / "slide.tif").read_bytes()}).items():
        assert str(woven).encode() not in data, name
    assert "It shows no patient" in (woven / "slide" / "README.md").read_text()


def test_an_interrupted_canvas_goes_on_where_it_was(woven, make_pipeline, tmp_path):
    class Stop:
        def __init__(self, after):
            self.left = after

        def advance(self, count=1, note=""):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    Image.fromarray(wanted()).save(tmp_path / "map.png")
    with pytest.raises(KeyboardInterrupt):
        make(make_pipeline(), tmp_path, CONFIG, progress=lambda _, total, __: nullcontext(Stop(total * 9 // 10)))
    assert (tmp_path / "slide.partial" / "rows" / "000000.npy").is_file()
    with pytest.raises(OutputError, match="made by another run"):
        make(make_pipeline(), tmp_path, CanvasConfig(steps=1, window=128, seed=1))
    (tmp_path / "slide.tif").write_text("put there by someone else")
    with pytest.raises(OutputError, match=r"slide\.tif: exists already"):
        make(make_pipeline(), tmp_path, CONFIG)
    assert (tmp_path / "slide.tif").read_text() == "put there by someone else"
    (tmp_path / "slide.tif").unlink()
    said = []
    make(make_pipeline(), tmp_path, CONFIG, say=said.append)
    assert "256 rows are finished" in said[0]
    ours, theirs = files(tmp_path), files(woven)
    assert {n: d for n, d in ours.items() if n.startswith("slide")} == {
        n: d for n, d in theirs.items() if n.startswith("slide")
    }
    (tmp_path / "slide.tif").unlink()
    with pytest.raises(OutputError, match="is not the slide"):
        make(make_pipeline(), tmp_path, CONFIG)


def test_an_ome_tiff_has_its_levels_in_subifds(make_pipeline, tmp_path):
    Image.fromarray(wanted()[:300]).save(tmp_path / "map.png")
    make(make_pipeline(), tmp_path, CanvasConfig(steps=1, window=128, ome=True), "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert [level.shape for level in tiff.series[0].levels] == [(300, 1100, 3), (150, 550, 3), (75, 275, 3)]
    with open_slide(tmp_path / "a.ome.tif") as opened:
        assert opened.mpp == pytest.approx(0.5)
    assert (tmp_path / "a" / "maps" / "a.tif").is_file()


def test_the_card_of_a_slide_with_dots_in_its_name_names_the_folder_of_its_labels(make_pipeline, tmp_path):
    Image.fromarray(wanted()).save(tmp_path / "map.png")
    layout, path = Layout(tmp_path / "map.png", TABLE), tmp_path / "case-7.at.1.5.tif"
    write_card(
        tmp_path / "README.md", make_pipeline(), path.name, folder_of(path).name, layout, find_regions(layout), {}, 1.5
    )
    said = (tmp_path / "README.md").read_text()
    assert "--annotations case-7.at.1.5/maps --tissue case-7.at.1.5/tissue.toml" in said


def test_polygons_make_the_same_layout(tmp_path):
    square = [(100, 50), (300, 50), (300, 200), (100, 200)]
    path = write_qupath(tmp_path / "map.geojson", [("gland", [square])])
    layout = Layout(path, TABLE, (400, 300), "stroma")
    expected = np.zeros((300, 400), np.uint8)
    expected[50:200, 100:300] = 1
    np.testing.assert_array_equal(layout.read(0, 0, 300, 400), expected)


def test_a_canvas_with_another_rest_is_another_canvas(make_pipeline, tmp_path):
    square = [(100, 50), (200, 50), (200, 150), (100, 150)]
    path = write_qupath(tmp_path / "map.geojson", [("gland", [square]), ("stroma", [[(0, 0), (40, 0), (40, 40)]])])

    def make_with(rest: str) -> None:
        layout = Layout(path, make_pipeline().table, (256, 160), rest)
        weave_canvas(make_pipeline(), layout, BANK, CONFIG, 0.5, tmp_path / "slide.tif")

    make_with("")
    assert "rest" not in json.loads((tmp_path / "slide" / "record.json").read_text())["settings"]
    with pytest.raises(OutputError, match='rest was null, is now "stroma"'):
        make_with("stroma")


@pytest.mark.parametrize("size", [(1025, 515), (1203, 1001)])
def test_polygons_of_a_coarser_level_cover_the_last_row_and_column(tmp_path, monkeypatch, size):
    monkeypatch.setattr(weave, "POLYGON_PIXELS", 2**18)
    table, (width, height) = TissueTable.from_names(["a", "b"]), size
    labels = np.zeros((height, width), np.uint8)
    labels[:, 48:] = 1
    Image.fromarray(labels).save(tmp_path / "layout.png")
    (tmp_path / "maps").mkdir()
    weave._write_map(tmp_path, "x", Layout(tmp_path / "layout.png", table), 1.0, table, {})
    drawn = read_annotations(tmp_path / "geojson" / "x.geojson", table, size, 1.0)
    assert drawn.notes == ()
    np.testing.assert_array_equal(drawn.overview(1), labels)


def test_a_disk_without_space_is_found_before_the_work(make_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10**6}))
    Image.fromarray(wanted()).save(tmp_path / "map.png")
    with pytest.raises(OutputError, match=r"needs up to [\d.]+ MB"):
        make(make_pipeline(), tmp_path, CONFIG)
    assert not (tmp_path / "slide.partial").exists()
    assert space((4096, 4096)) > 7 * 4096**2


@pytest.mark.usefixtures("ray_cluster")
def test_strips_of_ray_and_of_two_workers_are_those_of_one_process(tiny_model, tmp_path, monkeypatch):
    """Workers of Ray are processes that open the model. Here, two workers take turns in this one, from a copy of what
    they are given; tests/generation/test_weave_workers.py has real ones."""
    monkeypatch.setattr(strips, "PARTS_ON_RAY", 1)
    Image.fromarray(wanted()[:, :200]).save(tmp_path / "map.png")
    pipeline, said = HistoloomPipeline.load(tiny_model), []
    make(pipeline, tmp_path, CONFIG, "one.tif")
    make(pipeline, tmp_path, CONFIG, "ray.tif", workers=Workers(ray="local"), say=said.append)
    monkeypatch.setattr(strips, "run_made", lambda made, items, *_, **__: run_made(copied(made), items))
    make(pipeline, tmp_path, CONFIG, "two.tif", workers=Workers(2), say=said.append)
    strips_said = [line for line in said if "px in" in line]
    assert strips_said == [f"200 x 530 px in {count} strips; 3 of 3 parts are left" for count in (3, 2)]
    one = tifffile.imread(tmp_path / "one.tif")
    for name in ("two", "ray"):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"{name}.tif"), one)


def copied(value):
    return pickle.loads(pickle.dumps(value))


def test_strips_need_a_model_in_a_folder(woven, make_pipeline, tmp_path):
    (tmp_path / "map.png").write_bytes((woven / "map.png").read_bytes())
    with pytest.raises(ConfigError, match="the model is in no folder that workers could open"):
        make(make_pipeline(), tmp_path, CONFIG, workers=Workers(2))
