import numpy as np
import pytest
from scipy.spatial.distance import cdist

from histoloom.errors import InputError
from histoloom.metrics import neighbors
from histoloom.metrics.prdc import prdc


def by_full_matrices(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """As the authors' `prdc` package computes it: three full distance matrices."""
    real_radii, fake_radii = (np.sort(cdist(x, x), axis=1)[:, k] for x in (real, fake))
    between = cdist(real, fake)
    return {
        "precision": (between < real_radii[:, None]).any(axis=0).mean(),
        "recall": (between < fake_radii).any(axis=1).mean(),
        "density": (between < real_radii[:, None]).sum(axis=0).mean() / k,
        "coverage": (between.min(axis=1) < real_radii).mean(),
    }


@pytest.mark.parametrize("block", [16, 1024])
@pytest.mark.parametrize("k", [1, 5])
def test_the_four_figures_are_those_of_full_matrices_whatever_the_block(monkeypatch, block, k):
    monkeypatch.setattr(neighbors, "BLOCK", block)
    rng = np.random.default_rng(k)
    real, fake = rng.standard_normal((120, 6)), 0.7 * rng.standard_normal((75, 6)) + 0.3
    assert prdc(real, fake, k).means() == pytest.approx(by_full_matrices(real, fake, k))


def test_a_mode_that_is_left_out_costs_recall_and_coverage_but_no_precision():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((100, 4)), rng.standard_normal((100, 4)) + 50])
    figures = prdc(real, rng.standard_normal((200, 4))).means()
    assert figures["precision"] > 0.8
    assert figures["recall"] < 0.55
    assert figures["coverage"] < 0.55


def test_each_image_has_its_own_value():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((60, 3)), rng.standard_normal((40, 3))
    fake[7] += 1000
    values = prdc(real, fake)
    assert values.precision[7] == values.density[7] == 0
    assert values.recall.shape == values.coverage.shape == (60,)


def test_too_few_images_for_k_are_refused():
    with pytest.raises(InputError, match="need more than 5 images per side for k = 5; got 5 real, 9 fake"):
        prdc(np.random.default_rng(0).standard_normal((5, 2)), np.random.default_rng(1).standard_normal((9, 2)))


def test_ties_are_decided_in_double_precision():
    # Fakes that repeat real images lie exactly on the balls that reach to those images, which are open.
    rng = np.random.default_rng(0)
    real = (rng.standard_normal((60, 24)) + 100).astype(np.float32)
    exact = real.astype(np.float64)
    squares = np.square(exact[:, None] - exact[None]).sum(axis=2)
    radii = np.sort(squares, axis=1)[:, 5]
    expected = (squares < radii[:, None]).sum(axis=0) / 5
    np.testing.assert_array_equal(prdc(real, real.copy(), 5).density, expected)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)  # every distance occurs many times
    moved = grid + np.array([1.0, 0.0, 0.0])
    by_hand = by_full_matrices_of_squares(grid, moved, 3)
    assert prdc(grid, moved, 3).means() == pytest.approx(by_hand)


def by_full_matrices_of_squares(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """As `by_full_matrices`, on whole numbers without a rounding error."""
    real_radii, fake_radii = (np.sort(cdist(x, x, "sqeuclidean").round(), axis=1)[:, k] for x in (real, fake))
    between = cdist(real, fake, "sqeuclidean").round()
    return {
        "precision": (between < real_radii[:, None]).any(axis=0).mean(),
        "recall": (between < fake_radii).any(axis=1).mean(),
        "density": (between < real_radii[:, None]).sum(axis=0).mean() / k,
        "coverage": (between.min(axis=1) < real_radii).mean(),
    }
