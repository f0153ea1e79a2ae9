"""Precision, recall (Kynkäänniemi et al. 2019), density, coverage (Naeem et al. 2020): is it true, is it varied?

Each is the mean of one value per image; the values are returned so that intervals over cases can be computed. Three
passes over blocks of distances in single precision; the full matrix never exists. Distances that are too close to a
radius for single precision are measured again in double precision, since ties are common: an image that repeats the
k-th neighbor is exactly on the ball.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from histoloom.errors import InputError
from histoloom.metrics.features import check_features
from histoloom.metrics.neighbors import SLACK, exact_squares, nearest, square_blocks

PAIRS = 8192  # measured again at a time


@dataclass(frozen=True, eq=False)
class Prdc:
    """Values per image, whose means are the four figures: precision and density per fake image, recall and coverage
    per real image."""

    precision: Float[np.ndarray, " m"]  # 1 where the fake is in the ball of some real image
    recall: Float[np.ndarray, " n"]  # 1 where the real is in the ball of some fake
    density: Float[np.ndarray, " m"]  # real balls that hold the fake, over k
    coverage: Float[np.ndarray, " n"]  # 1 where the ball of the real holds a fake

    def means(self) -> dict[str, float]:
        """The four figures by name."""
        return {name: float(getattr(self, name).mean()) for name in ("precision", "recall", "density", "coverage")}


def prdc(real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d"], k: int = 5) -> Prdc:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), image by image.

    The ball of an image reaches to its k-th nearest neighbor on its own side, and does not contain its rim. Raises
    InputError for nan, differing dimensions, or k or fewer images on a side.
    """
    check_features(real_features, fake_features)
    if min(len(real_features), len(fake_features)) <= k:
        raise InputError(
            f"need more than {k} images per side for k = {k}; got {len(real_features)} real, {len(fake_features)} fake"
        )
    real_radii, fake_radii = (exact_radii(features, k) for features in (real_features, fake_features))
    inside, in_fake_ball, holds_fake = np.zeros(len(fake_features), np.int64), [], []
    center = fake_features.mean(axis=0)
    real_sizes, fake_sizes = (np.square(x - center).sum(axis=1) for x in (real_features, fake_features))
    for start, squares in square_blocks(real_features, fake_features):
        part = slice(start, start + len(squares))
        slack = torch.from_numpy(np.float32(SLACK) * np.add.outer(real_sizes[part], fake_sizes).astype(np.float32))
        pairs = (real_features[part], fake_features)
        within = _within(squares, real_radii[part, None], slack, *pairs)
        inside += within.sum(axis=0)
        holds_fake.append(within.any(axis=1))
        in_fake_ball.append(_within(squares, fake_radii[None], slack, *pairs).any(axis=1))
    return Prdc(
        (inside > 0).astype(np.float64),
        np.concatenate(in_fake_ball).astype(np.float64),
        inside / k,
        np.concatenate(holds_fake).astype(np.float64),
    )


def exact_radii(features: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """Squared distance to the k-th nearest other image, in double precision."""
    _, neighbors = nearest(features, features, k, same=True)
    return exact_squares(features, features[neighbors[:, -1]])


def _within(
    squares: torch.Tensor, radii: np.ndarray, slack: torch.Tensor, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Where a squared distance is below a squared radius; pairs within `slack` are measured in double precision."""
    gaps = squares - torch.from_numpy(radii.astype(np.float32))
    within = (gaps < 0).numpy()
    close = (gaps.abs_() <= slack).numpy()
    limits = np.broadcast_to(radii, within.shape)
    at = np.nonzero(close)
    for first in range(0, len(at[0]), PAIRS):
        i, j = at[0][first : first + PAIRS], at[1][first : first + PAIRS]
        within[i, j] = exact_squares(rows[i], columns[j]) < limits[i, j]
    return within
