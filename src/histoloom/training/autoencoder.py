"""Train the autoencoder: sharp enough to see nuclei, smooth enough to diffuse.

Pixels are compared by L1. Three pressures make the latents easy to diffuse: noise is added to them before decoding,
their size is held down, and a latent shrunk to half must decode to the image shrunk to half (EQ-VAE, arXiv
2502.09509).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig, Step, fit, identity_of
from histoloom.fitting.samples import draw_part, stack
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder, encode, to_pixels
from histoloom.patches.store import Patches
from histoloom.stain import StainJitter


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """How the autoencoder is trained."""

    size: int = 96  # px, edge of the training crops
    noise: float = 0.15  # added to the latents before decoding
    latent_weight: float = 0.01  # on the mean square of the latents
    shrink_weight: float = 0.25  # on the L1 of the half-size image decoded from the half-size latents
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    stain: StainJitter = field(default_factory=StainJitter)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=5000, batch_size=8, learning_rate=2e-3))

    def __post_init__(self):
        check_numbers(self)
        factor = 2 ** len(self.model.channels)
        if self.size < 1 or self.size % (2 * factor):
            raise ConfigError(f"size {self.size} must be a multiple of {2 * factor} (twice the factor)")


class AutoencoderObjective(nn.Module):
    """Losses of a batch: images uint8 `b h w 3`, noise `b c h w`."""

    def __init__(self, autoencoder: ModelMixin, config: AutoencoderTraining):
        super().__init__()
        self.autoencoder, self.config = autoencoder, config

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pixels = to_pixels(batch["images"])
        latents = encode(self.autoencoder, pixels)
        decoded = self.autoencoder.decode(latents + self.config.noise * batch["noise"]).sample
        half = self.autoencoder.decode(F.avg_pool2d(latents, 2)).sample
        losses = {
            "pixels": F.l1_loss(decoded.float(), pixels),
            "shrink": F.l1_loss(half.float(), F.avg_pool2d(pixels, 2)),
            "size": latents.float().square().mean(),
        }
        weighted = losses["pixels"] + self.config.shrink_weight * losses["shrink"]
        return {"loss": weighted + self.config.latent_weight * losses["size"], **losses}


@dataclass(frozen=True)
class CropSampler:
    """Draws sample n: a random crop of a random patch, turned, mirrored and restained, and its noise."""

    patches: Patches
    size: int  # px
    latents: tuple[int, int, int]  # channels, height and width of the noise
    stain: StainJitter
    seed: int

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.seed, n))
        index = int(rng.integers(len(self.patches)))
        crop, _ = draw_part(self.patches.images, index, self.size, self.stain, rng)
        return {"images": crop, "noise": rng.standard_normal(self.latents, dtype=np.float32)}


def train_autoencoder(
    patches: Patches,
    config: AutoencoderTraining,
    folder: Path,
    on_step: Callable[[Step], None] | None = None,
    on_checkpoint: Callable[[int, ModelMixin], None] | None = None,
) -> ModelMixin:
    """Train on `patches`, resuming from `folder`; returns the averaged autoencoder in eval mode."""
    if min(patches.images.shape[1:3]) < config.size:
        raise ConfigError(f"patches are {patches.images.shape[1:3]} px, smaller than autoencoder size {config.size}")
    torch.manual_seed(config.loop.seed)
    cells = config.size // 2 ** len(config.model.channels)
    latents = (config.model.latent_channels, cells, cells)
    objective = AutoencoderObjective(build_autoencoder(config.model), config)
    report = None if on_checkpoint is None else (lambda step, averaged: on_checkpoint(step, averaged.autoencoder))
    averaged = fit(
        objective,
        CropSampler(patches, config.size, latents, config.stain, config.loop.seed),
        stack,
        config.loop,
        folder,
        identity_of(config, patches=patches.fingerprint()),
        on_step,
        report,
    )
    assert isinstance(averaged, AutoencoderObjective)
    return averaged.autoencoder.eval()
