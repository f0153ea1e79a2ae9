"""How certain is a figure? Intervals over cases, since patches of one case are not independent.

The jackknife leaves out one case at a time (or one of GROUPS groups of cases) and sees how far the figure moves (Tukey
1958; Shao & Tu 1995, section 2.3). The interval has the quantiles of Student's t with one degree of freedom less than
there are cases, because few cases tell their own spread badly; without that a 95 % interval over 5 cases covers 83 %.
`python benchmarks/coverage.py` simulates what these intervals cover. Fewer than MIN_CASES cases give no interval:
both ends are nan.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histoloom.errors import InputError, MissingExtraError

MIN_CASES = 5  # fewer cases give no interval
FEW_CASES = 20  # below it an interval is rough
GROUPS = 25  # of cases, at most, that the jackknife leaves out one after the other
PRIOR = 0.5  # degrees of freedom; see `share_interval`
Cases = Sequence | np.ndarray  # the name of the case of each image
NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Spread:
    """Standard error of a figure, and the degrees of freedom that it is known with."""

    error: float
    freedom: float

    def plus(self, *others: "Spread") -> "Spread":
        """The spread of a sum of independent parts, nan where that of a part is; degrees of freedom by Satterthwaite
        (1946)."""
        if any(np.isnan(part.error) for part in (self, *others)):
            return Spread(float("nan"), 0.0)
        parts = [part for part in (self, *others) if part.error > 0]
        variance = sum(part.error**2 for part in parts)
        if not parts:
            return self
        return Spread(variance**0.5, variance**2 / sum(part.error**4 / part.freedom for part in parts))


def t_interval(value: float, spread: Spread, level: float = 0.95) -> tuple[float, float]:
    """Interval of a figure by Student's t; nan where the spread is unknown."""
    if not np.isfinite(spread.error):
        return NO_INTERVAL
    half = _student(spread.freedom, level) * spread.error
    return value - half, value + half


def positive_interval(value: float, spread: Spread, level: float = 0.95) -> tuple[float, float]:
    """Interval of a figure that is never negative and whose values are skewed: Student's t of its logarithm."""
    if value <= 0 or not np.isfinite(spread.error):
        return t_interval(value, spread, level)
    factor = float(np.exp(min(_student(spread.freedom, level) * spread.error / value, 700.0)))
    return value / factor, value * factor


def bounded_interval(value: float, spread: Spread, level: float = 0.95) -> tuple[float, float]:
    """Interval of a figure between 0 and 1, such as IoU: Student's t of its logit."""
    if not 0 < value < 1 or not np.isfinite(spread.error):
        return t_interval(value, spread, level)
    odds = value / (1 - value)
    factor = float(np.exp(min(_student(spread.freedom, level) * spread.error / (value * (1 - value)), 700.0)))
    return odds / (odds + factor), odds * factor / (1 + odds * factor)


def share_interval(value: float, spread: Spread, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share in [0, 1] of `n` dependent images: Wilson's (1927) with the number of independent images
    that has this spread, and the quantile of Student's t (Dean & Pagano 2015).

    Few cases near 0 or 1 look more alike than they are, so the spread is drawn toward that of cases whose images are
    all alike: by PRIOR degrees of freedom at 0 and 1, by none at 0.5 (`benchmarks/coverage.py`). The interval stays
    within [0, 1] and has a width at 0 and at 1.
    """
    if not np.isfinite(spread.error):
        return NO_INTERVAL
    cases, prior, alike = spread.freedom + 1, PRIOR * (2 * value - 1) ** 4, value * (1 - value)
    relative = spread.error**2 * cases / alike if alike > 0 else 0.0  # 1 where the images of a case are all alike
    drawn = (spread.freedom * relative + prior) / (spread.freedom + prior)
    effective = min(cases / max(drawn, 1e-12), float(n))
    square = _student(spread.freedom, level) ** 2 / effective
    center = (value + square / 2) / (1 + square)
    half = np.sqrt(square * value * (1 - value) + square**2 / 4) / (1 + square)
    return (0.0 if value <= 0 else float(center - half)), (1.0 if value >= 1 else float(center + half))


def mean_interval(values: Float[np.ndarray, " n"], cases: Cases, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of one value per image, over cases. Values of 0 and 1 are taken as a share.

    Both ends are nan for fewer than MIN_CASES cases. Raises InputError unless there is one case per value.
    """
    values = np.asarray(values, np.float64)
    spread = mean_spread(values, cases)
    if np.isnan(spread.error):
        return NO_INTERVAL
    if np.isin(values, (0, 1)).all():  # Wilson's interval is wide enough without Kish's correction
        return share_interval(float(values.mean()), Spread(spread.error, len(set(cases)) - 1.0), len(values), level)
    return t_interval(float(values.mean()), spread, level)


def mean_spread(values: Float[np.ndarray, " n"], cases: Cases) -> Spread:
    """Spread of the mean of one value per image, over cases."""
    _check(len(values), cases)
    of_case = _numbers(cases)
    sizes = np.bincount(of_case)
    if len(sizes) < MIN_CASES:
        return Spread(float("nan"), 0.0)
    sums = np.bincount(of_case, values)
    return _jackknife((sums.sum() - sums) / (sizes.sum() - sizes), sizes)


def median_interval(
    values: Float[np.ndarray, " n"], cases: Cases, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the median of one value per image, over cases drawn with replacement (Efron 1979).

    The jackknife fails for medians. The scatter of the draws is enlarged by G / (G - 1) for G cases, and the interval
    has the quantiles of Student's t. Both ends are nan for fewer than MIN_CASES cases. Raises InputError unless there
    is one case per value.
    """
    _check(len(values), cases)
    number = len(set(cases))
    if number < MIN_CASES:
        return NO_INTERVAL
    drawn = [np.median(np.repeat(values, times)) for times in case_counts(cases, draws, seed)]
    error = float(np.std(drawn, ddof=1)) * (number / (number - 1)) ** 0.5
    return t_interval(float(np.median(values)), Spread(error, _freedom(np.bincount(_numbers(cases)))), level)


def statistic_interval(
    statistic: Callable[..., float], *sides: Cases, level: float = 0.95, groups: int = GROUPS, seed: int = 0
) -> tuple[float, float]:
    """Interval of a statistic of several sets of images, whose cases are independent of each other.

    `statistic` takes one array of indices per side; `sides` are the cases of the images of each. Both ends are nan
    where a side has fewer than MIN_CASES cases.
    """
    whole = statistic(*(np.arange(len(cases)) for cases in sides))
    return t_interval(whole, statistic_spread(statistic, *sides, groups=groups, seed=seed), level)


def statistic_spread(statistic: Callable[..., float], *sides: Cases, groups: int = GROUPS, seed: int = 0) -> Spread:
    """Spread of a statistic of several sets of images, each jackknifed over its cases while the others stay whole."""
    if min(len(set(cases)) for cases in sides) < MIN_CASES:
        return Spread(float("nan"), 0.0)
    everything = [np.arange(len(cases)) for cases in sides]
    spreads = []
    for side, cases in enumerate(sides):
        of_group = case_groups(cases, groups, seed)
        replicates = []
        for group in range(of_group.max() + 1):
            left = everything.copy()
            left[side] = np.flatnonzero(of_group != group)
            replicates.append(statistic(*left))
        spreads.append(_jackknife(np.asarray(replicates), np.bincount(of_group)))
    return spreads[0].plus(*spreads[1:])


def two_factor_spread(
    estimates: Float[np.ndarray, " s"], left_out: Float[np.ndarray, "s c"], sizes: Int[np.ndarray, " c"] | None = None
) -> Spread:
    """Spread of the mean of one figure per reader (or training seed) over random readers and random cases.

    `estimates` holds the figure of each reader on all cases, `left_out` the figure without each case in turn; for a
    difference of two methods by the same readers give differences. Readers and cases add up as in the analysis of
    Obuchowski & Rockette (1995) with the degrees of freedom of Satterthwaite, a little on the safe side: what readers
    and cases share counts in both. One reader alone shows no spread of readers, so that of the cases is all there is.
    `sizes` are the images of the cases.
    """
    over_cases = _jackknife(left_out.mean(axis=0), np.ones(left_out.shape[1]) if sizes is None else sizes)
    return over_cases.plus(reader_spread(estimates))


def reader_spread(estimates: Float[np.ndarray, " s"]) -> Spread:
    """Spread of the mean of one figure per reader (or training seed) over random readers; 0 for one reader."""
    number = len(estimates)
    if number < 2:
        return Spread(0.0, 1.0)
    return Spread(float(np.std(estimates, ddof=1)) / number**0.5, number - 1.0)


def case_groups(cases: Cases, most: int = GROUPS, seed: int = 0) -> Int[np.ndarray, " n"]:
    """The group of each image: a case of its own, or of more than `most` cases one of `most` random groups of cases
    with about equally many images."""
    of_case = _numbers(cases)
    sizes = np.bincount(of_case)
    if len(sizes) <= most:
        return of_case
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    group, held = np.zeros(len(sizes), np.int64), np.zeros(most)
    for case in order:
        group[case] = held.argmin()
        held[group[case]] += sizes[case]
    return group[of_case]


def case_counts(cases: Cases, draws: int, seed: int) -> Int[np.ndarray, "draws n"]:
    """How often each image counts in each bootstrap draw: as often as its case was drawn (Efron 1979)."""
    of_case = _numbers(cases)
    number = of_case.max() + 1
    times = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=draws)
    return times[:, of_case]


def _jackknife(replicates: np.ndarray, sizes: np.ndarray) -> Spread:
    """Spread from the figure without each group in turn; `sizes` are the images of the groups."""
    number = len(replicates)
    error = np.sqrt((number - 1) / number * np.square(replicates - replicates.mean()).sum())
    return Spread(float(error), _freedom(sizes))


def _freedom(sizes: np.ndarray) -> float:
    """Degrees of freedom: one less than the cases of equal size that would be worth as much (Kish 1965)."""
    return max(float(sizes.sum() ** 2 / np.square(sizes).sum()) - 1, 1.0)


def _student(freedom: float, level: float) -> float:
    """Two-sided quantile of Student's t."""
    try:
        from scipy.special import stdtrit
    except ImportError:
        raise MissingExtraError("scipy", "evaluate") from None
    return float(stdtrit(freedom, (1 + level) / 2))


def _numbers(cases: Cases) -> Int[np.ndarray, " n"]:
    return np.unique(np.asarray(cases), return_inverse=True)[1]


def _check(n: int, cases: Cases) -> None:
    if len(cases) != n:
        raise InputError(f"need one case per image; got {len(cases)} cases for {n} images")
