import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from skimage.color import rgb2lab

from histoloom.errors import InputError
from histoloom.metrics.stain_distance import stain_distance, stain_means, wasserstein
from histoloom.stain import HED_TO_OD, StainShift, apply_stain


def test_the_distance_of_samples_is_scipys():
    rng = np.random.default_rng(0)
    for n, m in ((40, 40), (40, 25), (1, 9)):
        a, b = rng.standard_normal(n), 1.5 * rng.standard_normal(m) + 1
        assert wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b))


def test_a_shift_is_its_own_distance():
    a = np.random.default_rng(0).standard_normal(30)
    assert wasserstein(a, a + 0.7) == pytest.approx(0.7)
    assert wasserstein(a, a) == 0


def test_more_eosin_is_seen_as_that_much_eosin(make_patches):
    images = make_patches(6).images
    eosin = StainShift(np.eye(3), 0.2 * HED_TO_OD[1])
    apart = stain_distance(stain_means(images), stain_means(apply_stain(images, eosin)))
    assert apart.hed == pytest.approx((0, 0.2, 0), abs=0.01)
    assert apart.drift[0] < 0  # darker


def test_lab_means_and_drift_are_those_of_scikit_image(make_patches):
    real, fake = make_patches(4, seed=0).images, make_patches(5, seed=1).images
    expected = [np.stack([rgb2lab(i).mean((0, 1)) for i in images]).mean(0) for images in (real, fake)]
    apart = stain_distance(stain_means(real), stain_means(fake))
    assert apart.drift == pytest.approx(expected[1] - expected[0], abs=1e-3)
    assert apart.drift_delta_e == pytest.approx(np.linalg.norm(expected[1] - expected[0]), abs=1e-3)


def test_an_empty_side_is_refused():
    with pytest.raises(InputError, match="need at least 1 image on each side"):
        stain_distance(np.zeros((0, 6)), np.zeros((3, 6)))
