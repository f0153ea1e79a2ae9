"""The targets that the denoiser learns, one function per equation.

`clean` are normalized latents, `noise` is standard normal, and `noisy` is a mixture of both. Time runs from 0 (clean)
to 1 (noise).
"""

import typing

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from histoloom.models.schedulers import PAPER_SCHEDULE

Latents = Float[Tensor, "b c h w"]


def flow(clean: Latents, noise: Latents, time: Float[Tensor, " b"]) -> tuple[Latents, Latents]:
    """Noisy latents and velocity: x_t = (1 - t) x_0 + t e, v = e - x_0 (Lipman et al. 2023, arXiv 2210.02747)."""
    t = time[:, None, None, None]
    return (1 - t) * clean + t * noise, noise - clean


def epsilon(clean: Latents, noise: Latents, time: Float[Tensor, " b"]) -> tuple[Latents, Latents]:
    """Noisy latents and noise: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e (Ho et al. 2020, eq. 4), paper's schedule."""
    scheduler = DDPMScheduler(**PAPER_SCHEDULE)
    return scheduler.add_noise(clean, noise, typing.cast(torch.IntTensor, (time * 1000).long().clamp(0, 999))), noise


def logit_normal_time(normal: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """t = sigmoid(n), n normal; around 0.5 if its mean is 0 (Esser et al. 2024, arXiv 2403.03206, eq. 19)."""
    return torch.sigmoid(normal)


def loss(prediction: Latents, target: Latents, norm: str) -> Float[Tensor, ""]:
    """Mean absolute ("l1", the prototype's) or squared ("l2") difference."""
    return F.l1_loss(prediction.float(), target) if norm == "l1" else F.mse_loss(prediction.float(), target)
