"""What every metric of features asks first: are they finite, of one encoder, and enough of them?"""

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError


def check_features(real_features: Float[np.ndarray, "n d"], fake_features: Float[np.ndarray, "m d2"]) -> None:
    """Raise InputError unless both sides are finite, of one dimension, and of two rows at least."""
    for name, features in (("real", real_features), ("fake", fake_features)):
        if len(features) < 2:
            raise InputError(f"{len(features)} {name} image is no distribution; give two at least, better hundreds")
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise InputError(f"{name} features hold nan or infinity (first in row {row}); encode that image anew")
    if real_features.shape[1] != fake_features.shape[1]:
        raise InputError(
            f"real features have {real_features.shape[1]} dimensions, fake ones {fake_features.shape[1]}; use one "
            "encoder for both"
        )


def too_few(n: int, dimensions: int) -> str | None:
    """Why a Fréchet distance of `n` images a side would mislead, or none where n exceeds the dimensions.

    With n <= d the covariance is singular, and the distance tells more of n than of the images (Chong & Forsyth 2020).
    """
    if n > dimensions:
        return None
    return (
        f"not given: {n} images a side are too few for {dimensions} dimensions (more than {dimensions} needed); add "
        "images or take an encoder of fewer dimensions"
    )
