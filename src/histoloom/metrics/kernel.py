"""Kernel distances (squared maximum mean discrepancy, MMD; Gretton et al. 2012), which are unbiased at any n.

`kid` has the cubic kernel of the Kernel Inception Distance (Binkowski et al. 2018), `mmd_rbf` the Gaussian kernel of
CMMD (Jayasumana et al. 2024). The width of 10 there suits CLIP embeddings only, so the default here is the median
distance of real images. Both may fall below zero if the truth is near zero: compare them by differences, not by ratios.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from histoloom.metrics.features import check_features

Kernel = Callable[[Tensor, Tensor], Tensor]
BLOCK = 1024  # rows of a kernel matrix in memory at a time


def kid(real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d"]) -> float:
    """Unbiased MMD^2 with k(x, y) = (x . y / d + 1)^3 (Kernel Inception Distance; Binkowski et al. 2018), over all
    images at once instead of the mean over subsets."""
    check_features(real_features, fake_features)
    dimensions = real_features.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / dimensions + 1) ** 3

    return _mmd(real_features, fake_features, kernel)


def mmd_rbf(
    real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d"], width: float | None = None
) -> float:
    """Unbiased MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 width^2)); between -1 and 2 (Gretton et al. 2012, "The MMD in
    reproducing kernel Hilbert spaces", with the kernel of CMMD, Jayasumana et al. 2024).

    `width` defaults to `median_distance(real_features)`, so that scores against one real set are comparable.
    """
    check_features(real_features, fake_features)
    width = width or median_distance(real_features)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).square() / (2 * width**2))

    return _mmd(real_features, fake_features, kernel)


def median_distance(features: Float[np.ndarray, "n d"], most: int = 1000) -> float:
    """Median distance between two images, of at most `most` evenly spaced ones; 1 if more than half of the pairs
    coincide."""
    rows = torch.from_numpy(np.asarray(features, np.float64))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
    return float(torch.pdist(rows).median()) or 1.0


def _mmd(real_features: np.ndarray, fake_features: np.ndarray, kernel: Kernel) -> float:
    real, fake = (torch.from_numpy(np.asarray(f, np.float64)) for f in (real_features, fake_features))
    n, m = len(real), len(fake)
    within = [(_total(x, x, kernel) - _diagonal(x, kernel)) / (len(x) * (len(x) - 1)) for x in (real, fake)]
    return float(sum(within) - 2 * _total(real, fake, kernel) / (n * m))


def _total(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    return torch.stack([kernel(rows, b).sum() for rows in a.split(BLOCK)]).sum()


def _diagonal(x: Tensor, kernel: Kernel) -> Tensor:
    return kernel(x[:, None], x[:, None]).sum()
