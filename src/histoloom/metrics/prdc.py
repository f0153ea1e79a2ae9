"""Precision, recall (Kynkäänniemi et al. 2019), density, coverage (Naeem et al. 2020): is it true, is it varied?

Each is the mean of one value per image, kept so that an interval can be drawn over cases. Three passes over blocks of
distances; the full matrix never exists.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from histoloom.errors import InputError
from histoloom.metrics.features import check_features
from histoloom.metrics.neighbors import square_blocks


@dataclass(frozen=True)
class Prdc:
    """Values per image, whose means are the four figures: precision and density per fake, recall and coverage per
    real image."""

    precision: Float[np.ndarray, " m"]  # 1 where the fake lies in the ball of some real image
    recall: Float[np.ndarray, " n"]  # 1 where the real lies in the ball of some fake
    density: Float[np.ndarray, " m"]  # real balls that the fake lies in, over k
    coverage: Float[np.ndarray, " n"]  # 1 where the ball of the real holds a fake

    def means(self) -> dict[str, float]:
        """The four figures by name."""
        return {name: float(getattr(self, name).mean()) for name in ("precision", "recall", "density", "coverage")}


def prdc(real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d"], k: int = 5) -> Prdc:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), image by image; a ball
    reaches to the k-th nearest neighbour on its own side.

    Raises InputError for nan, other dimensions, or k or fewer images on a side.
    """
    check_features(real_features, fake_features)
    if min(len(real_features), len(fake_features)) <= k:
        raise InputError(
            f"{len(real_features)} real and {len(fake_features)} fake images are too few for k = {k}; give more"
        )
    real_radii, fake_radii = _square_radii(real_features, k), _square_radii(fake_features, k)
    inside, in_fake_ball, holds_fake = torch.zeros(len(fake_features), dtype=torch.int64), [], []
    for start, squares in square_blocks(real_features, fake_features):
        within = squares < real_radii[start : start + len(squares), None]
        inside += within.sum(0)
        holds_fake.append(within.any(1))
        in_fake_ball.append((squares < fake_radii).any(1))
    return Prdc(
        (inside > 0).double().numpy(),
        torch.cat(in_fake_ball).double().numpy(),
        inside.double().numpy() / k,
        torch.cat(holds_fake).double().numpy(),
    )


def _square_radii(features: np.ndarray, k: int) -> torch.Tensor:
    """Squared distance to the k-th nearest other image."""
    radii = []
    for start, squares in square_blocks(features, features):
        squares.diagonal(start).fill_(torch.inf)
        radii.append(squares.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(radii)
