import json

import numpy as np
import pytest
import tifffile
from slide_files import write_tiled_tiff

from histoloom.discovery.classifier import Window
from histoloom.discovery.map_files import count_types, read_map, relabel, write_map, write_polygons
from histoloom.discovery.names import name_types
from histoloom.discovery.pseudo_maps import MapConfig, MapGrid, draw_patch, draw_rows, map_grid
from histoloom.errors import ConfigError, InputError, SlideError
from histoloom.slides.annotations import read_annotations
from histoloom.slides.reader import open_slide
from histoloom.slides.tissue import TissueRules, find_tissue
from histoloom.tissue import UNLABELLED

RULES = TissueRules(mpp=1.0, smallest=100.0, hole=100.0)


@pytest.fixture
def drawn(known_slide, by_color, tmp_path):
    """The map of the known slide, on disk."""
    config = MapConfig()
    with open_slide(known_slide) as slide:
        grid = map_grid(slide.size, slide.mpp, by_color.window, config)
        write_map(
            tmp_path / "a.tif", draw_rows(slide, find_tissue(slide, RULES), by_color, config), grid, slide.mpp, {}
        )
    return tmp_path / "a.tif"


def test_a_map_is_finer_than_the_windows_that_it_was_drawn_from(drawn, known_map):
    semantic_map, described = read_map(drawn)
    step = described["downsample"]
    assert step == 4  # level-0 px; windows are 64 of them wide
    assert described["slide_size"] == [800, 640]
    assert semantic_map.shape == (160, 200)
    true = known_map[step // 2 :: step, step // 2 :: step]
    both = (true != UNLABELLED) & (semantic_map != UNLABELLED)
    assert (semantic_map[both] == true[both]).mean() > 0.97
    assert ((true != UNLABELLED) == (semantic_map != UNLABELLED)).mean() > 0.97


def test_the_file_says_how_it_lies_on_the_slide_and_is_indexed_and_tiled(drawn):
    with tifffile.TiffFile(drawn) as tiff:
        page = tiff.pages[0]
        assert page.photometric.name == "PALETTE"
        assert page.is_tiled
        assert 1e4 / (page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1]) == pytest.approx(1.0)


def test_both_files_are_read_back_as_annotations_of_the_slide(drawn, known_map, tree, tmp_path):
    named = name_types(tree.ancestors, tree.levels)
    relabel(drawn, tmp_path / "named.tif", named.levels.of[-1], named.finest, {"types": 3})
    write_polygons(tmp_path / "a.geojson", tmp_path / "named.tif", named.finest)
    drawn_map = read_map(drawn)[0]
    for path in (tmp_path / "named.tif", tmp_path / "a.geojson"):
        annotation = read_annotations(path, named.finest, (800, 640), 0.25)
        again = annotation.overview(4)
        assert (again == drawn_map).mean() > (0.999 if path.suffix == ".tif" else 0.97)
    window = read_annotations(tmp_path / "a.geojson", named.finest, (800, 640), 0.25).read(200, 200, 128, 0.5)
    true = known_map[200:456:2, 200:456:2]
    assert (window == true).mean() > 0.95


def test_polygons_count_from_the_scanned_area(drawn, tree, tmp_path):
    table = name_types(tree.ancestors, tree.levels).finest
    write_polygons(tmp_path / "a.geojson", drawn, table)
    write_polygons(tmp_path / "moved.geojson", drawn, table, (100, 40))
    one = read_annotations(tmp_path / "a.geojson", table, (800, 640), 0.25).overview(4)
    moved = read_annotations(tmp_path / "moved.geojson", table, (800, 640), 0.25, origin=(100, 40)).overview(4)
    np.testing.assert_array_equal(one, moved)


def test_polygons_say_how_large_their_pixels_are(drawn, tree, tmp_path):
    table = name_types(tree.ancestors, tree.levels).finest
    write_polygons(tmp_path / "a.geojson", drawn, table, (100, 40))
    found = json.loads((tmp_path / "a.geojson").read_text())
    assert {key: found[key] for key in ("type", "mpp", "slide_size", "origin")} == {
        "type": "FeatureCollection", "mpp": 0.25, "slide_size": [800, 640], "origin": [100, 40]
    }  # fmt: skip
    assert found["features"]


def test_polygons_of_a_large_map_reach_its_last_row_and_column(tree, tmp_path):
    edge = 2049  # more pixels than polygons are made of, and no whole number of steps of two
    write_map(tmp_path / "a.tif", [np.zeros((edge, edge), np.uint8)], MapGrid((edge, edge), 1, 4, 4, 1.0), 0.25, {})
    write_polygons(tmp_path / "a.geojson", tmp_path / "a.tif", name_types(tree.ancestors, tree.levels).finest)
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert np.asarray(feature["geometry"]["coordinates"][0]).max(0).tolist() == [edge, edge]


def test_merged_types_are_one_in_the_file(drawn, tree, tmp_path):
    (tmp_path / "names.toml").write_text("[[type]]\nid = 1\nmerge = 0\n")
    named = name_types(tree.ancestors, tree.levels, tmp_path / "names.toml")
    relabel(drawn, tmp_path / "merged.tif", named.levels.of[-1], named.finest, {})
    before, after = count_types(drawn), count_types(tmp_path / "merged.tif")
    assert after[0] == before[0] + before[1] > before[0]
    assert after[1] == 0
    assert after[2] == before[2]


@pytest.mark.parametrize("size", [(50, 40), (2000, 30)])
def test_a_slide_smaller_than_a_window_has_a_map_of_its_shape(tmp_path, by_color, size):
    pixels = np.full((*size, 3), (110, 60, 150), np.uint8)
    path = write_tiled_tiff(tmp_path / "small.tif", pixels)
    with open_slide(path) as slide:
        tissue = find_tissue(slide, TissueRules(mpp=1.0, smallest=0.0, hole=0.0))
        rows = np.concatenate(list(draw_rows(slide, tissue, by_color, MapConfig())))
    assert rows.shape == (-(-size[0] // 4), -(-size[1] // 4))
    assert set(np.unique(rows)) <= {2, UNLABELLED}
    assert (rows == 2).any()


def test_a_slide_without_tissue_is_refused(tmp_path, by_color):
    path = write_tiled_tiff(tmp_path / "empty.tif", np.full((1200, 1200, 3), 244, np.uint8))
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"empty\.tif: has no tissue"):
        list(draw_rows(slide, find_tissue(slide), by_color, MapConfig()))


def test_a_patch_has_a_map_of_its_own_size(by_color, known_map, stains):
    part = known_map[100:300, 200:420]
    drawn = draw_patch(stains[part], by_color, MapConfig(stride=8))
    assert drawn.shape == part.shape
    assert (drawn == part).mean() > 0.95


class EveryPixel:
    """Names windows as `by_color` does, by types 0 and 2 alone, and by all of their pixels: no side counts more."""

    def __init__(self, tree, stains):
        self.tree, self.window, self._stains = tree, Window(32, 0.5), stains[[0, 2]].astype(np.float32)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        is_last = np.abs(windows[..., None, :] - self._stains).sum(-1).argmin(-1).mean((1, 2))
        return np.stack([1 - is_last, np.zeros_like(is_last), is_last], 1).astype(np.float32)


@pytest.mark.parametrize("stride", [8, 12, 13, 20])
def test_borders_stay_in_place_where_the_stride_does_not_divide_the_window(tree, stains, stride):
    truth = np.zeros((240, 240), np.uint8)
    truth[:, 120:] = 2
    for true in (truth, truth.T):
        drawn = draw_patch(stains[true], EveryPixel(tree, stains), MapConfig(stride=stride))
        moved = int((drawn == 2).sum() - (true == 2).sum()) / 240
        assert abs(moved) <= 1


@pytest.mark.parametrize("mpp", [0.25, 0.37, 0.43, 1.1])
def test_borders_stay_in_place_where_cells_do_not_fill_a_window(tree, stains, tmp_path, mpp):
    truth = np.zeros((600, 600), np.uint8)
    truth[:, 300:] = 2
    predict, config = EveryPixel(tree, stains), MapConfig()
    for true in (truth, truth.T):
        with open_slide(write_tiled_tiff(tmp_path / "a.tif", stains[true], mpp)) as slide:
            grid = map_grid(slide.size, slide.mpp, predict.window, config)
            drawn = np.concatenate(list(draw_rows(slide, find_tissue(slide, RULES), predict, config)))
        middle = drawn[drawn.shape[0] // 2] if true is truth else drawn[:, drawn.shape[1] // 2]
        border = int(np.flatnonzero(middle == 2)[0]) * grid.pixel
        assert abs(border - 300) <= max(grid.pixel / 2, 1)


@pytest.mark.parametrize("mpp", [0.2, 0.2517, 0.499, 1.0])
def test_the_grid_stays_in_whole_level_0_pixels(mpp):
    grid = map_grid((10_000, 7_001), mpp, Window(64, 0.5), MapConfig())
    assert grid.cell % grid.pixel == 0
    assert grid.cell * mpp == pytest.approx(8.0, rel=0.15)
    assert grid.shape == (-(-7_001 // grid.pixel), -(-10_000 // grid.pixel))


def test_settings_without_sense_are_refused():
    for wrong in ({"stride": 0}, {"finer": 0}, {"smooth": -1.0}, {"min_tissue": 0.0}):
        with pytest.raises(ConfigError):
            MapConfig(**wrong)
    with pytest.raises(ConfigError, match="stride 65 is larger than the window of 64 px"):
        MapConfig(stride=65).cell(Window(64))
    with pytest.raises(ConfigError, match="unknown mpp"):
        map_grid((100, 100), 0.5, Window(64), MapConfig())


def test_a_file_that_is_no_map_is_refused(tmp_path, tree):
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((8, 8), np.uint8))
    (tmp_path / "text.tif").write_text("no")
    for name, said in (("other.tif", "is not a map of"), ("text.tif", "cannot be read")):
        with pytest.raises(InputError, match=said):
            relabel(
                tmp_path / name,
                tmp_path / "out.tif",
                np.arange(3, dtype=np.uint8),
                name_types(tree.ancestors, (2, 3)).finest,
                {},
            )
