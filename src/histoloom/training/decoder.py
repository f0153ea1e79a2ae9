"""Train a decoder further against a discriminator, so that it draws the texture that L1 averages away.

A decoder trained by L1 alone draws the mean of all images that a latent may represent, which is smooth. Here a
discriminator learns to distinguish real windows from decoded ones, and the decoder learns to fool it. The encoder, the
latents and every denoiser trained on them stay valid, so the decoder of any autoencoder can be adapted to new tissue.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig, Step, fit, identity_of
from histoloom.fitting.samples import stack
from histoloom.models.autoencoder import encode, latent_channels, latent_factor, to_pixels, weights_hash
from histoloom.models.discriminator import PatchDiscriminator
from histoloom.patches.store import Patches
from histoloom.stain import StainJitter
from histoloom.training.autoencoder import CropSampler


@dataclass(frozen=True, kw_only=True)
class DecoderTraining:
    """How the decoder is trained further."""

    size: int = 96  # px, edge of the training crops
    noise: float = 0.15  # added to the latents before decoding, in units of their spread
    realism: float = 0.008  # weight of the discriminator's loss relative to L1
    channels: int = 64  # of the discriminator's first layer
    stain: StainJitter = field(default_factory=StainJitter)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=6000, batch_size=8, learning_rate=4e-4))

    def __post_init__(self):
        check_numbers(self)
        if self.realism < 0 or self.noise < 0 or min(self.channels, self.size) < 1:
            raise ConfigError("realism and noise must be 0 or more, channels and size 1 or more")


class DecoderObjective(nn.Module):
    """Losses of decoder and discriminator, without shared gradient; images are uint8 `b h w 3`, noise `b c y x`."""

    def __init__(self, autoencoder: ModelMixin, config: DecoderTraining):
        super().__init__()
        self.autoencoder, self.config = autoencoder.requires_grad_(False), config
        self.autoencoder.decoder.requires_grad_(True)
        self.discriminator = PatchDiscriminator(config.channels)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pixels = to_pixels(batch["images"])
        with torch.no_grad():
            latents = encode(self.autoencoder, pixels)
            spread = latents.std((1, 2, 3), keepdim=True)
        decoded = self.autoencoder.decode(latents + self.config.noise * spread * batch["noise"]).sample.float()
        shown = decoded.detach().requires_grad_()
        of_real, of_decoded = self.discriminator(pixels).float(), self.discriminator(shown).float()
        (towards,) = torch.autograd.grad(of_decoded.mean(), shown, retain_graph=True)
        losses = {
            "pixels": F.l1_loss(decoded, pixels),
            "realism": -of_decoded.mean().detach(),
            "discriminator": F.relu(1 - of_real).mean() + F.relu(1 + of_decoded).mean(),  # hinge
        }
        pull = -(decoded * towards).sum()  # has the gradient of "realism", and none for the discriminator
        return {"loss": losses["pixels"] + self.config.realism * pull + losses["discriminator"], **losses}


def train_decoder(
    patches: Patches,
    autoencoder: ModelMixin,
    config: DecoderTraining,
    folder: Path,
    on_step: Callable[[Step], None] | None = None,
) -> ModelMixin:
    """Train the decoder of `autoencoder` on `patches`, resuming from `folder`; returns an averaged copy in eval mode.

    `autoencoder` itself stays unchanged. Raises ConfigError if `config.size` does not fit patches or autoencoder.
    """
    factor = latent_factor(autoencoder)
    if config.size % factor or min(patches.images.shape[1:3]) < config.size:
        raise ConfigError(
            f"decoder size {config.size} must be a multiple of {factor} px, and at most the "
            f"{patches.images.shape[1:3]} of the patches"
        )
    initial = weights_hash(autoencoder)
    torch.manual_seed(config.loop.seed)
    cells = (latent_channels(autoencoder), config.size // factor, config.size // factor)
    averaged = fit(
        DecoderObjective(deepcopy(autoencoder).float(), config),
        CropSampler(patches, config.size, cells, config.stain, config.loop.seed),
        stack,
        config.loop,
        folder,
        identity_of(config, patches=patches.fingerprint(), initial=initial),
        on_step,
    )
    assert isinstance(averaged, DecoderObjective)
    return averaged.autoencoder.requires_grad_(True).eval()
