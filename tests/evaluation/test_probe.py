import numpy as np
import pytest
from skimage.color import rgb2lab

from histoloom.errors import InputError
from histoloom.evaluation.probe import color_statistics, linear_probe, tissue_labels


def test_the_label_is_the_type_that_stands_out_most():
    maps = np.zeros((3, 10, 10), np.uint8)
    maps[1, :3] = 1  # 30 % of a rare type beside 70 % of the common one
    maps[2, :3] = 255
    assert tissue_labels(maps, np.array([0.9, 0.1, 0.0])).tolist() == [0, 1, 0]
    assert tissue_labels(np.full((1, 10, 10), 255, np.uint8), np.array([0.9, 0.1, 0.0])).tolist() == [-1]


def test_color_statistics_are_means_deviations_and_quantiles(make_patches):
    images = make_patches(3).images
    found = color_statistics(images)
    np.testing.assert_allclose(found[:, :3], images.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[1, 6:9], rgb2lab(images[1]).mean((0, 1)), atol=1e-3)
    np.testing.assert_allclose(found[:, 9:12], images.std((1, 2)), rtol=1e-5)
    assert (found[:, 18:27] <= found[:, 36:45]).all()


def test_a_probe_reads_what_is_linear_and_guesses_what_is_not_there():
    rng = np.random.default_rng(0)
    labels, held = rng.integers(0, 3, 300), rng.integers(0, 3, 200)
    centers, cases = 4 * rng.standard_normal((3, 5)), [str(i // 2) for i in range(200)]
    seen = linear_probe(
        centers[labels] + rng.standard_normal((300, 5)),
        labels,
        centers[held] + rng.standard_normal((200, 5)),
        held,
        cases,
    )
    assert seen.accuracy > 0.95
    assert seen.low <= seen.accuracy <= seen.high
    blind = linear_probe(rng.standard_normal((300, 5)), labels, rng.standard_normal((200, 5)), held, cases)
    assert blind.balanced == pytest.approx(1 / 3, abs=0.12)
    assert blind.n == 200


def test_a_single_type_cannot_be_probed():
    with pytest.raises(InputError, match="all training patches show the same tissue type"):
        linear_probe(np.eye(4), np.zeros(4, int), np.eye(4), np.zeros(4, int), ["a", "b", "c", "d"])
