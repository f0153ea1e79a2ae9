"""Does a crop reappear in what was woven from it? Scores of likeness, read against those of real unrelated pairs.

See `histoloom.conditioning.likeness` for the score.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError


@dataclass(frozen=True)
class CopyRate:
    """Share of crops that reappear, with a Wilson interval, over the n crops that could be judged; `flat` could not."""

    rate: float
    low: float
    high: float
    n: int
    flat: int
    threshold: float


def copy_threshold(scores: Float[np.ndarray, " n"], quantile: float = 0.99) -> float:
    """The score that `quantile` of real unrelated pairs stay below.

    Pairs must be of different cases, and made with crops of the same sizes as those to be judged, since a larger crop
    has more chances. nan is left out. Raises InputError for fewer pairs than the quantile needs.
    """
    judged = scores[~np.isnan(scores)]
    needed = round(1 / (1 - quantile))
    if judged.size < needed:
        raise InputError(
            f"{judged.size} unrelated pairs are too few for the {quantile} quantile; give {needed} or more"
        )
    return float(np.quantile(judged, quantile))


def copy_rate(scores: Float[np.ndarray, " n"], threshold: float, level: float = 0.95) -> CopyRate:
    """Share of scores above `threshold`; nan scores (flat crops) are counted apart."""
    judged = scores[~np.isnan(scores)]
    if judged.size == 0:
        raise InputError("every crop is too flat to be searched for; nothing is known about copying")
    copied = int((judged > threshold).sum())
    low, high = wilson_interval(copied, judged.size, level)
    return CopyRate(copied / judged.size, low, high, judged.size, scores.size - judged.size, threshold)


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); honest at 0 and n, where the normal one has no width."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    # At the ends the bound is exact; rounding must not move it.
    return (0.0 if hits == 0 else float(centre - half)), (1.0 if hits == n else float(centre + half))
