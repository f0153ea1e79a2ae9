"""Does a crop reappear in what was generated from it? Copy scores, compared with those of unrelated real pairs.

See `histoloom.metrics.copy_score` for the score.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError


@dataclass(frozen=True)
class CopyThreshold:
    """A score that few unrelated pairs exceed, estimated from `n` of them, with its 95 % interval.

    `high` is infinite where `n` pairs are too few to bound it: that takes 368 for the 0.99 quantile.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class CopyRate:
    """Share of the n crops that could be judged and that reappear; `flat` more could not be judged.

    The interval adds the error of the threshold to that of the share.
    """

    rate: float
    low: float
    high: float
    n: int
    flat: int
    threshold: float

    @property
    def at_threshold(self) -> tuple[float, float]:
        """Wilson interval at this very threshold, to compare with another rate at the same one."""
        return wilson_interval(round(self.rate * self.n), self.n)


def copy_threshold(scores: Float[np.ndarray, " n"], quantile: float = 0.99, level: float = 0.95) -> CopyThreshold:
    """The score that unrelated pairs exceed with the chance 1 - `quantile`, on average over such estimates.

    The quantile is that of Weibull (1939) and Gumbel: of n pairs it is the one of rank quantile * (n + 1); its interval
    is by ranks, whatever the distribution (David & Nagaraja 2003, section 7.1). Pairs must be of different cases, and
    of crops of the same sizes as those to be judged, since a larger crop has more chances. nan is left out. Raises
    InputError for fewer pairs than the quantile needs.
    """
    judged = np.sort(scores[~np.isnan(scores)])
    needed = round(1 / (1 - quantile))
    if judged.size < needed:
        raise InputError(f"need at least {needed} unrelated pairs for the {quantile} quantile; got {judged.size}")
    value = float(np.quantile(judged, quantile, method="weibull"))
    below, above = _ranks(judged.size, quantile, (1 - level) / 2)
    low = float(judged[below]) if below >= 0 else -1.0
    high = float(judged[above]) if above < judged.size else float("inf")
    return CopyThreshold(value, min(low, value), max(high, value), judged.size)


def copy_rate(scores: Float[np.ndarray, " n"], threshold: CopyThreshold | float, level: float = 0.95) -> CopyRate:
    """Share of scores above the threshold; nan scores (flat crops) are counted apart.

    The error of the threshold and Wilson's of the share add up in squares, each side by itself (Zou & Donner 2008). A
    plain number is a threshold without error. Raises InputError where no score is a number.
    """
    if not isinstance(threshold, CopyThreshold):
        threshold = CopyThreshold(threshold, threshold, threshold, 0)
    judged = scores[~np.isnan(scores)]
    if judged.size == 0:
        raise InputError("all crops are too flat to search for, so nothing is known about copying")
    copied = int((judged > threshold.value).sum())
    rate = copied / judged.size
    low, high = wilson_interval(copied, judged.size, level)
    least, most = (float((judged > bound).mean()) for bound in (threshold.high, threshold.low))
    low, high = rate - np.hypot(rate - low, rate - least), rate + np.hypot(high - rate, most - rate)
    return CopyRate(
        rate, max(float(low), 0.0), min(float(high), 1.0), judged.size, scores.size - judged.size, threshold.value
    )


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); has a width at 0 and at n, where the normal interval has none."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z**2 / n
    center = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    # At the ends the bound is exact; rounding must not move it.
    return (0.0 if hits == 0 else float(center - half)), (1.0 if hits == n else float(center + half))


def _ranks(n: int, quantile: float, tail: float) -> tuple[int, int]:
    """Ranks (from 0) that bound a quantile: fewer than `tail` of all samples have it below or above them; -1 and n
    where no rank does."""
    # The number of scores below the true quantile is binomial.
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    logs = log_factorials[n] - log_factorials[k] - log_factorials[n - k]
    chances = np.cumsum(np.exp(logs + k * np.log(quantile) + (n - k) * np.log1p(-quantile)))
    below = int(np.searchsorted(chances, tail, side="right")) - 1
    above = int(np.searchsorted(chances, 1 - tail))
    return below, above
