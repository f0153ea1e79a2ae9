import numpy as np
import pytest

from histoloom.discovery.names import draft_names, name_types
from histoloom.errors import ConfigError, TissueError

COUNTS = (2, 3, 6)
ANCESTORS = np.array([[0, 0, 1, 1, 1, 0], [0, 1, 2, 2, 2, 1], [0, 1, 2, 3, 4, 5]])


def named(tmp_path, text: str = ""):
    path = tmp_path / "discovered.toml"
    path.write_text(text)
    return name_types(ANCESTORS, COUNTS, path)


def row(**values) -> str:
    return "[[type]]\n" + "".join(f"{k} = {v!r}\n" for k, v in values.items()).replace("'", '"') + "\n"


def test_without_names_types_are_numbered_and_coloured(tmp_path):
    types = name_types(ANCESTORS, COUNTS)
    assert types.finest.names == [f"type {i}" for i in range(6)]
    np.testing.assert_array_equal(types.levels.of, ANCESTORS)
    assert [len(table.types) for table in types.tables] == [2, 3, 6]


def test_the_draft_changes_nothing_until_it_is_edited(tmp_path):
    types = name_types(ANCESTORS, COUNTS)
    again = named(tmp_path, draft_names(types))
    assert again.finest == types.finest
    np.testing.assert_array_equal(again.levels.of, types.levels.of)


def test_merged_types_are_one_at_every_level_and_stay_nested(tmp_path):
    types = named(tmp_path, row(id=1, name="gland") + row(id=2, merge="GLAND") + row(id=3, merge=2))
    np.testing.assert_array_equal(types.levels.of[-1], [0, 1, 1, 1, 4, 5])
    np.testing.assert_array_equal(types.levels.of[1], [0, 1, 1, 1, 2, 1])
    np.testing.assert_array_equal(types.levels.of[0], [0, 0, 0, 0, 1, 0])
    assert types.finest.names == ["type 0", "gland", "type 4", "type 5"]


def test_a_coarse_level_has_names_and_merges_of_its_own(tmp_path):
    types = named(tmp_path, row(level=3, id=0, name="stroma") + row(level=3, id=1, merge=0))
    assert types.tables[1].names == ["stroma", "type 2"]
    np.testing.assert_array_equal(types.levels.of[1], [0, 0, 2, 2, 2, 0])
    np.testing.assert_array_equal(types.levels.of[-1], ANCESTORS[-1])


def test_a_level_is_found_by_its_number_of_types(tmp_path):
    types = name_types(ANCESTORS, COUNTS)
    assert [types.at(n) for n in (2, 3, 6, None)] == [0, 1, 2, 2]
    with pytest.raises(ConfigError, match=r"no level of 7 types; known: 2, 3, 6"):
        types.at(7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (row(id=6), "type 6 does not exist; ids run from 0 to 5"),
        (row(id=2, level=3, name="a") + row(id=3, level=3), "type 3 of level 3 does not exist; ids run from 0 to 2"),
        (row(id=2, level=4), "has unknown level 4; known: 2, 3, 6"),
        (row(id=1, merge=9), "type 1 merges into 9, which is unknown"),
        (row(id=1, merge="tumour"), "type 1 merges into 'tumour', which is unknown"),
        (row(id=0, merge=1) + row(id=1, merge=2) + row(id=2, merge=0), "merge in a circle: 0 -> 1 -> 2 -> 0"),
        (row(id=3, merge=3), "merge in a circle: 3 -> 3"),
        (row(id=0, name="a") + row(id=1, name="A "), "types 0 and 1 are both named 'A '; rename one, or write merge"),
        (row(id=0, name="type 3"), "types 0 and 3 are both named"),
        (row(id=1) + row(id=1), "type 1 has two rows"),
        (row(id=1, hue="#ffffff"), "type 1 has unknown key 'hue'; known: id, name, color, merge, level"),
        (row(id=1, color="red"), "has color 'red'; write it as #rrggbb"),
        (row(id=1, name=5), "name of type 1 is 5; write a text"),
        ('[[types]]\nid = 1\nname = "a"\n', "unknown key 'types'; write each type as [[type]]"),
        ('[[type]]\nname = "a"\n', "type entry 1 needs an integer id"),
        ("type = 3\n", "type entry 1 needs an integer id"),
        ("[[type\n", "cannot read the names"),
    ],
)  # fmt: skip
def test_a_names_file_that_makes_no_sense_says_what_to_mend(tmp_path, text, said):
    with pytest.raises(TissueError) as caught:
        named(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'discovered.toml'}: ")
    assert said in str(caught.value)


def test_more_types_than_a_map_can_hold_are_refused():
    many = np.arange(256)[None]
    with pytest.raises(ConfigError, match="256 types are more than a map can hold"):
        name_types(many, (256,))
