import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bars import Counter
from folders import files
from PIL import Image
from slide_files import write_tiled_tiff

from histoloom.discovery.cutting import Cutting
from histoloom.discovery.draw import draw_maps, found_map, level_file, shares_of
from histoloom.discovery.levels import read_levels
from histoloom.discovery.map_files import read_map
from histoloom.discovery.names import name_types
from histoloom.discovery.parts import find_parts
from histoloom.discovery.pseudo_maps import MapConfig
from histoloom.errors import InputError, OutputError
from histoloom.patches.from_slides import extract_slides
from histoloom.patches.places import PlaceReader
from histoloom.patches.rules import PatchRules, SlideDataset
from histoloom.patches.slide_jobs import find_jobs
from histoloom.patches.store import iter_rows, load_patches
from histoloom.tissue import UNLABELLED, TissueTable


@pytest.fixture
def slides(known_slide, tmp_path) -> Path:
    """Two slides, one in a folder below, and one that is no slide."""
    home = tmp_path / "slides"
    (home / "more").mkdir(parents=True)
    shutil.copy(known_slide, home / "a.tif")
    shutil.copy(known_slide, home / "more" / "b.tif")
    with (home / "more" / "b.tif").open("ab") as file:
        file.write(b"\0")  # not a copy of the same bytes, which discovery leaves out
    return home


@pytest.fixture
def draw(slides, by_color, tree, tmp_path):
    """`draw(out, names, levels)`: maps of the slides; counts how often the classifier was opened."""

    def run(out: str = "maps", names: Path | None = None, levels: tuple[int, ...] = (), mark: str = "m", **more):
        def opened():
            run.opened += 1
            return by_color

        parts, _ = find_parts(slides, Cutting())
        return draw_maps(parts, opened, mark, name_types(tree.ancestors, tree.levels, names), MapConfig(),
                         tmp_path / out, levels=levels, **more)  # fmt: skip

    run.opened = 0
    return run


def test_a_slide_no_larger_than_a_window_is_noted(draw, slides):
    small = slides / "small.tif"
    write_tiled_tiff(small, np.full((60, 60, 3), (110, 60, 150), np.uint8))
    note = f"{small}: is no larger than one window of the classifier, so all of its tissue has one type"
    assert [line for line in draw().notes if "window" in line] == [note]
    assert note in draw().notes  # and again by a run that finds its map


def test_every_level_of_every_slide_is_drawn_nested_with_its_shares(draw, tree, tmp_path):
    drawn = draw()
    assert [part.source for part in drawn.slides] == ["a.tif", "more/b.tif"]
    assert draw.opened == 1
    for part in drawn.slides:
        coarse, fine = (read_map(level_file(tmp_path / "maps", n, "maps", part))[0] for n in (2, 3))
        known = fine != UNLABELLED
        np.testing.assert_array_equal(coarse[known], tree.ancestors[0][fine[known]])
        assert (coarse[~known] == UNLABELLED).all()
        overlay = Image.open(level_file(tmp_path / "maps", 3, "overlays", part))
        assert overlay.size == (800, 640)
        assert json.loads(level_file(tmp_path / "maps", 2, "geojson", part).read_text())["features"]
    named = name_types(tree.ancestors, tree.levels)
    rows = pq.read_table(tmp_path / "maps" / "shares.parquet").to_pylist()
    assert len(rows) == 2 * (2 + 3)
    fine = read_map(found_map(tmp_path / "maps", drawn.slides[0]))[0]
    expected = [(fine == i).sum() / (fine != UNLABELLED).sum() for i in range(3)]
    mine = [row["share"] for row in rows if row["slide"] == "a.tif" and row["level"] == 3]
    np.testing.assert_allclose(mine, expected)
    coarse = shares_of(np.bincount(fine.ravel(), minlength=256)[:255], named, 0)
    np.testing.assert_allclose(coarse, [expected[0] + expected[1], expected[2]])
    assert pq.ParquetFile(tmp_path / "maps" / "shares.parquet").num_row_groups == 2  # one for each slide
    assert read_levels(tmp_path / "maps" / "3" / "levels.toml").counts == (2, 3)
    assert TissueTable.load(tmp_path / "maps" / "2" / "tissue.toml").names == ["type 0", "type 1"]


def test_a_stopped_run_goes_on_and_other_names_name_no_window_again(draw, tmp_path):
    whole = draw("whole")

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw("stopped", bar=Counter(stop))
    found = found_map(tmp_path / "stopped", whole.slides[0])
    before = found.stat().st_mtime_ns
    draw("stopped")
    assert found.stat().st_mtime_ns == before
    assert files(tmp_path / "whole") == files(tmp_path / "stopped")
    opened = draw.opened
    (tmp_path / "names.toml").write_text('[[type]]\nid = 1\nmerge = 0\n\n[[type]]\nid = 2\nname = "tumour"\n')
    draw("stopped", tmp_path / "names.toml")
    assert draw.opened == opened
    assert TissueTable.load(tmp_path / "stopped" / "3" / "tissue.toml").names == ["type 0", "tumour"]
    part = whole.slides[0]
    assert 1 not in read_map(level_file(tmp_path / "stopped", 3, "maps", part))[0]
    polygons = json.loads(level_file(tmp_path / "stopped", 3, "geojson", part).read_text())
    named = {f["properties"]["classification"]["name"] for f in polygons["features"]}
    assert named == {"type 0", "tumour"}


def test_patches_are_cut_by_the_maps_as_by_any_annotation(draw, slides, known_map, tmp_path):
    draw(levels=(3,))
    assert not (tmp_path / "maps" / "2").exists()
    table = TissueTable.load(tmp_path / "maps" / "3" / "tissue.toml")
    rules = PatchRules(mpp=0.5, size=64, stride=32, min_tissue=0.3)
    config = SlideDataset(rules=rules, pixels=False)
    for kind in ("maps", "geojson"):
        jobs, _ = find_jobs(slides, tmp_path / "maps" / "3" / kind, config)
        extract_slides(jobs, [], table, config, tmp_path / f"cut-{kind}")
        rows = [r for split in ("train", "val") for r in iter_rows(tmp_path / f"cut-{kind}", split)]
        assert len(rows) > 4
        for row in rows:
            assert 0.2 <= max(row["fractions"]) <= 0.8
            assert row["entropy"] > 0
        patches = load_patches(tmp_path / f"cut-{kind}", "train", PlaceReader(tmp_path / f"cut-{kind}").read)
        true = np.stack([known_map[y : y + s : 2, x : x + s : 2] for x, y, s in patches.places.tolist()])
        both = (true != UNLABELLED) & (patches.semantic_maps != UNLABELLED)
        assert (true == patches.semantic_maps)[both].mean() > 0.95


def test_a_broken_slide_is_named_and_left_out(draw, slides, tmp_path):
    write_tiled_tiff(slides / "glass.tif", np.full((1200, 1200, 3), 244, np.uint8))
    (slides / "text.svs").write_text("no slide")
    drawn = draw()
    assert [part.source for part in drawn.slides] == ["a.tif", "more/b.tif"]
    assert len(drawn.failures) == 2
    assert any("glass.tif: has no tissue" in line for line in drawn.failures)
    assert any("text.svs" in line for line in drawn.failures)


def test_maps_of_another_classifier_are_not_mixed_in(draw, tmp_path):
    draw(levels=(2,))
    with pytest.raises(OutputError, match=r"was made by another run \(input classifier was changed\)"):
        draw(mark="other")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with pytest.raises(OutputError, match="exists already"):
        draw("taken")


def test_a_slide_that_was_replaced_is_refused_and_one_that_was_gone_is_drawn_later(draw, slides, tmp_path):
    kept = (slides / "more" / "b.tif").read_bytes()
    (slides / "more" / "b.tif").unlink()
    assert len(draw().slides) == 1
    (slides / "more" / "b.tif").write_bytes(kept)
    assert len(draw().slides) == 2
    before = files(tmp_path / "maps")
    (slides / "more" / "b.tif").write_bytes(kept + b"\0")
    with pytest.raises(OutputError, match=r"was made by another run \(input more/b.tif was changed\)"):
        draw()
    assert files(tmp_path / "maps") == before


def test_two_slides_of_one_name_are_refused(draw, slides, known_slide):
    write_tiled_tiff(slides / "a.tiff", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match=r"its map would have the same name as that of a\.tiff?; rename one"):
        draw()
