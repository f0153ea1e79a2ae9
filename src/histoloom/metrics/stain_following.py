"""Does the stain follow the crop? Mean Lab color of each crop against that of the region woven from it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError


@dataclass(frozen=True)
class StainFollowing:
    """Pearson correlation of crop and woven region per channel (L, a, b), with bootstrap bounds, over n pairs."""

    correlation: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    n: int


def correlation(a: Float[np.ndarray, "n c"], b: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Pearson correlation per column; nan where a column does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(scale > 0, (a * b).sum(axis=0) / np.where(scale > 0, scale, 1), np.nan)


def stain_following(
    crop_lab: Float[np.ndarray, "n 3"],
    woven_lab: Float[np.ndarray, "n 3"],
    cases: list[str] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> StainFollowing:
    """Correlation of mean colours with a percentile bootstrap interval (Efron 1979).

    The bootstrap draws `cases` (of the crops) where they are given, since crops of one case share their stain, and
    pairs otherwise. Raises InputError for fewer than three pairs.
    """
    if cases is not None and len(cases) != len(crop_lab):
        raise InputError(f"{len(cases)} cases for {len(crop_lab)} crops; give one case per crop")
    if len(crop_lab) < 3:
        raise InputError(f"{len(crop_lab)} pairs are too few for a correlation; weave at least three patches")
    of_case = np.unique(np.arange(len(crop_lab)) if cases is None else cases, return_inverse=True)[1]
    num_cases = of_case.max() + 1
    picks = np.random.default_rng(seed).multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=draws)
    drawn = _weighted_correlation(crop_lab, woven_lab, picks[:, of_case])
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return StainFollowing(_triple(correlation(crop_lab, woven_lab)), _triple(low), _triple(high), len(crop_lab))


def _weighted_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlation per draw `d` and channel, each pair counted `weights` (`d n`) times: moments by one product each."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    mean_a, mean_b = weights @ a, weights @ b
    variances = (weights @ a**2 - mean_a**2) * (weights @ b**2 - mean_b**2)
    covariance = weights @ (a * b) - mean_a * mean_b
    return np.where(variances > 0, covariance / np.sqrt(np.where(variances > 0, variances, 1)), np.nan)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
