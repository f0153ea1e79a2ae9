import numpy as np
import pytest
from scipy.spatial import cKDTree

from histoloom.errors import InputError
from histoloom.metrics import neighbors
from histoloom.metrics.neighbors import nearest

RNG = np.random.default_rng(0)
KEYS, QUERIES = RNG.standard_normal((90, 5)) + 100, RNG.standard_normal((33, 5)) + 100


@pytest.mark.parametrize("block", [7, 1024])
def test_neighbors_are_those_of_a_tree_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(neighbors, "BLOCK", block)
    distances, indices = nearest(QUERIES, KEYS, k=3)
    expected, places = cKDTree(KEYS).query(QUERIES, k=3)
    np.testing.assert_allclose(distances, expected, rtol=1e-9)
    np.testing.assert_array_equal(indices, places)


@pytest.mark.parametrize("block", [7, 1024])
def test_none_is_its_own_neighbor(monkeypatch, block):
    monkeypatch.setattr(neighbors, "BLOCK", block)
    distances, indices = nearest(KEYS, KEYS, k=2, same=True)
    expected, places = cKDTree(KEYS).query(KEYS, k=3)
    np.testing.assert_allclose(distances, expected[:, 1:], rtol=1e-9)
    np.testing.assert_array_equal(indices, places[:, 1:])


@pytest.mark.parametrize(("spread", "block"), [(1e-2, 1024), (1e-3, 1024), (1e-3, 7), (1e-5, 1024)])
def test_neighbors_in_tight_crowds_far_apart_are_those_of_a_tree(monkeypatch, spread, block):
    """As features of glass are: many images closer to each other than single precision tells from afar."""
    monkeypatch.setattr(neighbors, "BLOCK", block)
    rng = np.random.default_rng(1)
    crowds = np.repeat([5.0, -5.0], 60)[:, None] + spread * rng.standard_normal((120, 32))
    crowds = crowds.astype(np.float32)
    distances, indices = nearest(crowds, crowds, k=2, same=True)
    expected, places = cKDTree(crowds.astype(np.float64)).query(crowds.astype(np.float64), k=3)
    np.testing.assert_allclose(distances, expected[:, 1:], rtol=1e-9)
    np.testing.assert_array_equal(indices, places[:, 1:])


def test_an_image_that_is_there_is_found_at_distance_zero():
    distances, indices = nearest(KEYS[[4, 70]], KEYS)
    assert (distances == 0).all()
    assert indices.ravel().tolist() == [4, 70]


def test_more_neighbors_than_images_are_refused():
    with pytest.raises(InputError, match="need more than 3 images for 3 neighbors each; got 3"):
        nearest(KEYS[:3], KEYS[:3], k=3, same=True)
