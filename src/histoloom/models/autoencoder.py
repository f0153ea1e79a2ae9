"""Pixels <-> latents, by any autoencoder of diffusers.

Ours is a small `AutoencoderDC` with a factor of 8: residual blocks between pixel (un)shuffles, nothing at full
resolution. `encode` and `decode` hide how the classes of diffusers differ (KL posteriors, VQ codes, inner scaling).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import logging
from jaxtyping import Float
from torch import Tensor

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, ModelError
from histoloom.fitting.samples import to_pixels as to_pixels
from histoloom.models.model_files import CONFIG, INDEX, check_finite, check_weights, local_folder, read_config
from histoloom.precision import best_device

# Class name in config.json -> class; any other diffusers autoencoder is refused by name.
AUTOENCODERS: dict[str, Any] = {c.__name__: c for c in (AutoencoderDC, AutoencoderKL, AutoencoderTiny, VQModel)}


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Size of our own autoencoder: channels at 1/2, 1/4 and 1/8 of the edge, and residual blocks at each."""

    latent_channels: int = 20
    channels: tuple[int, ...] = (20, 80, 160)
    encoder_blocks: tuple[int, ...] = (1, 1, 1)
    decoder_blocks: tuple[int, ...] = (1, 2, 2)

    def __post_init__(self):
        check_numbers(self)
        if min(self.latent_channels, *self.channels, 1) < 1:
            raise ConfigError("the autoencoder needs channels of 1 or more")
        if not len(self.channels) == len(self.encoder_blocks) == len(self.decoder_blocks) or len(self.channels) < 2:
            raise ConfigError(
                "channels, encoder_blocks and decoder_blocks need one entry per level, for at least two levels"
            )
        if min(*self.encoder_blocks, *self.decoder_blocks) < 1:
            raise ConfigError("every level of the autoencoder needs a block")
        steps = zip(self.channels, self.channels[1:], strict=False)
        if (
            any(4 * fine % coarse or coarse % fine for fine, coarse in steps)
            or self.channels[-1] % self.latent_channels
        ):
            raise ConfigError(
                f"channels {self.channels} must grow by 1, 2 or 4 and end in a multiple of "
                f"latent_channels {self.latent_channels}"
            )


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderDC:
    """A fresh `AutoencoderDC`; its factor is 2 ** len(config.channels)."""
    none = ((),) * (len(config.channels) + 1)
    return AutoencoderDC(
        in_channels=3,
        latent_channels=config.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(config.channels[0], *config.channels),
        decoder_block_out_channels=(config.channels[0], *config.channels),
        encoder_layers_per_block=(0, *config.encoder_blocks),
        decoder_layers_per_block=(0, *config.decoder_blocks),
        encoder_qkv_multiscales=none,
        decoder_qkv_multiscales=none,
        upsample_block_type="pixel_shuffle",
        downsample_block_type="pixel_unshuffle",
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the progress bars and log lines of diffusers; our errors say what is wrong."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@quietly()
def load_autoencoder(source: Path | str) -> ModelMixin:
    """Any known autoencoder, or that of a Histoloom model, from a folder, a hub name or a bundled name; on the GPU
    where there is one, as the denoiser that reads and decodes its latents.

    Only safetensors are read; raises ModelError with the cure.
    """
    folder = local_folder(source, [INDEX, CONFIG, "autoencoder/*", "*.safetensors"])
    if (folder / INDEX).is_file():
        folder = folder / "autoencoder"
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder}: not a diffusers autoencoder (no {CONFIG}); give the folder of one, or a hub name")
    name = read_config(folder / CONFIG).get("_class_name")
    kind = AUTOENCODERS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ModelError(f"{folder / CONFIG}: describes a {str(name)[:60]!r}; known: {', '.join(AUTOENCODERS)}")
    check_weights(folder, lambda config: kind.from_config(config))
    try:
        autoencoder = kind.from_pretrained(str(folder), use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: cannot be opened as {name} with safetensors weights ({reason})") from None
    check_finite(autoencoder, folder)
    return autoencoder.to(best_device())


def latent_factor(autoencoder: ModelMixin) -> int:
    """Pixels per latent cell, along one edge."""
    has_encoder = isinstance(autoencoder, AutoencoderDC | AutoencoderTiny)
    levels = autoencoder.config["encoder_block_out_channels" if has_encoder else "block_out_channels"]
    return 2 ** (len(levels) - 1)


def latent_channels(autoencoder: ModelMixin) -> int:
    """Channels of the latents."""
    return autoencoder.config["latent_channels"]


def encode(autoencoder: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
    """Latents of pixels in [-1, 1], unscaled; the mode of the posterior where there is one."""
    output = autoencoder.encode(pixels)
    for name in ("latent", "latents"):
        if hasattr(output, name):
            return getattr(output, name)
    return output.latent_dist.mode()


def decode(autoencoder: Any, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 y x"]:
    """Pixels of unscaled latents, clipped to [-1, 1]."""
    return autoencoder.decode(latents).sample.clamp(-1, 1)


def weights_hash(*models: ModelMixin) -> str:
    """The model hash in every record: 16 hex digits of the SHA-256 of all weights, by name, rounded to bf16."""
    return _hash(*(model.state_dict() for model in models))


def latents_hash(autoencoder: ModelMixin) -> str:
    """As `weights_hash`, of the weights that encode: autoencoders that encode alike share it."""
    return _hash(_encoding(autoencoder))


def _hash(*models: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for weights in models:
        for name, tensor in sorted(weights.items()):
            digest.update(name.encode() + tensor.detach().bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _encoding(autoencoder: ModelMixin) -> dict[str, Tensor]:
    named = autoencoder.state_dict().items()
    return {name: value for name, value in named if "decode" not in name and "post_quant" not in name}


def to_images(pixels: Float[Tensor, "b 3 h w"]) -> Tensor:
    """Float `b 3 h w` in [-1, 1] as uint8 `b h w 3`."""
    return ((pixels.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def same_latents(one: ModelMixin, other: ModelMixin) -> bool:
    """Whether two autoencoders encode alike; their decoders may differ."""
    first, second = _encoding(one), _encoding(other)
    return first.keys() == second.keys() and all(
        value.shape == second[name].shape and torch.equal(value, second[name]) for name, value in first.items()
    )
