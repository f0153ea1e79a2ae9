"""Does the stain follow the crop? Mean Lab colour of each crop against that of the region woven from it.

Lab is CIE 1976 under D65, 2 degrees, from sRGB (IEC 61966-2-1): L in 0..100, a and b about -100..100. Our own ten
lines, held against scikit-image by a test, so that a run needs no scikit-image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from histoloom.errors import InputError

SRGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
_BYTE = np.arange(256) / 255
_LINEAR = np.where(_BYTE > 0.04045, ((_BYTE + 0.055) / 1.055) ** 2.4, _BYTE / 12.92)


@dataclass(frozen=True)
class StainFollowing:
    """Pearson correlation of crop and woven region per channel (L, a, b), with bootstrap bounds, over n pairs."""

    correlation: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    n: int


def rgb_to_lab(image: UInt8[np.ndarray, "*b h w 3"]) -> Float[np.ndarray, "*b h w 3"]:
    """CIE Lab of sRGB bytes (D65, 2 degrees)."""
    xyz = _LINEAR[image] @ (SRGB_TO_XYZ / WHITE_D65[:, None]).T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def mean_lab(
    image: UInt8[np.ndarray, "h w 3"], region: Bool[np.ndarray, "h w"] | None = None
) -> Float[np.ndarray, " 3"]:
    """Mean Lab colour of the image, or of the pixels where `region` is true; raises InputError for an empty region."""
    if region is None:
        return rgb_to_lab(image).mean(axis=(0, 1))
    if not region.any():
        raise InputError("the region to be measured is empty; leave out crops whose type the map does not show")
    return rgb_to_lab(image[region][None])[0].mean(axis=0)


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
    return tuple(float(v) for v in values)
