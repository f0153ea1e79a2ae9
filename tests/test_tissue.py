import numpy as np
import pytest

from histoloom.errors import TissueError
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable((TissueType(4, "gland", "#4477aa", ("Drüse", "#ff0000")), TissueType(1, "stroma", "#ee99aa")))


def load(tmp_path, text: str) -> TissueTable:
    (tmp_path / "tissue.toml").write_text(text, encoding="utf-8")
    return TissueTable.load(tmp_path / "tissue.toml")


def test_types_stand_in_order_of_id_and_gaps_are_allowed():
    assert (TABLE.ids, TABLE.names, TABLE.num_ids) == ([1, 4], ["stroma", "gland"], 5)


def test_a_table_survives_its_file(tmp_path):
    odd = 'a "quoted" \\ back\nslash\tand \x01 \x7f ü'
    types = (*TABLE.types, TissueType(7, 'a "quoted" ü', "#000000", ("#00ff00", odd, "=1+1")))
    table = TissueTable(types, ("gland", "stroma"))
    assert load(tmp_path, table.to_toml()) == table
    assert TissueTable.from_rows(table.to_rows()).types == table.types


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "a\nb", "a\x1bb", "..", ".", " ", "", "x" * 81, "ü" * 101, "a\u202eb", "/etc/passwd"],
)
def test_a_name_that_cannot_name_a_folder_is_refused(name):
    with pytest.raises(TissueError, match="cannot name a folder") as error:
        TissueType(0, name, "#000000")
    assert len(str(error.value)) < 400
    assert str(error.value).isprintable()


def test_the_order_names_types_of_the_table(tmp_path):
    text = 'order = ["b", "A"]\n[[tissue]]\nid = 0\nname = "a"\n[[tissue]]\nid = 1\nname = "b"\n'
    assert load(tmp_path, text).order == ("b", "A")
    with pytest.raises(TissueError, match="unknown tissue 'c'"):
        load(tmp_path, text.replace('"b", "A"', '"c"'))
    with pytest.raises(TissueError, match="write it as a list of tissue names"):
        load(tmp_path, text.replace('["b", "A"]', "3"))


def test_names_alone_make_a_table_with_colours_of_their_own():
    table = TissueTable.from_names(["stroma", "gland", "fat"])
    assert table.ids == [0, 1, 2]
    assert len({tissue.color for tissue in table.types}) == 3


def test_a_type_is_found_by_name_or_alias_in_any_case():
    assert TABLE.find(" GLAND ").id == TABLE.find("drüse").id == TABLE.find("#FF0000").id == 4
    with pytest.raises(TissueError, match="unknown tissue 'fat'; known: stroma, gland"):
        TABLE.find("fat")


def test_colours_go_by_id_and_unlabelled_is_white():
    painted = TABLE.colorize(np.array([[1, 4, 255]], np.uint8))
    assert painted.tolist() == [[[0xEE, 0x99, 0xAA], [0x44, 0x77, 0xAA], [255, 255, 255]]]
    assert len(TABLE.palette()) == 768


def test_a_map_may_hold_known_ids_and_unlabelled_only():
    TABLE.check(np.array([[1, 4, 255]], np.uint8), "a.png")
    with pytest.raises(TissueError, match=r"a\.png: map values \[0, 2\] .*add them to tissue\.toml"):
        TABLE.check(np.array([[0, 1, 2]], np.uint8), "a.png")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        ("[[tissue]]\nid = 0", "integer id and a text name"),
        ('[[tissue]]\nid = "0"\nname = "a"', "integer id and a text name"),
        ('[[tissue]]\nid = true\nname = "a"', "integer id and a text name"),
        ('[[tissue]]\nid = 255\nname = "a"', "ids run from 0 to 253"),
        ('[[tissue]]\nid = 0\nname = "a"\ncolour = "#000000"', "unknown keys .*known: id, name, color"),
        ('[[tissue]]\nid = 0\nname = "a"\ncolor = "red"', "write it as #rrggbb"),
        ('[[tissue]]\nid = 0\nname = "a"\ncolor = 5', "write it as #rrggbb"),
        ('[[tissue]]\nid = 0\nname = "a"\ncolor = "#aa bb "', "write it as #rrggbb"),
        ('[[tissue]]\nid = 0\nname = "a"\naliases = "b"', "aliases"),
        ('[[tissue]]\nid = 0\nname = "a"\naliases = 5', "aliases"),
        ('[[tissue]]\nid = 0\nname = "a"\naliases = [1.5]', "aliases"),
        ('[[tissue]]\nid = 0\nname = "a"\naliases = [["b"]]', "aliases"),
        ('[[tissue]]\nid = 0\nname = "a"\n[[tissue]]\nid = 0\nname = "b"', "uses an id twice"),
        ('[[tissue]]\nid = 0\nname = "a"\n[[tissue]]\nid = 1\nname = "A"', "to two types"),
        ("tissue = 3", r"\[\[tissue\]\]"),
        ("[tissue", "cannot read the tissue table"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_file_and_cause(tmp_path, text, found):
    with pytest.raises(TissueError, match=rf"tissue\.toml: .*{found}"):
        load(tmp_path, text)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TissueError, match=r"none\.toml: cannot read the tissue table"):
        TissueTable.load(tmp_path / "none.toml")
