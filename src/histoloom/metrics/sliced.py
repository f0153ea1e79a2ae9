"""The sliced Wasserstein distance of two clouds of features, which small samples estimate well."""

import numpy as np
from jaxtyping import Float

from histoloom.metrics.features import check_features

DIRECTIONS = 256


def mind(
    real_features: Float[np.ndarray, "n d"],
    fake_features: Float[np.ndarray, "m d"],
    directions: int = DIRECTIONS,
    seed: int = 0,
) -> float:
    """Squared 2-Wasserstein distance along a line, averaged over random directions and multiplied by d (MIND; Berthet
    et al. 2026, "Monge Inception Distance", arXiv 2605.06797).

    The factor d is ours: it makes a shift of all features by v count |v|^2, as in the Fréchet distance. Numbers of
    images may differ. The estimate is biased upwards at small n, equally for synthetic and for real images of one
    number. Raises InputError for features that cannot be compared.
    """
    check_features(real_features, fake_features)
    n, m, dimensions = len(real_features), len(fake_features), real_features.shape[1]
    lines = np.random.default_rng(seed).standard_normal((dimensions, directions))
    lines /= np.linalg.norm(lines, axis=0)
    real, fake = (np.sort(np.asarray(f, np.float64) @ lines, axis=0) for f in (real_features, fake_features))
    # Quantiles of both are constant between the levels i / n and j / m; levels are whole numbers of 1 / (n m).
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    gaps = real[(levels - 1) // m] - fake[(levels - 1) // n]
    widths = np.diff(levels, prepend=0) / (n * m)
    return float(dimensions * (widths @ gaps**2).mean())
