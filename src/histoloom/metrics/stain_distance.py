"""Do synthetic images have the stain of real ones? Distributions of mean color, in dyes (HED) and as seen (Lab)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from histoloom.errors import InputError
from histoloom.metrics.lab import rgb_to_lab
from histoloom.stain import rgb_to_hed

HED = ("hematoxylin", "eosin", "residual")  # OD units
LAB = ("L", "a", "b")  # CIE units; a difference of about 2 is just visible


@dataclass(frozen=True)
class StainDistance:
    """1-Wasserstein distance of the mean colors of images, per channel, and drift: the shift of their mean."""

    hed: tuple[float, float, float]
    lab: tuple[float, float, float]
    drift: tuple[float, float, float]  # Lab, fake minus real
    drift_delta_e: float  # its length, CIE 1976


def stain_means(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 6"]:
    """Mean hematoxylin, eosin and residual (OD), L, a and b of each image."""
    means = [np.concatenate([rgb_to_hed(i).mean(axis=(0, 1)), rgb_to_lab(i).mean(axis=(0, 1))]) for i in images]
    return np.asarray(means, np.float64).reshape(-1, 6)


def stain_distance(real_means: Float[np.ndarray, "n 6"], fake_means: Float[np.ndarray, "m 6"]) -> StainDistance:
    """Distance of two sets of `stain_means`; the number of images may differ. Raises InputError for an empty side."""
    if not (len(real_means) and len(fake_means)):
        raise InputError("need at least 1 image on each side to compare stain")
    apart = [wasserstein(real_means[:, c], fake_means[:, c]) for c in range(6)]
    drift = (fake_means.mean(axis=0) - real_means.mean(axis=0))[3:]
    hed, lab = (apart[0], apart[1], apart[2]), (apart[3], apart[4], apart[5])
    return StainDistance(hed, lab, (float(drift[0]), float(drift[1]), float(drift[2])), float(np.linalg.norm(drift)))


def wasserstein(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float:
    """1-Wasserstein distance of two samples of numbers: the area between their distributions (Vallender 1974)."""
    places = np.sort(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(x), places[:-1], side="right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]) @ np.diff(places))
