"""Accuracy, agreement, and the answer of a study."""

from math import isnan

import numpy as np
import pytest
from scipy.stats import beta

from histoloom.readers import Answer, answer, exact_share, fleiss_kappa, krippendorff_alpha, reader_shares


def test_exact_interval_has_the_quantiles_of_beta_distributions():
    share = exact_share(np.arange(20) < 15)
    assert (share.count, share.n, share.value) == (15, 20, 0.75)
    assert (share.low, share.high) == pytest.approx((beta.ppf(0.025, 15, 6), beta.ppf(0.975, 16, 5)))
    assert isnan(exact_share(np.zeros(0, bool)).value)


def test_sensitivity_counts_positive_cases_and_specificity_negative_ones():
    shares = reader_shares(np.array([True, True, False, False, True]), np.array([True, True, True, False, False]))
    assert {name: (share.count, share.n) for name, share in shares.items()} == {
        "accuracy": (3, 5),
        "sensitivity": (2, 3),
        "specificity": (1, 2),
    }


def test_kappa_is_that_of_two_readers_by_hand():
    called = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    shared, chance = 3 / 4, (3 / 8) ** 2 + (5 / 8) ** 2
    assert fleiss_kappa(called) == pytest.approx((shared - chance) / (1 - chance))
    assert isnan(fleiss_kappa(np.ones((2, 4), bool)))


def test_alpha_is_1_for_readers_of_one_mind_and_skips_missing_scores():
    scores = np.array([[1, 2, 3, 6, np.nan], [1, 2, 3, 6, 4]], float)
    assert krippendorff_alpha(scores) == pytest.approx(1)
    assert krippendorff_alpha(np.array([[1, 2, 3, 4], [4, 3, 2, 1]], float)) < 0
    assert isnan(krippendorff_alpha(np.ones((2, 3))))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.45, 0.59), Answer.CANNOT),
        ((0.45, 0.60), Answer.OPEN),  # p > 0.05 alone decides nothing
        ((0.51, 0.59), Answer.CANNOT),
        ((0.55, 0.70), Answer.CAN),
        ((0.30, 0.45), Answer.REVERSED),
        ((float("nan"), float("nan")), Answer.OPEN),
    ],
)
def test_only_an_interval_below_the_margin_says_that_readers_cannot_tell(interval, expected):
    assert answer(interval, 0.60) is expected
