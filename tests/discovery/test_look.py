import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from histoloom.discovery.classifier import Window
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.draw import draw_maps
from histoloom.discovery.look import LookConfig, spread_over_cases, tree_picture, write_shares
from histoloom.discovery.look_files import write_look
from histoloom.discovery.look_page import MAX_SLIDES
from histoloom.discovery.names import name_types
from histoloom.discovery.parts import find_parts
from histoloom.discovery.pseudo_maps import MapConfig
from histoloom.discovery.tree import TypeTree
from histoloom.discovery.windows import SlideWindows, read_assigned
from histoloom.errors import InputError, OutputError
from histoloom.files import read_record
from histoloom.records import fingerprint
from histoloom.tissue import TissueTable


@pytest.fixture
def look(discovered, tmp_path):
    """`look(out, names, maps)`: the look of what was discovered in the known patches."""
    tree = TypeTree.load(discovered)

    def run(out: str, names=None, maps=None):
        named = name_types(tree.ancestors, tree.levels, names)
        return write_look(discovered, named, LookConfig(6), maps, tmp_path / out, names is None)

    return run


def test_the_page_stands_alone_and_shows_every_type(look, discovered, tmp_path):
    drafted = look("look")
    page = (tmp_path / "look" / "look.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page
    for i in range(3):
        assert f"type {i}" in page
        assert Image.open(tmp_path / "look" / "types" / f"{i:03d}.png").size == (6 * 76 - 4, 72)
    assigned = read_assigned(discovered)
    assert f"{(assigned.types == 0).sum()} windows" in page
    assert drafted == tmp_path / "look" / "discovered.toml"
    tree = TypeTree.load(discovered)
    assert name_types(tree.ancestors, tree.levels, drafted).finest.names == ["type 0", "type 1", "type 2"]


def test_an_edited_draft_is_kept_and_obeyed(look, tmp_path):
    names = look("look")
    names.write_text(names.read_text().replace('name = "type 1"', 'name = "tumour & <co>"\nmerge = 0'))
    look("look")
    assert "tumour & <co>" in names.read_text()
    assert look("named", names) is None
    page = (tmp_path / "named" / "look.html").read_text()
    assert "type 1" not in re.sub(r"<h3>.*?</h3>", "", page)
    names.write_text(names.read_text().replace("merge = 0", ""))
    look("named", names)
    assert "tumour &amp; &lt;co&gt;" in (tmp_path / "named" / "look.html").read_text()


def test_maps_and_shares_of_slides_are_on_the_page(look, by_color, known_slide, discovered, tmp_path):
    tree = TypeTree.load(discovered)
    parts, _ = find_parts(known_slide, Cutting())
    draw_maps(parts, lambda: by_color, "m", name_types(tree.ancestors, tree.levels), MapConfig(), tmp_path / "maps")
    look("look", maps=tmp_path / "maps")
    page = (tmp_path / "look" / "look.html").read_text()
    assert page.count("data:image/jpeg") == 2
    with (tmp_path / "look" / "shares.csv").open() as file:
        head, row = csv.reader(file)
    assert head == ["slide", "type 0", "type 1", "type 2"]
    assert sum(map(float, row[1:])) == pytest.approx(1, abs=1e-4)
    (tmp_path / "names.toml").write_text('[[type]]\nid = 1\nname = "x"\n')
    with pytest.raises(InputError, match="was drawn with other names; run `histoloom discover maps` with these"):
        look("other", tmp_path / "names.toml", tmp_path / "maps")
    with pytest.raises(InputError, match=r"has no shares\.parquet"):
        look("other", maps=tmp_path)


def test_a_folder_that_cannot_be_written_is_found_before_the_work(look, tmp_path, monkeypatch):
    monkeypatch.setattr("histoloom.discovery.look_files.type_sheets", lambda *_: pytest.fail("worked first"))
    (tmp_path / "file").touch()
    for out in ("file", "file/look"):
        with pytest.raises(OutputError, match="file"):
            look(out)


def test_a_look_replaces_an_older_one_and_leaves_nothing_of_it(look, tmp_path):
    names = look("look")
    assert sorted(path.name for path in (tmp_path / "look" / "types").iterdir()) == ["000.png", "001.png", "002.png"]
    (tmp_path / "look" / "shares.csv").write_text("of an older look")
    names.write_text("[[type]]\nid = 1\nmerge = 0\n")
    look("look", names)
    assert sorted(path.name for path in (tmp_path / "look" / "types").iterdir()) == ["000.png", "002.png"]
    kept = ["discovered.toml", "look.html", "record.json", "tree.png", "types"]
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == kept


def test_a_look_says_how_it_was_made_and_takes_no_folder_of_another_kind(look, discovered, tmp_path):
    look("look")
    record = read_record(tmp_path / "look")
    assert (record["command"], record["settings"]["windows"]) == ("discover look", 6)
    assert record["inputs"] == {
        name: fingerprint(discovered / name) for name in ("assignments.parquet", "types.parquet")
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "types").mkdir()
    with pytest.raises(OutputError, match="other: exists already"):
        look("other")
    assert list((tmp_path / "other").iterdir()) == [tmp_path / "other" / "types"]


def test_names_that_a_spreadsheet_would_run_are_quoted(tmp_path):
    table = TissueTable.from_names(["=cmd()", "stroma"])
    write_shares(tmp_path / "shares.csv", ["@a.tif"], np.array([[0.25, 0.75]]), table)
    assert (tmp_path / "shares.csv").read_text().split() == ["slide,'=cmd(),stroma", "'@a.tif,0.25000,0.75000"]


def test_a_place_outside_the_folder_of_slides_is_refused(tmp_path, known_slide):
    (tmp_path / "slides").mkdir()
    read = SlideWindows(tmp_path / "slides", Window(32, 0.5))
    for name in ("../../" + known_slide.name, str(known_slide), "a/../../b.tif"):
        with pytest.raises(InputError, match="leaves the folder of slides"):
            read(name, 0, 0, 64)


def test_pictures_are_read_of_no_more_slides_than_the_page_shows(look, by_color, known_slide, discovered, tmp_path):
    tree = TypeTree.load(discovered)
    parts, _ = find_parts(known_slide, Cutting())
    draw_maps(parts, lambda: by_color, "m", name_types(tree.ancestors, tree.levels), MapConfig(), tmp_path / "maps")
    for count in (2, 3):
        overlays = tmp_path / "maps" / str(count) / "overlays"
        for number in range(MAX_SLIDES - 1):
            shutil.copy(overlays / "a.jpg", overlays / f"b{number:02d}.jpg")
        (overlays / "c.jpg").mkdir()  # reading it would fail
    look("look", maps=tmp_path / "maps")
    page = (tmp_path / "look" / "look.html").read_text()
    assert page.count("data:image/jpeg") == 2 * MAX_SLIDES
    assert "1 more slides have overlays" in page


def test_windows_come_from_as_many_cases_as_there_are():
    cases = np.array(["a"] * 50 + ["b"] * 2 + ["c"])
    chosen = spread_over_cases(cases, 6, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 6
    assert set(cases[chosen[:3]]) == {"a", "b", "c"}
    assert sorted(cases[chosen]) == ["a", "a", "a", "b", "b", "c"]


def test_the_tree_shows_finer_types_below_the_coarse_ones_that_they_make_up():
    named = name_types(np.array([[0, 0, 1, 1], [0, 1, 2, 3]]), (2, 4))
    picture = tree_picture(named, np.array([10, 10, 10, 10]))
    height, width = picture.shape[:2]
    colors = [[t.color for t in table.types] for table in named.tables]
    for level, row in enumerate(colors):
        for number, color in enumerate(row):
            at = picture[int(height * (level + 0.6) / 2), int(width * (number + 0.5) / len(row))]
            assert "#" + bytes(at.tolist()).hex() == color
