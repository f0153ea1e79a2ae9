import numpy as np
import pytest
import shapely

from histoloom.errors import AnnotationError
from histoloom.slides.polygon import Polygon, build_polygons, check_on_slide, cut_out, from_shapely

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def area(polygons: list[Polygon]) -> float:
    return sum(p.to_shapely().area for p in polygons)


def test_a_square_with_a_hole_keeps_both_and_opens_its_rings():
    (polygon,), notes = build_polygons([SQUARE, [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]], "Tumor", "#c80000", "f")
    assert polygon.ring.shape == (4, 2)
    assert polygon.ring.dtype == np.float64
    assert [hole.shape for hole in polygon.holes] == [(4, 2)]
    assert polygon.to_shapely().area == 96
    assert polygon.bounds == (0, 0, 10, 10)
    assert notes == []


def test_a_figure_of_eight_becomes_two_polygons_and_a_note():
    polygons, notes = build_polygons([[[0, 0], [10, 10], [10, 0], [0, 10]]], "Tumor", None, "a.geojson: feature 3")
    assert len(polygons) == 2
    assert area(polygons) == 50
    assert len(notes) == 1
    assert notes[0].startswith("a.geojson: feature 3: the outline crosses itself; repaired")


def test_all_that_the_pen_went_around_stays_inside():
    angles = np.arange(5) * 2 * 2 * np.pi / 5
    polygons, _ = build_polygons([np.stack([np.cos(angles), np.sin(angles)], 1)], "Tumor", None, "f")
    assert shapely.union_all([p.to_shapely() for p in polygons]).contains(shapely.Point(0, 0))


def test_a_third_axis_is_dropped_and_double_clicks_are_joined():
    (polygon,), _ = build_polygons([[[0, 0, 7], [10, 0, 7], [10, 0, 7], [10, 10, 7]]], "Tumor", None, "f")
    assert polygon.ring.tolist() == [[0, 0], [10, 0], [10, 10]]


@pytest.mark.parametrize("stray", [[[5, 5]], [[5, 5], [5, 5]], [[5, 5], [9, 9]], [[0, 0], [5, 5], [9, 9]]])
def test_a_stray_click_is_left_out_and_noted(stray):
    polygons, notes = build_polygons([stray], "Tumor", None, "a.geojson: feature 3")
    assert polygons == []
    assert notes[0].startswith("a.geojson: feature 3: left out")


def test_outlines_and_holes_without_points_are_left_out():
    assert build_polygons([], "Tumor", None, "f: 1") == ([], ["f: 1: left out, it has no outline"])
    assert build_polygons([[]], "Tumor", None, "f: 1") == ([], ["f: 1: left out, 0 point(s) make no area"])
    (polygon,), notes = build_polygons([SQUARE, []], "Tumor", None, "f: 1")
    assert (polygon.holes, notes) == ((), [])


@pytest.mark.parametrize(
    ("rings", "message"),
    [
        ([[[0, 0], [1, float("nan")], [1, 1]]], "NaN"),
        ([[[0, 0], [1, None], [1, 1]]], "NaN"),
        ([[[0, 0], [float("inf"), 1], [1, 1]]], "infinite"),
        ([[[0, 0], [1e300, 1], [1, 1]]], "beyond any slide"),
        ([[[0, 0], [1, 2, 3], [1, 1]]], "not a list of"),
        ([[["a", "b"], ["c", "d"]]], "not a list of"),
        ([[1, 2, 3]], "not a list of"),
        (["ring"], "not a list of"),
        ([[[10**400, 0], [1, 1], [2, 2]]], "not a list of"),
    ],
)
def test_a_ring_that_is_no_ring_is_refused_in_one_line_that_names_it(rings, message):
    with pytest.raises(AnnotationError, match=message) as error:
        build_polygons(rings, "Tumor", None, "a.geojson: feature 3")
    assert str(error.value).startswith("a.geojson: feature 3: ")
    assert "\n" not in str(error.value)


def test_cutting_out_makes_holes_bites_and_nothing():
    def box(*bounds):
        return from_shapely(shapely.box(*bounds), "Tumor", None, "f")[0]

    kept = cut_out([box(0, 0, 10, 10), box(20, 0, 30, 10), box(41, 1, 42, 2), box(60, 0, 70, 10)],
                   [box(2, 2, 4, 4), box(25, 0, 35, 10), box(40, 0, 50, 10)])  # fmt: skip
    assert [p.to_shapely().area for p in kept] == [96, 50, 100]
    assert len(kept[0].holes) == 1
    assert all(p.name == "Tumor" for p in kept)


def test_a_polygon_off_the_slide_is_refused_and_one_over_the_border_is_noted():
    over = build_polygons([[[-5, -5], [10, -5], [10, 10]]], "Tumor", None, "a.geojson: feature 1")[0]
    off = build_polygons([[[1000, 0], [1010, 0], [1010, 10]]], "Tumor", None, "a.geojson: feature 2")[0]
    assert check_on_slide(over, (1000, 500)) == [
        "a.geojson: feature 1: reaches over the border of the slide; cut there"
    ]
    with pytest.raises(AnnotationError, match=r"feature 2: is off the slide .* 1000 x 500 .* own annotations"):
        check_on_slide(over + off, (1000, 500))
