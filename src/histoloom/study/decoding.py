"""Real images through an autoencoder and back: what its decoder alone gives away."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from histoloom.models.autoencoder import decode, encode, latent_factor, load_autoencoder, to_images, weights_hash


class Decoder:
    """An opened autoencoder."""

    def __init__(self, source: Path | str):
        self._autoencoder = load_autoencoder(source)
        self.fingerprint = weights_hash(self._autoencoder)

    @torch.inference_mode()
    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The image as its latents are decoded, in the same size."""
        factor, (height, width) = latent_factor(self._autoencoder), image.shape[:2]
        padding = ((0, -height % factor), (0, -width % factor), (0, 0))
        padded = np.pad(image, padding, mode="reflect")
        pixels = torch.from_numpy(padded).movedim(-1, 0)[None].float() / 127.5 - 1
        decoded = to_images(decode(self._autoencoder, encode(self._autoencoder, pixels)))
        return decoded[0, :height, :width].numpy()
