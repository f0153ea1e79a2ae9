"""Is it new? The nearest training images, and how many synthetic images are closer to one than its own neighbors are.

A figure means nothing without its floor: the score of real images of other cases against the same training set.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from histoloom.metrics.features import check_features
from histoloom.metrics.neighbors import nearest


@dataclass(frozen=True, eq=False)
class Authenticity:
    """For each image: whether it is authentic, its nearest training image, the distance to it, and a ratio.

    The ratio ranks suspects: the distance over that of the training image to its own nearest neighbor; an authentic
    image is above 1.
    """

    authentic: Bool[np.ndarray, " n"]
    neighbor: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]
    ratio: Float[np.ndarray, " n"]

    @property
    def percent(self) -> float:
        """AuthPct, 0 to 100: independent draws from the training distribution score about 50, copies 0."""
        return 100 * float(self.authentic.mean())

    @property
    def median_distance(self) -> float:
        """Median distance to the nearest training image; a value far below that of unseen real images shows copying
        (the comparison of Meehan et al. 2020, "A non-parametric test to detect data-copying", by medians)."""
        return float(np.median(self.distance))


def authenticity(train_features: Float[np.ndarray, "n d"], features: Float[np.ndarray, "m d"]) -> Authenticity:
    """AuthPct (the authenticity of Alaa et al. 2022, as in Stein et al. 2023): an image is a copy if it is closer to
    its nearest training image than that image's nearest training image is.

    Raises InputError for nan, differing dimensions, or fewer than two training images.
    """
    check_features(train_features, features)
    distance, neighbor = (found[:, 0] for found in nearest(features, train_features))
    gap = nearest(train_features, train_features, same=True)[0][:, 0][neighbor]
    # Training images that coincide have no gap; another copy of them has the ratio 0.
    ratio = np.where(gap > 0, distance / np.where(gap > 0, gap, 1), np.where(distance > 0, np.inf, 0.0))
    return Authenticity(distance > gap, neighbor, distance, ratio)
