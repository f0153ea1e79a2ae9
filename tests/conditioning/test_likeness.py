"""The copy limit: a quantile of the scores of unrelated pairs."""

import numpy as np
import pytest

from histoloom.conditioning.likeness import CopyLimitConfig, copy_limit, unrelated_scores
from histoloom.errors import ConfigError, InputError


def test_the_copy_limit_is_a_quantile_of_pairs_of_different_cases(small_patches):
    counted = []

    class Counter:
        def advance(self, count: int = 1, note: str = "") -> None:
            counted.append(count)

    scores = unrelated_scores(small_patches, 60, seed=0, bar=Counter())
    assert sum(counted) == 60
    assert 0 < scores.size <= 60
    limit = copy_limit(small_patches, CopyLimitConfig(pairs=60, quantile=0.9))
    assert limit == np.quantile(scores[~np.isnan(scores)], 0.9)
    assert np.array_equal(scores, unrelated_scores(small_patches, 60, seed=0), equal_nan=True)


def test_there_is_no_limit_where_it_cannot_be_estimated(make_patches, small_patches):
    assert copy_limit(make_patches(cases=1), CopyLimitConfig()) is None
    assert copy_limit(small_patches, CopyLimitConfig(pairs=0)) is None
    with pytest.raises(InputError, match="two cases"):
        unrelated_scores(make_patches(cases=1), 10)
    CopyLimitConfig(pairs=10, quantile=0.9)  # just enough
    with pytest.raises(ConfigError, match="1 / \\(1 - quantile\\)"):
        CopyLimitConfig(pairs=10, quantile=0.98)
