"""Features are spelled exactly as QuPath 0.2.3, 0.3 and 0.5 export them."""

import gzip
import json

import pytest

from histoloom.errors import AnnotationError
from histoloom.slides.annotations.qupath import read_qupath

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]

V02 = """[
  {
    "type": "Feature",
    "id": "PathAnnotationObject",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]},
    "properties": {"classification": {"name": "Tumor", "colorRGB": -3670016}, "isLocked": false, "measurements": []}
  },
  {
    "type": "Feature",
    "id": "PathCellObject",
    "geometry": {"type": "Polygon", "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 1]]]},
    "nucleusGeometry": {"type": "Polygon", "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 1]]]},
    "properties": {"isLocked": false, "measurements": []}
  }
]"""
V05 = """{"type":"FeatureCollection","features":[
{"type":"Feature","id":"3f5fd2e5-5b0c-4d0f-b8f6-16c3a52f7a7d","geometry":{"type":"MultiPolygon","coordinates":[
[[[0,0],[10,0],[10,10],[0,10],[0,0]],[[2,2],[2,4],[4,4],[4,2],[2,2]]],[[[20.5,0],[30,0],[30,10],[20.5,0]]]]},
"properties":{"objectType":"annotation","name":"core 1","classification":{"name":"Stroma","color":[150,200,150]}}},
{"type":"Feature","id":"a0","geometry":{"type":"Polygon","plane":{"c":-1,"z":1,"t":0},"isEllipse":true,"coordinates":
[[[0,0],[10,0],[10,10],[0,10],[0,0]]]},
"properties":{"objectType":"annotation","classification":{"names":["Tumor","Positive"],"color":[200,0,0]}}},
{"type":"Feature","id":"a1","geometry":{"type":"Polygon","coordinates":[[[0,0],[10,0],[10,10],[0,10],[0,0]]]},
"properties":{"objectType":"detection","classification":{"name":"Tumor","color":[200,0,0]}}}]}"""


def feature(geometry: object, **properties: object) -> dict:
    return {"type": "Feature", "id": "PathAnnotationObject", "geometry": geometry, "properties": properties}


def read(tmp_path, document: object, **options: bool):
    path = tmp_path / "a.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_qupath(path, **options)


def test_an_export_of_qupath_0_2_gives_its_annotation_and_not_its_cell(tmp_path):
    found = read(tmp_path, V02)
    assert [(p.name, p.color, p.bounds) for p in found.polygons] == [("Tumor", "#c80000", (0, 0, 10, 10))]
    assert found.notes == (
        f"{tmp_path}/a.geojson: 1 cells left out (`patches` and `overlay` read them with --detections)",
    )


def test_an_export_of_qupath_0_5_gives_parts_holes_and_derived_classes(tmp_path):
    found = read(tmp_path, V05)
    assert [(p.name, p.color, len(p.holes)) for p in found.polygons] == [
        ("Stroma", "#96c896", 1),
        ("Stroma", "#96c896", 0),
        ("Tumor: Positive", "#c80000", 0),
    ]
    assert found.polygons[1].ring[0].tolist() == [20.5, 0]


def test_objects_on_several_planes_are_noted(tmp_path):
    def square(**plane: int) -> dict:
        return feature({"type": "Polygon", "coordinates": [SQUARE]} | ({"plane": plane} if plane else {}))

    first = square(c=-1, z=0, t=0)
    assert read(tmp_path, [first, square()]).notes == ()
    found = read(tmp_path, [first, square(c=-1, z=2, t=0)])
    assert found.notes == (
        f"{tmp_path}/a.geojson: its objects are on 2 planes (z, t) and are read as one; export one plane",
    )


def test_detections_are_read_when_asked_for(tmp_path):
    assert len(read(tmp_path, V05, detections=True).polygons) == 4
    v03 = feature({"type": "Polygon", "coordinates": [SQUARE]}, object_type="tile")
    assert read(tmp_path, v03).polygons == ()
    assert len(read(tmp_path, v03, detections=True).polygons) == 1


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], lambda f: {"type": "FeatureCollection", "features": [f]}])
def test_one_feature_a_list_and_a_collection_read_alike(tmp_path, wrap):
    found = read(tmp_path, wrap(feature({"type": "Polygon", "coordinates": [SQUARE, HOLE]}, classification="Tumor")))
    assert [(p.name, p.to_shapely().area) for p in found.polygons] == [("Tumor", 96)]


def test_bare_geometries_and_collections_of_them_are_read(tmp_path):
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    nested = {"type": "GeometryCollection", "geometries": [polygon, {"type": "Point", "coordinates": [1, 2]}]}
    assert len(read(tmp_path, polygon).polygons) == 1
    assert len(read(tmp_path, feature(nested)).polygons) == 1


def test_points_lines_and_features_without_geometry_are_counted_and_left_out(tmp_path):
    line = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    found = read(tmp_path, [feature(line), feature({"type": "MultiPoint", "coordinates": [[0, 0]]}), feature(None)])
    assert found.polygons == ()
    assert [note.split(": ")[1] for note in found.notes] == [
        "2 points or lines left out",
        "1 features without geometry left out",
    ]


def test_gzip_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + V02.encode()))
    assert len(read_qupath(path).polygons) == 1


def test_a_self_crossing_polygon_is_repaired_and_noted_with_its_feature(tmp_path):
    found = read(
        tmp_path, [feature({"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]})]
    )
    assert len(found.polygons) == 2
    assert found.notes[0].startswith(f"{tmp_path}/a.geojson: feature 1: the outline crosses itself")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not readable as GeoJSON"),
        ("[" * 100_000, "not readable as GeoJSON"),
        ("[1]", "item 1 is not a GeoJSON feature"),
        ('{"a": 1}', "item 1 is not a GeoJSON feature"),
        ('{"type": "FeatureCollection"}', "item 1 is not a GeoJSON feature"),
        ('{"type": "Feature", "properties": 3}', "feature 1 has properties"),
        ('{"type": "Circle"}', "feature 1: geometry 'Circle'"),
        ('{"type": "Polygon", "coordinates": 5}', "feature 1: geometry 'Polygon'"),
        ('{"type": "MultiPolygon", "coordinates": [5]}', "feature 1: geometry 'MultiPolygon'"),
        ('{"type": "GeometryCollection", "geometries": null}', "feature 1: its geometry collection is not a list"),
        ('{"type": "GeometryCollection", "geometries": [3]}', "feature 1: geometry None is not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1]]]}', "feature 1: a coordinate is NaN"),
    ],
)
def test_what_is_no_geojson_is_refused_in_one_line_that_names_file_and_feature(tmp_path, document, message):
    with pytest.raises(AnnotationError) as error:
        read(tmp_path, document)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/a.geojson: ")
    assert "\n" not in str(error.value)


def test_a_truncated_gzip_is_refused(tmp_path):
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(V02.encode())[:-20])
    with pytest.raises(AnnotationError, match="export it again"):
        read_qupath(path)


@pytest.mark.parametrize("rings", [[], [[]], [[[1, 1]]], [[[1, 1], [2, 2]]]])
def test_an_outline_without_area_is_left_out_and_noted(tmp_path, rings):
    found = read(tmp_path, [feature({"type": "Polygon", "coordinates": rings}, classification="Tumor")])
    assert found.polygons == ()
    assert "feature 1 (Tumor): left out" in found.notes[0]


def test_classes_that_older_versions_nest_keep_their_parents(tmp_path):
    tumor = {"name": "Tumor", "colorRGB": -1, "parentClass": None}
    nested = {"name": "Positive", "parentClass": {"name": "in situ", "parentClass": tumor}}
    found = read(tmp_path, feature({"type": "Polygon", "coordinates": [SQUARE]}, classification=nested))
    assert [p.name for p in found.polygons] == ["Tumor: in situ: Positive"]


def test_utf_16_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.geojson").write_bytes(V02.encode("utf-16"))
    assert len(read_qupath(tmp_path / "a.geojson").polygons) == 1


def test_a_bomb_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr("histoloom.slides.annotations.qupath._MAX_BYTES", 1 << 20)
    monkeypatch.setattr("histoloom.slides.annotations.qupath._MAX_ITEMS", 1000)
    for text in (b" " * (1 << 21), b"[" + b"[]," * 2000 + b"[]]"):
        (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(text))
        with pytest.raises(AnnotationError, match="is larger than 1 MB unpacked, or has more than"):
            read_qupath(tmp_path / "a.geojson.gz")
