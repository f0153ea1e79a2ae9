"""Copy rates: the threshold, the share above it, and its interval against Wilson's own equation."""

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.copying import copy_rate, copy_threshold, wilson_interval


def test_the_threshold_is_the_quantile_of_the_pairs_that_could_be_judged():
    scores = np.append(np.random.default_rng(0).permutation(np.linspace(0, 1, 101)), np.nan)
    assert copy_threshold(scores) == pytest.approx(0.99)
    with pytest.raises(InputError, match="give 100 or more"):
        copy_threshold(np.linspace(0, 1, 50))


def test_the_rate_counts_scores_above_the_threshold_and_flat_crops_apart():
    found = copy_rate(np.array([0.2, 0.9, 0.5, np.nan, 0.95]), threshold=0.5)
    assert (found.rate, found.n, found.flat) == (0.5, 4, 1)
    assert (found.low, found.high) == wilson_interval(2, 4)
    with pytest.raises(InputError, match="too flat"):
        copy_rate(np.array([np.nan]), threshold=0.5)


def test_the_wilson_interval_solves_its_own_equation():
    # The bounds p are where |hits / n - p| equals z standard errors of p (Wilson 1927).
    for hits, n in ((1, 10), (8, 200), (150, 200)):
        for bound in wilson_interval(hits, n):
            assert abs(hits / n - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / n), rel=1e-5)
    assert wilson_interval(0, 200) == (0.0, pytest.approx(3.841459 / 203.841459))
    assert wilson_interval(200, 200)[1] == 1.0
