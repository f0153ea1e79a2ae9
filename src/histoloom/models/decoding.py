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
def measure_decoding(autoencoder: ModelMixin, images: UInt8[np.ndarray, "n h w 3"], batch: int = 8) -> Decoding:
    """Encode and decode `images`, cut at the end to a multiple of the factor, and compare the bytes."""
    factor = latent_factor(autoencoder)
    height, width = (edge // factor * factor for edge in images.shape[1:3])
    weights = next(autoencoder.parameters())
    real = torch.from_numpy(np.ascontiguousarray(images[:, :height, :width]))
    decoded = torch.cat(
        [
            to_images(
                decode(autoencoder, encode(autoencoder, to_pixels(part.to(weights.device)).to(weights.dtype)))
            ).cpu()
            for part in real.split(batch)
        ]
    )
    error = (decoded.float() - real.float()).square().mean()
    spreads = [side.float().flatten(0, 2).std(0, correction=0) for side in (decoded, real)]
    ratio = (spreads[0] / spreads[1].clamp_min(1)).tolist()
    return Decoding(float(10 * torch.log10(255**2 / error.clamp_min(1e-6))), (ratio[0], ratio[1], ratio[2]))
