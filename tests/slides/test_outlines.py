import numpy as np
import pytest
import shapely

from histoloom.slides.outlines import outlines
from histoloom.slides.polygon import from_shapely
from histoloom.slides.rasterize import PolygonMap


def painted(regions, ids, shape: tuple[int, int]) -> np.ndarray:
    """The polygons as a map again."""
    polygons = [p for region in regions for p in from_shapely(region, None, None, "")]
    of = [i for region, i in zip(regions, ids.tolist(), strict=True) for _ in from_shapely(region, None, None, "")]
    return PolygonMap(polygons, of, shape[::-1], 1.0).overview(1)


def blobs(rng: np.random.Generator, size: int, types: int) -> np.ndarray:
    coarse = rng.integers(types, size=(size // 5, size // 5))
    return np.kron(coarse, np.ones((5, 5))).astype(np.uint8)[:size, :size]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("types", [2, 6])
def test_outlines_are_the_inverse_of_rasterizing(seed, types):
    rng = np.random.default_rng(seed)
    semantic_map = rng.integers(types, size=(17, 23)).astype(np.uint8)  # corners touch everywhere
    semantic_map[semantic_map == 1] = 255
    regions, ids = outlines(semantic_map)
    assert shapely.is_valid(regions).all()
    np.testing.assert_array_equal(painted(regions, ids, semantic_map.shape), semantic_map)


def test_a_region_round_another_has_a_hole_and_one_that_touches_itself_is_valid():
    semantic_map = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)
    regions, ids = outlines(semantic_map)
    assert sorted(ids.tolist()) == [0, 1, 1]
    assert shapely.is_valid(regions).all()
    assert sorted(shapely.area(regions).tolist()) == [1, 1, 14]


def test_simpler_borders_leave_neither_gap_nor_overlap():
    semantic_map = blobs(np.random.default_rng(0), 100, 4)
    semantic_map[:20] = 255
    exact, _ = outlines(semantic_map)
    simple, ids = outlines(semantic_map, 1.5)
    assert shapely.coverage_is_valid(np.array(simple))
    assert shapely.union_all(simple).area == pytest.approx(80 * 100, rel=0.01)
    assert shapely.get_num_coordinates(simple).sum() <= shapely.get_num_coordinates(exact).sum()
    assert (painted(simple, ids, semantic_map.shape) == semantic_map).mean() > 0.98


def test_a_map_without_any_label_has_no_outline():
    regions, ids = outlines(np.full((4, 5), 255, np.uint8))
    assert regions == []
    assert len(ids) == 0
