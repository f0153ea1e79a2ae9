"""Does the stain follow the crop? Mean Lab color of each crop against that of the region generated from it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError
from histoloom.metrics.intervals import Cases, statistic_spread, t_interval


@dataclass(frozen=True)
class StainFollowing:
    """Pearson correlation of crop and generated region per channel (L, a, b), with 95 % bounds, over n pairs."""

    correlation: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    n: int


def correlation(a: Float[np.ndarray, "n c"], b: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Pearson correlation per column; nan where a column does not vary."""
    varies = (np.ptp(a, axis=0) > 0) & (np.ptp(b, axis=0) > 0)  # a constant less its rounded mean is not 0
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(varies, (a * b).sum(axis=0) / np.where(varies, scale, 1), np.nan)


def stain_following(
    crop_lab: Float[np.ndarray, "n 3"],
    woven_lab: Float[np.ndarray, "n 3"],
    cases: Cases | None = None,
    level: float = 0.95,
) -> StainFollowing:
    """Correlation of mean colors; the interval is that of Fisher's z, jackknifed over cases.

    `cases` are those of the crops, since crops of one case share their stain; without them each pair is a case. The
    bounds are nan for fewer than MIN_CASES cases. Raises InputError for fewer than three pairs.
    """
    if cases is not None and len(cases) != len(crop_lab):
        raise InputError(f"need one case per crop; got {len(cases)} cases for {len(crop_lab)} crops")
    if len(crop_lab) < 3:
        raise InputError(f"need at least 3 pairs for a correlation; got {len(crop_lab)}")
    cases = [str(i) for i in range(len(crop_lab))] if cases is None else cases
    found = correlation(crop_lab, woven_lab)
    bounds = []
    for channel, value in enumerate(found):

        def z(at: np.ndarray, channel: int = channel) -> float:
            part = correlation(crop_lab[at, channel, None], woven_lab[at, channel, None])
            return float(_fisher(part[0]))

        bounds.append(np.tanh(t_interval(float(_fisher(value)), statistic_spread(z, cases), level)))
    low, high = np.transpose(bounds)
    return StainFollowing(_triple(found), _triple(low), _triple(high), len(crop_lab))


def _fisher(value: float) -> float:
    return np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
