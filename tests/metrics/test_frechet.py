import numpy as np
import pytest
from scipy.linalg import sqrtm

from histoloom.errors import InputError
from histoloom.metrics.frechet import frechet_at_infinity, frechet_distance


def by_matrix_root(real: np.ndarray, fake: np.ndarray) -> float:
    """The formula as it stands in Heusel et al. 2017, with scipy's matrix square root."""
    covs = [np.cov(x, rowvar=False) for x in (real, fake)]
    root = sqrtm(covs[0] @ covs[1]).real
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(covs[0] + covs[1] - 2 * root))


def clouds(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((n, m, d))
    mix = rng.standard_normal((d, d)) / d**0.5
    return rng.standard_normal((n, d)) @ mix, 1.3 * rng.standard_normal((m, d)) + 0.4


@pytest.mark.parametrize(("n", "m"), [(200, 150), (150, 200), (500, 40), (40, 500)])
def test_the_distance_is_that_of_the_textbook(n, m):
    real, fake = clouds(n, m, 30)
    assert frechet_distance(real, fake) == pytest.approx(by_matrix_root(real, fake), rel=1e-7)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 25), (20, 300), (300, 20)])
def test_fewer_images_than_dimensions_give_the_same_distance_as_the_textbook(n, m):
    real, fake = clouds(n, m, 60)
    covs = [np.cov(x, rowvar=False) + 1e-9 * np.eye(60) for x in (real, fake)]
    values = np.linalg.eigvals(covs[0] @ covs[1]).real
    whole = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(covs[0]) + np.trace(covs[1])
    assert frechet_distance(real, fake) == pytest.approx(whole - 2 * np.sqrt(values.clip(0)).sum(), rel=1e-4)


def test_a_shift_alone_costs_its_square_and_a_scale_its_closed_form():
    real = np.random.default_rng(0).standard_normal((400, 5))
    assert frechet_distance(real, real + np.array([3, 0, 4, 0, 0])) == pytest.approx(25)
    assert frechet_distance(real, 3 * real) == pytest.approx(
        4 * (real.var(0, ddof=1).sum() + (real.mean(0) ** 2).sum()), rel=1e-9
    )
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_a_feature_that_never_varies_changes_nothing():
    real, fake = clouds(100, 90, 6)
    dead = [np.column_stack([x, np.full(len(x), 0.5)]) for x in (real, fake)]
    assert frechet_distance(*dead) == pytest.approx(frechet_distance(real, fake), rel=1e-6)


def test_single_precision_features_are_measured_in_double():
    real, fake = clouds(100, 90, 6)
    singles = real.astype(np.float32), fake.astype(np.float32)
    assert frechet_distance(*singles) == pytest.approx(frechet_distance(*(x.astype(np.float64) for x in singles)))


def test_the_line_over_one_nth_comes_nearer_to_the_truth_than_any_finite_n():
    rng = np.random.default_rng(1)
    plain, at_infinity = [], []
    for seed in range(6):
        real, fake = rng.standard_normal((300, 20)), rng.standard_normal((300, 20)) + 0.1
        plain.append(frechet_distance(real, fake))
        at_infinity.append(frechet_at_infinity(real, fake, seed=seed).distance)
    truth = 20 * 0.1**2
    assert abs(np.mean(at_infinity) - truth) < 0.25 * abs(np.mean(plain) - truth)


def test_the_fitted_points_are_returned_and_too_few_images_are_refused():
    real, fake = clouds(100, 80, 6)
    fit = frechet_at_infinity(real, fake, num_sizes=5)
    assert fit.sizes == (40, 50, 60, 70, 80)
    line = [fit.distance + fit.slope / n for n in fit.sizes]
    assert np.mean(line) == pytest.approx(np.mean(fit.distances))
    with pytest.raises(InputError, match="extrapolation at 30 dimensions needs 45 images per side; got 30"):
        frechet_at_infinity(*clouds(30, 50, 30))
    with pytest.raises(InputError, match="needs 45 images per side; got 44"):
        frechet_at_infinity(*clouds(44, 50, 30))
    assert np.isfinite(frechet_at_infinity(*clouds(45, 50, 30)).distance)
