"""Fréchet distance of two clouds of features, fast, and its extrapolation to infinitely many images.

|mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson & Landau 1982; Heusel et al. 2017, "Experiments"). The matrix
root is never formed. Its trace is the sum of the roots of the eigenvalues of C1 C2, which are real: those of a smaller
symmetric matrix where a side has no more images than features, and of a symmetric pair where both have more.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError, MissingExtraError
from histoloom.metrics.features import check_features


@dataclass(frozen=True)
class Extrapolated:
    """Distance at infinite n, the slope over 1/n, and the points that the line was fitted to."""

    distance: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_distance(real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d"]) -> float:
    """Squared 2-Wasserstein distance of the Gaussians fitted to both sides, covariances divided by n - 1 (Dowson &
    Landau 1982; Heusel et al. 2017, "Experiments").

    In the square of the features' unit, double precision. Biased upwards by about 1/n: read it beside real against real
    of the same n. Raises InputError for nan, other dimensions, or fewer than two rows.
    """
    check_features(real_features, fake_features)
    real_mean, real_rows = _mean_and_rows(real_features)
    fake_mean, fake_rows = _mean_and_rows(fake_features)
    gap = np.square(real_mean - fake_mean).sum()
    spread = np.vdot(real_rows, real_rows) + np.vdot(fake_rows, fake_rows)
    return max(float(gap + spread - 2 * _trace_of_root(real_rows, fake_rows)), 0.0)


def frechet_at_infinity(
    real_features: Float[np.ndarray, "n d"],
    fake_features: Float[np.ndarray, "m d"],
    num_sizes: int = 15,
    seed: int = 0,
) -> Extrapolated:
    """Where the distance goes as n grows: the intercept of a line over 1/n (FID-infinity of Chong & Forsyth 2020).

    Both sides are drawn without replacement in `num_sizes` equal sizes from half of the smaller side (or d + 1, where
    that is more) up to all of it. Raises InputError where the smaller side is not larger than d: then the distance is
    no line over 1/n.
    """
    check_features(real_features, fake_features)
    largest, dimensions = min(len(real_features), len(fake_features)), real_features.shape[1]
    smallest = max(largest // 2, dimensions + 1)
    if smallest >= largest:
        raise InputError(
            f"{largest} images a side cannot be extrapolated at {dimensions} dimensions; more than {dimensions + 1} "
            "are needed"
        )
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(smallest, largest, num_sizes).round().astype(int))
    distances = [
        frechet_distance(real_features[rng.permutation(len(real_features))[:n]],
                         fake_features[rng.permutation(len(fake_features))[:n]])
        for n in sizes
    ]  # fmt: skip
    slope, intercept = np.polyfit(1 / sizes, distances, 1)
    return Extrapolated(float(intercept), float(slope), tuple(map(int, sizes)), tuple(distances))


def _mean_and_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and rows F with F^T F = covariance."""
    rows = np.asarray(features, np.float64)
    mean = rows.mean(axis=0)
    return mean, (rows - mean) / (len(rows) - 1) ** 0.5


def _trace_of_root(a: np.ndarray, b: np.ndarray) -> float:
    """tr (C1 C2)^(1/2) of C1 = a^T a, C2 = b^T b; NumPy makes such a product in half the time of torch."""
    try:
        from scipy import linalg
    except ImportError:
        raise MissingExtraError("scipy", "evaluate") from None
    few, many = sorted((a, b), key=len)
    if len(few) > few.shape[1]:
        try:
            values = linalg.eigvalsh(few.T @ few, many.T @ many, type=2, driver="gv")
            return float(np.sqrt(values.clip(min=0)).sum())
        except linalg.LinAlgError:  # features that hang together, so that no Cholesky factor is found
            few = np.linalg.qr(few, mode="r")
    product = few @ many.T
    return float(np.sqrt(linalg.eigvalsh(product @ product.T).clip(min=0)).sum())
