"""What every metric of features checks first: are they finite, of one encoder, and enough of them?"""

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError


def check_features(real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d2"]) -> None:
    """Raise InputError unless both sides are finite, have the same dimensions, and at least two rows."""
    for name, features in (("real", real_features), ("fake", fake_features)):
        if len(features) < 2:
            raise InputError(
                f"need at least 2 {name} images to estimate a distribution (hundreds recommended); got {len(features)}"
            )
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise InputError(f"{name} features hold nan or infinity, first in row {row}; encode that image again")
    if real_features.shape[1] != fake_features.shape[1]:
        raise InputError(
            f"real features have {real_features.shape[1]} dimensions, fake ones {fake_features.shape[1]}; use the "
            "same encoder for both"
        )


def too_few(n: int, dimensions: int) -> str | None:
    """Why a Fréchet distance of `n` images a side would mislead; None if n exceeds the dimensions.

    With n <= d the covariance is singular, and the distance says more about n than about the images (Chong & Forsyth
    2020).
    """
    if n > dimensions:
        return None
    return (
        f"not given: needs more than {dimensions} images per side for {dimensions} dimensions, got {n}; add images, or "
        "use an encoder with fewer dimensions"
    )
