import pickle

import numpy as np
import pytest
import shapely

from histoloom.slides.polygon import Polygon, build_polygons, from_shapely
from histoloom.slides.rasterize import PolygonMap

SIZE, MPP = (1000, 700), 0.5


def star(rng: np.random.Generator, points: int, radius: float = 300, whole: bool = False) -> np.ndarray:
    """A random outline around the middle of the slide."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    reach = radius * rng.uniform(0.5, 1, points)
    ring = np.stack([500 + reach * np.cos(angles), 350 + reach * np.sin(angles)], axis=1)
    return ring.round() if whole else ring


def centers(x: float, y: float, size: tuple[int, int], mpp: float) -> tuple[np.ndarray, np.ndarray]:
    step = mpp / MPP
    return np.meshgrid(x + (np.arange(size[0]) + 0.5) * step, y + (np.arange(size[1]) + 0.5) * step)


def box(*bounds: float) -> Polygon:
    return from_shapely(shapely.box(*bounds), "a", None, "f")[0]


@pytest.mark.parametrize("seed", range(24))
def test_a_pixel_is_inside_exactly_when_shapely_contains_its_centre(seed):
    rng = np.random.default_rng(seed)
    whole = seed % 2 == 1  # corners on whole pixels, as drawn by a brush
    rings = [star(rng, rng.integers(3, 300), whole=whole), star(rng, 20, 80, whole)]
    polygons, _ = build_polygons(rings, "a", None, "f")
    drawn = shapely.union_all([p.to_shapely() for p in polygons])
    shapely.prepare(drawn)
    painted = PolygonMap(polygons, [3] * len(polygons), SIZE, MPP)
    for _ in range(5):
        x, y = rng.uniform(-100, 900), rng.uniform(-100, 600)
        size, mpp = (int(rng.integers(1, 90)), int(rng.integers(1, 90))), rng.uniform(0.2, 5)
        cx, cy = centers(x, y, size, mpp)
        on_slide = (cx >= 0) & (cy >= 0) & (cx < SIZE[0]) & (cy < SIZE[1])
        expected = np.where(shapely.contains_xy(drawn, cx, cy) & on_slide, 3, 255)
        semantic_map = painted.read(x, y, size, mpp)
        assert semantic_map.shape == (size[1], size[0])
        wrong = semantic_map != expected
        assert not (shapely.distance(drawn.boundary, shapely.points(cx[wrong], cy[wrong])) > 1e-9).any()
        assert wrong.mean() < 1e-3


def test_neighbours_that_share_an_outline_leave_neither_gap_nor_overlap():
    """A diagonal through pixel centers, from both sides, in either direction."""
    upper = build_polygons([[[0, 0], [100, 0], [100, 100]]], "a", None, "f")[0][0]
    lower = build_polygons([[[100, 100], [0, 100], [0, 0]]], "b", None, "f")[0][0]
    masks = [PolygonMap([p], [0], (100, 100), MPP).read(0, 0, 100, MPP) == 0 for p in (upper, lower)]
    assert (masks[0] ^ masks[1]).all()
    assert masks[0].sum() in (4950, 5050)


def test_a_box_on_whole_pixels_covers_just_these():
    semantic_map = PolygonMap([box(2, 3, 5, 7)], [1], (10, 10), MPP).read(0, 0, 10, MPP)
    expected = np.full((10, 10), 255)
    expected[3:7, 2:5] = 1
    assert (semantic_map == expected).all()


def test_windows_agree_with_the_overview_wherever_they_lie():
    rng = np.random.default_rng(1)
    painted = PolygonMap(build_polygons([star(rng, 500)], "a", None, "f")[0], [1], SIZE, MPP)
    whole = painted.overview(2)
    assert whole.shape == (350, 500)
    for _ in range(30):
        x, y = (2 * rng.integers(0, [490, 340])).tolist()
        window = painted.read(x, y, (16, 8), 2 * MPP)
        part = whole[y // 2 : y // 2 + 8, x // 2 : x // 2 + 16]
        assert (window[: part.shape[0], : part.shape[1]] == part).all()


def test_a_window_deep_inside_a_large_polygon_is_full_and_one_in_its_hole_empty():
    outline, hole = star(np.random.default_rng(2), 3000, 340), star(np.random.default_rng(3), 900, 100)
    painted = PolygonMap(build_polygons([outline, hole], "a", None, "f")[0], [4], SIZE, MPP)
    assert (painted.read(480, 330, 32, MPP) == 255).all()
    assert (painted.read(615, 345, 8, MPP) == 4).all()


def test_the_polygon_painted_later_wins():
    painted = [
        PolygonMap([box(0, 0, 8, 8), box(4, 4, 10, 10)], ids, (10, 10), MPP).read(0, 0, 10, MPP)
        for ids in ([0, 1], [1, 0])
    ]
    assert painted[0][5, 5] == 1
    assert painted[1][5, 5] == 0
    assert painted[0][9, 0] == 255


def test_rest_fills_the_slide_and_not_what_lies_beyond():
    semantic_map = PolygonMap([box(-5, -5, 3, 3)], [1], (10, 8), MPP, rest=0).read(-2, -2, 16, MPP)
    assert (semantic_map[2:10, 2:12] != 255).all()
    assert (semantic_map[2:5, 2:5] == 1).all()
    assert (semantic_map == 255).sum() == 256 - 80


def test_a_window_off_the_slide_and_a_slide_without_polygons_are_unlabelled():
    assert (PolygonMap([box(0, 0, 5, 5)], [1], (10, 10), MPP, rest=0).read(500, -90, 16, MPP) == 255).all()
    assert (PolygonMap([], [], (10, 10), MPP).read(0, 0, (5, 4), MPP) == np.full((4, 5), 255)).all()


def test_steep_edges_far_from_the_origin_stay_exact():
    ring = [[90000.5 + 1e-7, 10.0], [90003.5, 10.0], [90003.5 + 1e-7, 99990.0], [90000.5, 99990.0]]
    painted = PolygonMap(build_polygons([ring], "a", None, "f")[0], [1], (100000, 100000), 0.25)
    semantic_map = painted.read(89998, 49998, 8, 0.25)
    inside = [x for x in range(8) if shapely.Polygon(ring).contains(shapely.Point(89998 + x + 0.5, 50000.5))]
    assert np.flatnonzero(semantic_map[2] == 1).tolist() == inside


def test_a_map_survives_pickling_on_its_way_to_workers():
    painted = PolygonMap(build_polygons([star(np.random.default_rng(4), 50)], "a", None, "f")[0], [1], SIZE, MPP)
    assert (pickle.loads(pickle.dumps(painted)).overview(4) == painted.overview(4)).all()
