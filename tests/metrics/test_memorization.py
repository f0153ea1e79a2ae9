import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from histoloom.metrics.memorization import authenticity

RNG = np.random.default_rng(0)
TRAIN = RNG.standard_normal((150, 6))


def test_the_share_is_that_of_its_definition():
    fakes = RNG.standard_normal((80, 6))
    found = authenticity(TRAIN, fakes)
    distance, place = (a[:, 0] for a in NearestNeighbors(n_neighbors=1).fit(TRAIN).kneighbors(fakes))
    fellow = NearestNeighbors(n_neighbors=2).fit(TRAIN).kneighbors(TRAIN)[0][:, 1]
    np.testing.assert_array_equal(found.neighbor, place)
    np.testing.assert_allclose(found.distance, distance)
    assert found.percent == pytest.approx(100 * (distance > fellow[place]).mean())
    np.testing.assert_allclose(found.ratio, distance / fellow[place])
    assert found.median_distance == pytest.approx(np.median(distance))


def test_independent_images_score_about_half_and_copies_nothing():
    wide = authenticity(
        np.random.default_rng(1).standard_normal((1500, 3)), np.random.default_rng(2).standard_normal((1500, 3))
    )
    assert 40 < wide.percent < 62
    assert authenticity(TRAIN, TRAIN[::3]).percent == 0
    assert authenticity(TRAIN, TRAIN[:40] + 1e-3).percent == 0
    assert (authenticity(TRAIN, TRAIN + 40).ratio > 1).all()


def test_a_third_copy_of_twins_is_the_worst_suspect():
    twins = np.concatenate([TRAIN, TRAIN[:1]])
    found = authenticity(twins, np.stack([TRAIN[0], TRAIN[0] + 0.1]))
    assert found.ratio.tolist() == [0.0, np.inf]
    assert found.authentic.tolist() == [False, True]
