"""Stain following: Lab against scikit-image and CIE's own white, correlation against numpy, bounds against theory."""

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.lab import mean_lab, rgb_to_lab
from histoloom.metrics.stain_following import correlation, stain_following
from histoloom.stain import StainJitter, apply_stain, draw_stain


def colors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, n, 3), dtype=np.uint8)


def test_lab_equals_that_of_scikit_image():
    color = pytest.importorskip("skimage.color", reason="needs scikit-image to compare with")
    image = colors(64)
    assert np.allclose(rgb_to_lab(image), color.rgb2lab(image), atol=1e-3)


def test_lab_of_white_black_and_red_is_what_cie_says():
    lab = rgb_to_lab(np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8))[0]
    assert np.allclose(lab, [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]], atol=0.02)


def test_mean_colour_of_a_region_leaves_out_the_rest():
    image = np.full((8, 8, 3), 255, np.uint8)
    image[:, :4] = (200, 120, 160)
    region = np.zeros((8, 8), bool)
    region[:, :4] = True
    assert np.allclose(mean_lab(image, region), rgb_to_lab(image)[0, 0])
    assert np.allclose(mean_lab(image), rgb_to_lab(image).mean(axis=(0, 1)))


def test_an_empty_region_is_refused():
    with pytest.raises(InputError, match="empty"):
        mean_lab(colors(4), np.zeros((4, 4), bool))


def test_correlation_equals_that_of_numpy():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(50, 3))
    b = a * [1, -1, 0.2] + rng.normal(size=(50, 3))
    expected = [np.corrcoef(a[:, c], b[:, c])[0, 1] for c in range(3)]
    assert np.allclose(correlation(a, b), expected)


def test_a_colour_that_never_changes_has_no_correlation():
    a = np.random.default_rng(2).normal(size=(10, 3))
    b = a.copy()
    b[:, 1] = 0.1  # its mean of ten is another number
    assert np.isnan(correlation(a, b)).tolist() == [False, True, False]


def test_the_interval_is_about_as_wide_as_fishers():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(300, 3))
    b = 0.8 * a + 0.6 * rng.normal(size=(300, 3))
    found = stain_following(a, b)
    z, half = np.arctanh(found.correlation), 1.96 / np.sqrt(297)
    assert np.allclose(found.low, np.tanh(z - half), atol=0.03)
    assert np.allclose(found.high, np.tanh(z + half), atol=0.03)
    assert found.n == 300


def test_drawing_cases_widens_the_interval_when_crops_of_a_case_agree():
    rng = np.random.default_rng(4)
    a, b = (np.repeat(rng.normal(size=(20, 3)), 10, axis=0) for _ in range(2))
    by_pair, by_case = stain_following(a, b), stain_following(a, b, [str(i // 10) for i in range(200)])
    assert all(np.subtract(by_case.high, by_case.low) > 2 * np.subtract(by_pair.high, by_pair.low))


def test_a_region_that_takes_the_stain_of_its_crop_scores_near_one_and_a_shuffled_one_near_zero():
    rng = np.random.default_rng(5)
    image = np.clip(rng.normal((190, 120, 170), 25, (24, 24, 3)), 0, 255).astype(np.uint8)
    crops, woven = [], []
    for _ in range(80):
        stain = draw_stain(StainJitter(scale=0.5, shift=0.1), rng)
        crops.append(mean_lab(apply_stain(image, stain)))
        woven.append(mean_lab(apply_stain(image[:, ::-1], stain)))
    crops, woven = np.array(crops), np.array(woven)
    assert min(stain_following(crops, woven).correlation) > 0.99
    assert max(map(abs, stain_following(crops, woven[::-1]).correlation)) < 0.4


def test_too_few_pairs_or_cases_are_refused():
    with pytest.raises(InputError, match="need at least 3 pairs"):
        stain_following(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(InputError, match="need one case per crop"):
        stain_following(np.zeros((5, 3)), np.zeros((5, 3)), ["a"])
