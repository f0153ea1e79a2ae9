"""How sure is a figure? Cases are drawn with replacement, since patches of one case are not independent."""

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

from histoloom.errors import InputError


def case_counts(cases: Sequence[str], draws: int, seed: int) -> Int[np.ndarray, "draws n"]:
    """How often each image counts in each bootstrap draw: as often as its case was drawn (Efron 1979)."""
    of_case = np.unique(np.asarray(cases), return_inverse=True)[1]
    number = of_case.max() + 1
    times = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=draws)
    return times[:, of_case]


def mean_interval(
    values: Float[np.ndarray, " n"], cases: Sequence[str], level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of one value per image, drawn over cases.

    Raises InputError unless there is one case per value.
    """
    _check(len(values), cases)
    counts = case_counts(cases, draws, seed)
    return _quantiles((counts @ values) / counts.sum(axis=1), level)


def median_interval(
    values: Float[np.ndarray, " n"], cases: Sequence[str], level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the median of one value per image, drawn over cases.

    Raises InputError unless there is one case per value.
    """
    _check(len(values), cases)
    return _quantiles([np.median(np.repeat(values, times)) for times in case_counts(cases, draws, seed)], level)


def statistic_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    real_cases: Sequence[str],
    fake_cases: Sequence[str],
    level: float = 0.95,
    draws: int = 100,
    seed: int = 0,
) -> tuple[float, float]:
    """Normal interval of `statistic(real_indices, fake_indices)`, cases of both sides drawn anew each time.

    Centred on the statistic of all images, as wide as the draws scatter: repeated images push a distance up, so the
    draws' own quantiles would often leave out the estimate (Davison & Hinkley 1997, "Basic confidence limit methods").
    """
    whole = statistic(np.arange(len(real_cases)), np.arange(len(fake_cases)))
    drawn = [statistic(r, f) for r, f in _paired_draws(real_cases, fake_cases, draws, seed)]
    half = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(drawn, ddof=1))
    return whole - half, whole + half


def halves_by_case(cases: Sequence[str], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two sets of about equal size that share no case: the two sides of real against real.

    Cases come in random order, largest share first to the emptier side. Raises InputError for a single case.
    """
    names, of_case, sizes = np.unique(np.asarray(cases), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError("all real images are of one case; a floor of real against real needs two cases at least")
    side = np.zeros(len(names), int)
    held = [0, 0]
    for case in np.random.default_rng(seed).permutation(len(names)):
        side[case] = int(held[1] < held[0])
        held[side[case]] += int(sizes[case])
    return np.flatnonzero(side[of_case] == 0), np.flatnonzero(side[of_case] == 1)


def _paired_draws(
    real_cases: Sequence[str], fake_cases: Sequence[str], draws: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    counts = [case_counts(cases, draws, seed + side) for side, cases in enumerate((real_cases, fake_cases))]
    for real, fake in zip(*counts, strict=True):
        yield np.repeat(np.arange(len(real)), real), np.repeat(np.arange(len(fake)), fake)


def _quantiles(drawn: Sequence[float] | np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(n: int, cases: Sequence[str]) -> None:
    if len(cases) != n:
        raise InputError(f"{len(cases)} cases for {n} images; give one case per image")
