"""One call for every format: `read_annotations`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoloom.errors import AnnotationError, ConfigError, TissueError
from histoloom.slides.annotations import AnnotationConfig, read_annotations, read_polygons
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_rows(
    [{"id": 0, "name": "normal"}, {"id": 1, "name": "tumor", "aliases": ["_0", "_1"]}, {"id": 2, "name": "stroma"}]
)
SIZE, MPP = (100, 80), 0.25


def square(left: int, top: int, edge: int) -> list[list[int]]:
    right, bottom = left + edge, top + edge
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def write_qupath(folder: Path, *areas: tuple[str | None, list[list[int]]]) -> Path:
    features = [
        {
            "type": "Feature",
            "id": f"7a0e2f2e-0000-4000-8000-00000000000{i}",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation"}
            | ({"classification": {"name": n, "color": [200, 0, 0]}} if n else {}),
        }
        for i, (n, ring) in enumerate(areas)
    ]
    path = folder / "slide.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def write_asap(folder: Path, *areas: tuple[str, list[list[int]]]) -> Path:
    annotations = "".join(
        f'<Annotation Name="Annotation {i}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{j}" X="{x}" Y="{y}" />' for j, (x, y) in enumerate(ring[:-1]))
        + "</Coordinates></Annotation>"
        for i, (group, ring) in enumerate(areas)
    )
    path = folder / "tumor_001.xml"
    path.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>{annotations}</Annotations><AnnotationGroups />'
        "</ASAP_Annotations>",
        encoding="utf-8",
    )
    return path


def test_camelyon16_gives_tumour_with_holes_and_normal_for_the_rest(tmp_path):
    path = write_asap(tmp_path, ("_0", square(10, 10, 40)), ("_1", square(60, 10, 20)), ("_2", square(20, 20, 10)))
    whole = read_annotations(path, TABLE, SIZE, MPP, AnnotationConfig(rest="normal")).overview(1)
    expected = np.zeros((80, 100))
    expected[10:50, 10:50] = expected[10:30, 60:80] = 1
    expected[20:30, 20:30] = 0
    assert (whole == expected).all()
    assert read_annotations(path, TABLE, SIZE, MPP).overview(1)[25, 25] == 255


def test_the_same_areas_give_the_same_map_in_every_format(tmp_path):
    areas = (("stroma", square(5, 5, 50)), ("tumor", square(30, 30, 40)), ("Exclusion", square(40, 40, 7)))
    maps = [read_annotations(write(tmp_path, *areas), TABLE, SIZE, MPP) for write in (write_qupath, write_asap)]
    Image.fromarray(maps[0].overview(1)).save(tmp_path / "mask.png")
    maps.append(read_annotations(tmp_path / "mask.png", TABLE, SIZE, MPP))
    windows = [m.read(3, 2, (60, 50), 0.3) for m in maps]
    assert (windows[0] == windows[1]).all()
    assert (windows[0] != windows[2]).mean() < 0.05  # the mask knows pixels, not outlines
    assert len(np.unique(windows[0])) == 3


def test_overlaps_go_to_the_later_id_or_by_the_order_given(tmp_path):
    path = write_qupath(tmp_path, ("tumor", square(0, 0, 40)), ("normal", square(20, 20, 40)))
    assert read_annotations(path, TABLE, SIZE, MPP).read(30, 30, 1, MPP)[0, 0] == 1
    ordered = AnnotationConfig(order=("tumor", "normal"))
    assert read_annotations(path, TABLE, SIZE, MPP, ordered).read(30, 30, 1, MPP)[0, 0] == 0


def test_an_origin_moves_qupaths_polygons_to_their_place(tmp_path):
    path = write_qupath(tmp_path, ("tumor", square(0, 0, 10)))
    moved = read_annotations(path, TABLE, SIZE, MPP, origin=(30, 20)).overview(1)
    assert (moved[20:30, 30:40] == 1).all()
    assert (moved == 1).sum() == 100


def test_what_was_repaired_or_left_out_is_told_with_the_file(tmp_path):
    eight = [[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]
    path = write_qupath(
        tmp_path, ("tumor", eight), (None, square(0, 0, 9)), ("Fold", square(0, 0, 9)), ("stroma", square(90, 70, 30))
    )
    notes = read_annotations(path, TABLE, SIZE, MPP, AnnotationConfig(ignore=("fold",))).notes
    assert all(note.startswith(str(path)) for note in notes)
    assert [
        word in note for word, note in zip(["crosses", "border", "without a class", "Fold"], notes, strict=True)
    ] == [True] * 4


def test_the_content_decides_not_the_name(tmp_path):
    path = write_qupath(tmp_path, ("tumor", square(0, 0, 10))).rename(tmp_path / "slide.txt")
    assert [p.name for p in read_polygons(path).polygons] == ["tumor"]


def test_an_empty_collection_is_a_slide_without_annotations(tmp_path):
    assert (read_annotations(write_qupath(tmp_path), TABLE, SIZE, MPP).overview(1) == 255).all()


@pytest.mark.parametrize(
    ("areas", "error", "message"),
    [
        (
            [("Necrosis", square(0, 0, 9))],
            TissueError,
            r"feature 1 \(Necrosis\): class 'Necrosis' is in no tissue table",
        ),
        ([(None, square(0, 0, 9))], AnnotationError, "none of its polygons has a class"),
        ([("tumor", square(500, 0, 9))], AnnotationError, r"feature 1 \(tumor\): is off the slide"),
    ],
)
def test_bad_annotations_are_refused_in_one_line_with_file_and_cure(tmp_path, areas, error, message):
    with pytest.raises(error, match=message) as found:
        read_annotations(write_qupath(tmp_path, *areas), TABLE, SIZE, MPP)
    assert str(found.value).startswith(str(tmp_path / "slide.geojson"))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"%PDF-1.7", "begins with b'%PDF-1.7'; known are QuPath GeoJSON, ASAP XML")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_annotations(path, TABLE, SIZE, MPP)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match="a folder, not an annotation file"):
        read_annotations(tmp_path, TABLE, SIZE, MPP)
    with pytest.raises(AnnotationError, match="no such annotation file"):
        read_annotations(tmp_path / "a.geojson", TABLE, SIZE, MPP)


def test_a_class_cannot_be_ignored_and_excluded():
    with pytest.raises(ConfigError, match="both ignored and excluded"):
        AnnotationConfig(ignore=("exclusion",))
