"""Is it new? Nearest training images, and how many synthetic ones lie closer than training images do to each other.

A figure means nothing without its floor: what real images of other cases, which no model has woven, score against the
same training set.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from histoloom.metrics.features import check_features
from histoloom.metrics.neighbors import nearest


@dataclass(frozen=True)
class Authenticity:
    """For each image: is it authentic, its nearest training image, how far that is, and the ratio that ranks suspects.

    `ratio` is the distance over that of the training image to its own nearest neighbour; authentic means above 1.
    """

    authentic: Bool[np.ndarray, " n"]
    neighbour: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]
    ratio: Float[np.ndarray, " n"]

    @property
    def percent(self) -> float:
        """AuthPct, 0 to 100: independent draws of the training distribution score about 50, copies 0."""
        return 100 * float(self.authentic.mean())

    @property
    def median_distance(self) -> float:
        """Median distance to the nearest training image: far below that of unseen real images, a model has copied
        (the comparison of Meehan et al. 2020, "A non-parametric test to detect data-copying", by medians)."""
        return float(np.median(self.distance))


def authenticity(train_features: Float[np.ndarray, "n d"], features: Float[np.ndarray, "m d"]) -> Authenticity:
    """AuthPct (the authenticity of Alaa et al. 2022, as in Stein et al. 2023): an image is a copy where it lies closer
    to its nearest training image than that image's nearest fellow does.

    Raises InputError for nan, other dimensions, or fewer than two training images.
    """
    check_features(train_features, features)
    distance, neighbour = (found[:, 0] for found in nearest(features, train_features))
    fellow = nearest(train_features, train_features, same=True)[0][:, 0][neighbour]
    # Twins in the training set: a third copy of them is one, too.
    ratio = np.where(fellow > 0, distance / np.where(fellow > 0, fellow, 1), np.where(distance > 0, np.inf, 0.0))
    return Authenticity(distance > fellow, neighbour, distance, ratio)
