import numpy as np
import pytest

from histoloom.errors import TissueError
from histoloom.slides.annotations.classes import ClassRule, color_ids, paint_order, sort_polygons, value_ids
from histoloom.slides.polygon import Polygon
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_rows(
    [{"id": 0, "name": "normal"}, {"id": 1, "name": "tumor", "aliases": ["_0", "_1"]}, {"id": 4, "name": "stroma"}]
)
TRIANGLE = np.array([[0.0, 0], [1, 0], [1, 1]])


def named(*names: str | None) -> list[Polygon]:
    return [Polygon(TRIANGLE, name=name, where=f"a.xml: annotation {i}") for i, name in enumerate(names, start=1)]


def test_aliases_merge_classes_and_case_does_not_matter():
    kept, ids, _, notes = sort_polygons(named("_0", "Tumor", "_1", "NORMAL"), ClassRule(TABLE))
    assert ids == [1, 1, 1, 0]
    assert len(kept) == 4
    assert notes == []


def test_unclassified_and_ignored_classes_are_left_out_and_counted():
    rule = ClassRule(TABLE, ignore=("fold",))
    kept, ids, _, notes = sort_polygons(named(None, "Ignore*", "Fold", None, "stroma"), rule)
    assert ids == [4]
    assert [p.name for p in kept] == ["stroma"]
    assert notes == [
        "2 polygon(s) without a class left out",
        "1 polygon(s) of the ignored class 'Ignore*' left out",
        "1 polygon(s) of the ignored class 'Fold' left out",
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Tumor: Positive", 1),
        ("Tumor: in situ: Positive", 2),
        ("Tumor:in  situ", 2),
        ("Tumor: invasive: Positive", 1),
        ("TUMOR: IN SITU: Negative", 2),
        ("Artifact: Fold", "ignored"),
        ("Artifact: Fold: large", "ignored"),
        ("Artifact: Pen", 3),
        ("Hole: small", "excluded"),
        ("Ignore*: x", "ignored"),
        ("Necrosis: Tumor", None),
    ],
)
def test_the_nearest_known_ancestor_decides_for_types_ignored_and_excluded_classes(name, found):
    table = TissueTable.from_rows(
        [{"id": 1, "name": "Tumor"}, {"id": 2, "name": "Tumor: in situ"}, {"id": 3, "name": "Artifact: Pen"}]
    )
    assert ClassRule(table, ignore=("artifact",), exclude=("hole",))(name) == found


def test_a_class_in_no_table_names_file_feature_and_cure():
    with pytest.raises(
        TissueError, match=r"a.xml: annotation 2: class 'Necrosis' .*normal, tumor, stroma.* tissue.toml"
    ):
        sort_polygons(named("tumor", "Necrosis"), ClassRule(TABLE))


def test_later_ids_are_painted_later_unless_an_order_is_given():
    assert paint_order([4, 0, 1, 0], TABLE) == [1, 3, 2, 0]
    assert paint_order([4, 0, 1, 0], TABLE, order=("tumor", "normal")) == [0, 2, 1, 3]
    with pytest.raises(TissueError, match="unknown tissue 'fat'"):
        paint_order([0], TABLE, order=("fat",))


def test_the_order_of_the_table_counts_where_no_other_is_given():
    ordered = TissueTable(TABLE.types, ("tumor", "normal"))
    assert paint_order([4, 0, 1, 0], ordered) == [0, 2, 1, 3]
    assert paint_order([4, 0, 1, 0], ordered, order=("normal",)) == [2, 0, 1, 3]


def test_a_range_of_values_is_one_type():
    table = TissueTable.from_rows([{"id": 2, "name": "gland", "aliases": ["1-100"]}, {"id": 3, "name": "nucleus"}])
    assert value_ids(table)[[0, 1, 100, 101, 3]].tolist() == [255, 2, 2, -1, 2]
    above = TissueTable.from_rows([{"id": 2, "name": "gland", "aliases": [">0"]}])
    assert value_ids(above)[[0, 1, 255]].tolist() == [255, 2, 2]


def test_values_are_ids_unless_aliases_are_numbers():
    by_id = value_ids(TABLE, ignore=("9",))
    assert by_id[[0, 1, 4, 9, 255]].tolist() == [0, 1, 4, 255, 255]
    assert (by_id == -1).sum() == 251
    table = TissueTable.from_rows(
        [{"id": 0, "name": "benign", "aliases": ["1"]}, {"id": 1, "name": "cancer", "aliases": ["2"]}]
    )
    assert value_ids(table)[[0, 1, 2, 3, 255]].tolist() == [255, 0, 1, -1, 255]


@pytest.mark.parametrize(("ignore", "found"), [("2", [255, 0, 255, 3]), ("GLAND", [255, 0, 255, 255])])
def test_a_value_and_a_type_of_the_table_can_be_ignored(ignore, found):
    rows = [{"id": 0, "name": "stroma", "aliases": ["1"]}, {"id": 3, "name": "gland", "aliases": ["2", "3-9"]}]
    assert value_ids(TissueTable.from_rows(rows), (ignore,))[[0, 1, 2, 3]].tolist() == found


def test_colours_count_when_the_table_has_colours_for_aliases():
    assert color_ids(TABLE) == {}
    table = TissueTable.from_rows([{"id": 2, "name": "tumor", "aliases": ["#FF0001"]}])
    assert color_ids(table, ignore=("#010203",)) == {0: 255, 0xFFFFFF: 255, 0x010203: 255, 0xFF0001: 2}
    for ignored in ("tumor", "#ff0001"):
        assert color_ids(table, ignore=(ignored,))[0xFF0001] == 255
