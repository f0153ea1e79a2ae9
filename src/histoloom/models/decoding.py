"""How faithfully an autoencoder decodes tissue that it may never have seen."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import UInt8

from histoloom.models.autoencoder import decode, encode, latent_factor, to_images, to_pixels

FAITHFUL = 0.1  # how far the contrast of a channel may be off: 0.03 on tissue that the bundled model knows


@dataclass(frozen=True)
class Decoding:
    """Patches after encoding and decoding, against themselves."""

    psnr: float  # dB, over all pixels
    contrast: tuple[float, float, float]  # of red, green and blue: standard deviation, decoded over real

    @property
    def is_faithful(self) -> bool:
        """Whether stain and contrast survive."""
        return max(abs(value - 1) for value in self.contrast) <= FAITHFUL

    def __str__(self) -> str:
        red, green, blue = self.contrast
        return (
            f"decodes these patches at {self.psnr:.1f} dB, with {red:.2f}, {green:.2f} and {blue:.2f} of their "
            "contrast in red, green and blue"
        )


@torch.inference_mode()
def decoded(
    autoencoder: ModelMixin, images: UInt8[np.ndarray, "n h w 3"], batch: int = 8
) -> UInt8[np.ndarray, "n h w 3"]:
    """Images encoded and decoded, in the same size: edges that are not multiples of the factor are reflected."""
    factor, weights, (height, width) = latent_factor(autoencoder), next(autoencoder.parameters()), images.shape[1:3]
    padded = torch.from_numpy(np.pad(images, ((0, 0), (0, -height % factor), (0, -width % factor), (0, 0)), "reflect"))
    parts = []
    for part in padded.split(batch):
        latents = encode(autoencoder, to_pixels(part.to(weights.device)).to(weights.dtype))
        parts.append(to_images(decode(autoencoder, latents).float())[:, :height, :width].cpu())
    return torch.cat(parts).numpy()


def measure_decoding(autoencoder: ModelMixin, images: UInt8[np.ndarray, "n h w 3"]) -> Decoding:
    """Encode and decode `images`, and compare the bytes."""
    return compare_decoded(images, decoded(autoencoder, images))


def compare_decoded(images: UInt8[np.ndarray, "n h w 3"], decoded: UInt8[np.ndarray, "n h w 3"]) -> Decoding:
    """Decoded images against the real ones."""
    error = np.square(decoded.astype(np.float32) - images).mean()
    red, green, blue = (decoded.std((0, 1, 2)) / np.maximum(images.std((0, 1, 2)), 1)).tolist()
    return Decoding(float(10 * np.log10(255**2 / max(error, 1e-6))), (red, green, blue))
