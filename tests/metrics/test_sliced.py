import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from histoloom.errors import InputError
from histoloom.metrics import frechet_distance, mind


@pytest.fixture
def cloud():
    return np.random.default_rng(0).standard_normal((300, 8))


def test_a_shift_counts_as_in_the_frechet_distance(cloud):
    shift = np.arange(8) / 4
    assert mind(cloud, cloud) == 0
    assert mind(cloud, cloud + shift, directions=20000) == pytest.approx((shift**2).sum(), rel=0.02)
    assert frechet_distance(cloud, cloud + shift) == pytest.approx((shift**2).sum(), rel=1e-6)


def test_one_dimension_is_the_distance_of_quantiles():
    """W2 of {0, 1} and {0, 0, 3}: quantiles differ by 0 up to 1/2, by 1 up to 2/3, and by 2 from there."""
    real, fake = np.array([[0.0], [1.0]]), np.array([[3.0], [0.0], [0.0]])
    assert mind(real, fake) == pytest.approx(1 / 6 + 4 / 3)
    assert wasserstein_distance(real[:, 0], fake[:, 0]) == pytest.approx(1 / 6 + 2 / 3)  # SciPy's, of order 1


def test_it_sees_what_mean_and_covariance_do_not():
    rng = np.random.default_rng(1)
    modes = np.repeat([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], 250, axis=0)
    other = rng.standard_normal((1000, 2)) / 2**0.5
    assert frechet_distance(modes, other) < 0.01
    assert mind(modes, other) > 0.05


def test_numbers_of_images_may_differ_and_the_seed_decides(cloud):
    half = mind(cloud[:150], cloud)
    assert half == mind(cloud[:150], cloud)
    assert 0 < half < 0.2
    assert half != mind(cloud[:150], cloud, seed=1)


def test_features_that_cannot_be_compared_are_refused(cloud):
    with pytest.raises(InputError, match="fake features hold nan"):
        mind(cloud, np.full_like(cloud, np.nan))
