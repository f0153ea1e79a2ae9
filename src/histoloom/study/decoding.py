"""Real images through an autoencoder and back: what its decoder alone gives away."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.models.autoencoder import load_autoencoder, weights_hash
from histoloom.models.decoding import decoded


class Decoder:
    """An opened autoencoder."""

    def __init__(self, source: Path | str):
        self._autoencoder = load_autoencoder(source)
        self.fingerprint = weights_hash(self._autoencoder)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The image as its latents are decoded, in the same size."""
        return decoded(self._autoencoder, image[None])[0]
