"""Copy rates: the threshold, the share above it, and its interval against Wilson's own equation."""

from statistics import NormalDist

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.copying import copy_rate, copy_threshold, wilson_interval


def test_the_threshold_is_the_quantile_of_the_pairs_that_could_be_judged():
    scores = np.append(np.random.default_rng(0).permutation(np.linspace(0, 1, 101)), np.nan)
    assert copy_threshold(scores).value == pytest.approx(0.9998)  # of rank 0.99 * 102
    with pytest.raises(InputError, match=r"need at least 100 unrelated pairs for the 0\.99 quantile; got 50"):
        copy_threshold(np.linspace(0, 1, 50))


def test_the_rate_counts_scores_above_the_threshold_and_flat_crops_apart():
    found = copy_rate(np.array([0.2, 0.9, 0.5, np.nan, 0.95]), threshold=0.5)
    assert (found.rate, found.n, found.flat) == (0.5, 4, 1)
    assert (found.low, found.high) == pytest.approx(wilson_interval(2, 4))
    assert found.at_threshold == wilson_interval(2, 4)
    with pytest.raises(InputError, match="too flat"):
        copy_rate(np.array([np.nan]), threshold=0.5)


def test_the_wilson_interval_solves_its_own_equation():
    # The bounds p are where |hits / n - p| equals z standard errors of p (Wilson 1927).
    for hits, n in ((1, 10), (8, 200), (150, 200)):
        for bound in wilson_interval(hits, n):
            assert abs(hits / n - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / n), rel=1e-5)
    assert wilson_interval(0, 200) == (0.0, pytest.approx(3.841459 / 203.841459))
    assert wilson_interval(200, 200)[1] == 1.0


def test_unrelated_pairs_exceed_the_threshold_as_often_as_is_said_and_its_interval_holds_the_true_one():
    rng, normal = np.random.default_rng(0), NormalDist()
    exceeded, held = [], 0
    for _ in range(1000):
        threshold = copy_threshold(rng.standard_normal(400))
        exceeded.append(1 - normal.cdf(threshold.value))
        held += threshold.low <= normal.inv_cdf(0.99) <= threshold.high
    assert np.mean(exceeded) == pytest.approx(0.01, abs=0.0006)
    assert held / 1000 >= 0.94


def test_too_few_pairs_leave_the_threshold_without_an_upper_end_and_the_rate_without_a_lower_one():
    few, enough = (copy_threshold(np.random.default_rng(0).standard_normal(n)) for n in (367, 368))
    assert few.high == np.inf > enough.high
    assert copy_rate(np.full(50, 9.0), few).low == 0
    assert copy_rate(np.full(50, 9.0), enough).low == pytest.approx(wilson_interval(50, 50)[0])


def test_the_error_of_the_threshold_is_in_the_interval_of_the_rate():
    rng, normal = np.random.default_rng(1), NormalDist()
    for share in (0.05, 0.3, 0.8):
        shift, covered, without = normal.inv_cdf(0.99) - normal.inv_cdf(1 - share), 0, 0
        for _ in range(500):
            scores, threshold = rng.standard_normal(100) + shift, copy_threshold(rng.standard_normal(400))
            found, bare = copy_rate(scores, threshold), copy_rate(scores, threshold.value)
            covered += found.low <= share <= found.high
            without += bare.low <= share <= bare.high
            assert found.low <= bare.low <= bare.rate <= bare.high <= found.high
        assert covered / 500 >= 0.945 > without / 500
