"""The area under the ROC curve (AUC) of readers, and its variance with readers and cases random, by U-statistics.

The one-shot estimator of Gallas (2006, doi 10.1016/j.acra.2005.11.030), as FDA's iMRMC computes it. A reader, a
negative and a positive case make one success value; its second moments over pairs that share a reader, a negative or a
positive case give the variance. Pairs of reader and case that were not scored have weight 0.
"""

from dataclasses import dataclass
from itertools import combinations
from math import nan

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from histoloom.errors import InputError

READER = 0  # axis of success values; those of cases follow


@dataclass(frozen=True)
class Estimate:
    """A figure with its variance over random readers and cases, and Student's degrees of freedom."""

    value: float
    variance: float  # nan where the data do not show it
    freedom: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval by Student's t; degrees of freedom are rounded down, as in iMRMC. Both ends are nan where
        the variance is not known."""
        error = self.error
        half = float(stats.t.ppf((1 + level) / 2, self._whole_freedom) * error) if error == error else nan
        return self.value - half, self.value + half

    def p_value(self, chance: float) -> float:
        """Two-sided p of the hypothesis that the figure is `chance`."""
        if not self.error:
            return nan
        t = abs(self.value - chance) / self.error
        return float(2 * stats.t.sf(t, self._whole_freedom)) if t == t else nan

    @property
    def _whole_freedom(self) -> float:
        return max(float(np.floor(self.freedom)), 1.0)

    @property
    def error(self) -> float:
        """Standard error."""
        return self.variance**0.5 if self.variance > 0 else nan


def successes(scores: Float[np.ndarray, "r n"], positive: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "r n0 n1"]:
    """1 where a reader scored the positive case above the negative case, 0.5 for ties; nan where a score is nan.

    Raises InputError without a negative or a positive case.
    """
    if positive.all() or not positive.any():
        raise InputError(f"need cases of both kinds; got {positive.sum()} positive of {len(positive)}")
    negatives, positives = scores[:, ~positive, None], scores[:, None, positive]
    won = (positives > negatives) + 0.5 * (positives == negatives)
    return np.where(np.isnan(positives + negatives), nan, won)


def reader_estimates(success: Float[np.ndarray, "r *cases"]) -> list[Estimate]:
    """The figure of each reader alone, with cases random; nan for a reader who scored nothing that can be compared."""
    return [_of_reader(of_reader) for of_reader in success]


def one_shot(success: Float[np.ndarray, "r *cases"], biased: bool = False) -> Estimate:
    """Mean success with readers and cases random; for a difference of two modalities give a difference of successes.

    Successes of pairs of cases have three axes; the share of right answers has two, readers and cases. `biased` takes
    moments with replacement (iMRMC's MLE), whose variance is never negative; so does a variance that is not positive
    without it. Degrees of freedom after Satterthwaite from the parts of the variance that readers, negative and
    positive cases take part in (iMRMC's BDG). Raises InputError for fewer than 2 readers, or 2 cases of a kind.
    """
    check_sizes(success)
    value, parts = variance_parts(success)
    variance = sum(parts.values())
    if biased or not variance > 0:
        variance = sum(variance_parts(success, biased=True)[1].values())
    shares = [sum(part for axes, part in parts.items() if axis in axes) ** 2 for axis in range(success.ndim)]
    below = sum(share / (size - 1) for share, size in zip(shares, success.shape, strict=True))
    return Estimate(value, variance, variance**2 / below if below else nan)


def check_sizes(success: Float[np.ndarray, "r *cases"]) -> None:
    """Raise InputError for fewer than 2 readers, or 2 cases of a kind."""
    if min(success.shape) < 2:
        readers, *cases = success.shape
        raise InputError(
            f"need 2 readers and 2 cases of each kind; got {readers} readers and {' and '.join(map(str, cases))} cases"
        )


def variance_parts(
    success: Float[np.ndarray, "*axes"], biased: bool = False
) -> tuple[float, dict[tuple[int, ...], float]]:
    """The mean success, and the parts of its variance by the axes that two successes share."""
    weights = (~np.isnan(success)).astype(np.float64)
    filled = np.nan_to_num(success)
    subsets = [subset for size in range(success.ndim + 1) for subset in combinations(range(success.ndim), size)]
    products = {subset: _sharing(filled, subset) for subset in subsets}
    pairs = {subset: _sharing(weights, subset) for subset in subsets}
    total = pairs[()]
    if not total:
        return nan, {subset: nan for subset in subsets if subset}
    moments = {}
    for subset in subsets:
        if biased:
            product, number = products[subset], pairs[subset]
        else:
            product, number = _exactly(products, subset), _exactly(pairs, subset)
        moments[subset] = product / number if number > 0.5 else nan
    parts = {}
    for subset in subsets[1:]:
        below = [other for other in subsets if set(other) <= set(subset)]
        component = sum((-1) ** (len(subset) - len(other)) * moments[other] for other in below)
        parts[subset] = pairs[subset] / total * component
    return float(filled.sum() / weights.sum()), parts


def _of_reader(success: np.ndarray) -> Estimate:
    value, parts = variance_parts(success)
    sizes = [len(np.unique(places)) for places in np.nonzero(~np.isnan(success))]
    return Estimate(value, sum(parts.values()), float(min(sizes) - 1))


def _sharing(values: np.ndarray, subset: tuple[int, ...]) -> float:
    """Sum of products over pairs of entries that share at least the axes of `subset`."""
    others = tuple(axis for axis in range(values.ndim) if axis not in subset)
    return float(np.square(values.sum(axis=others)).sum())


def _exactly(sums: dict[tuple[int, ...], float], subset: tuple[int, ...]) -> float:
    """Sum over pairs that share the axes of `subset` and no other."""
    return sum((-1) ** (len(upper) - len(subset)) * total for upper, total in sums.items() if set(upper) >= set(subset))
