"""Crops -> tokens: how a tissue looks, without its place.

A small convolutional stem turns every 16 x 16 px of a crop into one token, and nothing is pooled to a single vector,
so that texture survives. Color has a path of its own: mean and spread of the crop's pixels. A validity channel, never
gray, tells crop from padding.
"""

import torch
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.models.autoencoder import encode

TOKEN_PIXELS = 16  # edge of the part of a crop that becomes one token


class CropEncoder(nn.Module):
    """Crops `m 4 s s` (RGB in [-1, 1], validity in {0, 1}) -> tokens `m t c` and which of them are valid."""

    def __init__(self, channels: int):
        super().__init__()
        self.patchify = nn.Conv2d(4, channels // 4, 4, stride=4)
        self.halve = nn.Conv2d(channels // 4, channels // 2, 3, stride=2, padding=1)
        self.quarter = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(4, channels // 4), nn.GroupNorm(8, channels // 2)])
        self.out = nn.LayerNorm(channels)

    def forward(self, crops: Float[Tensor, "m 4 s s"]) -> tuple[Float[Tensor, "m t c"], Bool[Tensor, "m t"]]:
        valid = F.max_pool2d(crops[:, 3:], TOKEN_PIXELS)
        features = F.silu(self.norms[0](self.patchify(torch.cat([crops[:, :3] * crops[:, 3:], crops[:, 3:]], 1))))
        features = F.silu(self.norms[1](self.halve(features)))
        tokens = self.quarter(features).flatten(2).transpose(1, 2)
        return self.out(tokens), valid.flatten(1) > 0


def color_statistics(crops: Float[Tensor, "m 4 s s"]) -> Float[Tensor, "m 6"]:
    """Mean and standard deviation of the valid pixels of each crop, per color channel."""
    valid = crops[:, 3:]
    count = valid.sum((2, 3)).clamp(min=1)
    mean = (crops[:, :3] * valid).sum((2, 3)) / count
    spread = (((crops[:, :3] - mean[:, :, None, None]) ** 2 * valid).sum((2, 3)) / count + 1e-6).sqrt()
    return torch.cat([mean, spread], 1)


@torch.no_grad()
def embed_crops(autoencoder: ModelMixin, crops: Float[Tensor, "m 4 s s"]) -> Float[Tensor, "m e"]:
    """One vector per crop: mean and standard deviation of its latents over the valid part (the `embedding`
    baseline)."""
    latents = encode(autoencoder, crops[:, :3] * crops[:, 3:])
    valid = F.adaptive_max_pool2d(crops[:, 3:], latents.shape[2:])
    count = valid.sum((2, 3)).clamp(min=1)
    mean = (latents * valid).sum((2, 3)) / count
    spread = (((latents - mean[:, :, None, None]) ** 2 * valid).sum((2, 3)) / count + 1e-6).sqrt()
    return torch.cat([mean, spread], 1)
