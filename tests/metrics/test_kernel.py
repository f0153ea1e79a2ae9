import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from histoloom.metrics import kernel
from histoloom.metrics.kernel import kid, median_distance, mmd_rbf

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.standard_normal((50, 7)), 0.8 * RNG.standard_normal((40, 7)) + 0.3


def unbiased(k_real: np.ndarray, k_fake: np.ndarray, k_cross: np.ndarray) -> float:
    """Equation 3 of Gretton et al. 2012, pair by pair."""
    n, m = k_cross.shape
    real = sum(k_real[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    fake = sum(k_fake[i, j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return real + fake - 2 * k_cross.mean()


@pytest.mark.parametrize("block", [8, 1024])
def test_both_distances_are_the_sum_over_pairs_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(kernel, "BLOCK", block)
    cubic = [(a @ b.T / 7 + 1) ** 3 for a, b in ((REAL, REAL), (FAKE, FAKE), (REAL, FAKE))]
    assert kid(REAL, FAKE) == pytest.approx(unbiased(*cubic), rel=1e-9)
    gauss = [np.exp(-(cdist(a, b) ** 2) / (2 * 1.5**2)) for a, b in ((REAL, REAL), (FAKE, FAKE), (REAL, FAKE))]
    assert mmd_rbf(REAL, FAKE, width=1.5) == pytest.approx(unbiased(*gauss), rel=1e-9)


def test_equal_distributions_score_zero_on_average():
    scores = [mmd_rbf(*np.random.default_rng(seed).standard_normal((2, 30, 4))) for seed in range(60)]
    assert abs(np.mean(scores)) < 3 * np.std(scores) / 60**0.5
    assert min(scores) < 0


def test_the_width_is_the_median_distance_of_real_images_unless_given():
    assert median_distance(REAL) == pytest.approx(np.median(pdist(REAL)), rel=0.01)
    assert mmd_rbf(REAL, FAKE) == mmd_rbf(REAL, FAKE, width=median_distance(REAL))
    assert median_distance(np.ones((9, 3))) == 1.0
