import itertools

import numpy as np
import pytest
from scipy.ndimage import correlate1d, gaussian_filter1d, zoom

from histoloom.discovery.votes import cell_rows, finer_rows, most_likely, reach_of, vote_kernel


def blended(votes: np.ndarray, weights: np.ndarray, cells: int, smooth: float) -> np.ndarray:
    """Every window added to the cells it covers one by one, then smoothed: what the rows must equal."""
    rows, columns, types = votes.shape
    reach = reach_of(smooth)
    taper = np.sin(np.pi * (np.arange(cells) + 0.5) / cells) ** 2
    sums = np.zeros((rows + cells - 1 + 2 * reach, columns + cells - 1 + 2 * reach, types + 1))
    for row, column in itertools.product(range(rows), range(columns)):
        part = sums[reach + row : reach + row + cells, reach + column : reach + column + cells]
        part += weights[row, column] * np.outer(taper, taper)[..., None] * np.append(votes[row, column], 1)
    if reach:
        gaussian = np.exp(-0.5 * (np.arange(-reach, reach + 1) / smooth) ** 2)
        for axis in (0, 1):
            sums = correlate1d(sums, gaussian, axis, mode="constant")
    inner = sums[reach : len(sums) - reach, reach : sums.shape[1] - reach]
    return inner[..., :-1] / np.maximum(inner[..., -1:], 1e-12)


@pytest.mark.parametrize(("cells", "smooth"), [(4, 0.0), (4, 0.8), (1, 0.0), (3, 2.0)])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (2, 9)])
def test_rows_equal_windows_added_one_by_one_and_smoothed(cells, smooth, shape):
    rng = np.random.default_rng(0)
    votes, weights = rng.dirichlet(np.ones(3), shape), rng.random(shape) * (rng.random(shape) > 0.3)
    found = np.stack([row for row, _ in cell_rows(zip(votes, weights, strict=True), cells, smooth)])
    np.testing.assert_allclose(found, blended(votes, weights, cells, smooth), atol=2e-5)


def test_the_gaussian_is_the_one_of_scipy():
    one = np.zeros(21)
    one[10] = 1
    expected = gaussian_filter1d(one, 1.5, mode="constant", radius=reach_of(1.5))
    np.testing.assert_allclose(vote_kernel(1, 1.5), expected[10 - reach_of(1.5) : 11 + reach_of(1.5)], atol=1e-12)


def test_windows_without_tissue_have_no_say_and_leave_cells_empty():
    votes = np.zeros((6, 6, 2))
    votes[:, :3, 0] = votes[:, 3:, 1] = 1
    weights = np.zeros((6, 6))
    weights[:, :2] = 1
    rows, weight = zip(*cell_rows(zip(votes, weights, strict=True), 2, 0.0), strict=True)
    assert (np.stack(rows)[..., 1] == 0).all()
    assert (np.stack(weight)[:, 3:] == 0).all()
    assert (np.stack(rows)[:, 3:] == 0).all()


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_pixels_between_cells_are_bilinear(factor):
    rows = np.random.default_rng(1).random((5, 4, 2)).astype(np.float32)
    found = np.concatenate(list(finer_rows(iter(rows), factor)))
    expected = zoom(rows, (factor, factor, 1), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_likeliest_type_is_looked_for_from_coarse_to_fine():
    ancestors = np.array([[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]])
    flat = np.array([[0.2, 0.15, 0.25, 0.4], [0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.1, 0.8]])
    np.testing.assert_array_equal(most_likely(flat, ancestors), [0, 255, 3])


def test_every_coarser_map_is_the_one_that_its_own_sums_give():
    rng = np.random.default_rng(2)
    ancestors = np.stack([np.arange(12) // 6, np.arange(12) // 3, np.arange(12)])
    probabilities = rng.dirichlet(np.full(12, 0.5), (9, 8))
    found = most_likely(probabilities, ancestors)
    summed = np.stack([probabilities[..., ancestors[0] == t].sum(-1) for t in range(2)], -1)
    np.testing.assert_array_equal(ancestors[0][found], summed.argmax(-1))
