"""The guided prediction of a step: which predictions it takes, what each of them reads, and their weighted sum."""

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from histoloom.conditioning.inputs import Crop, no_map, pack_crops, type_map
from histoloom.models.conditions import Conditions, Context, with_validity
from histoloom.models.crop_encoder import embed_crops
from histoloom.models.denoiser import Denoiser
from histoloom.models.sampling import Sampling, Shown

Calls = list[tuple[list[float], Context]]  # weights, and the contexts that one call of the denoiser reads

TOGETHER = 3200  # places, over samples and contexts: up to here one call for all contexts is faster on a CPU


def weights_of(denoiser: Denoiser, sampling: Sampling, has_crops: bool, acts: bool) -> dict[Shown, float]:
    """The weight of each prediction of a step; a student makes one, which is guided already."""
    reads = denoiser.reads
    if denoiser.student is None:
        return sampling.weights(reads, has_crops, acts)
    return {(True, has_crops and reads.crops): 1.0}


def aims_of(denoiser: Denoiser, shares: list[float], sampling: Sampling) -> list[Tensor | None]:
    """What a student reads besides the time of each step."""
    student = denoiser.student
    if student is None:
        return [None] * len(shares)
    asked = torch.tensor([[end, sampling.map_guidance, sampling.crop_guidance] for end in student.ends(shares)])
    return list(student.aim(*asked.to(denoiser.device).T))


def calls_of(weights: dict[Shown, float], contexts: dict[Shown, Context], places: int) -> Calls:
    """What a step computes: all contexts in one call where they are few, else one after the other."""
    mine = [contexts[shown] for shown in weights]
    if len(mine) * places <= TOGETHER:
        return [(list(weights.values()), Context.batch(mine))]
    return [([weight], context) for weight, context in zip(weights.values(), mine, strict=True)]


def predict(
    denoiser: Denoiser, latents: Float[Tensor, "b c h w"], t: Tensor, calls: Calls, aim: Tensor | None = None
) -> Float[Tensor, "b kc h w"]:
    """The weighted sum of the predictions in each context; one call per entry, for all contexts joined in it."""
    dtype, total = denoiser.dtype, torch.zeros((), device=latents.device)
    time = (t / 1000).to(latents.device, torch.float32)
    for weights, context in calls:
        repeated = latents.to(dtype).repeat(len(weights), 1, 1, 1)
        aimed = None if aim is None else aim.expand(len(repeated), -1)
        predicted = denoiser(repeated, time.expand(len(repeated)), context, aimed)
        predicted = predicted.float().chunk(len(weights))
        total = total + sum(weight * part for weight, part in zip(weights, predicted, strict=True))
    return total


def conditions_of(
    denoiser: Denoiser,
    autoencoder: ModelMixin,
    semantic_map: UInt8[np.ndarray, "h w"],
    crops: list[Crop],
    with_map: bool,
    canvas: Float[Tensor, "1 4 h w"] | None = None,
    shares: Float[np.ndarray, "m y x"] | None = None,
) -> Conditions:
    """The conditions of one sample, as far as the conditioning of `denoiser` reads them.

    The edges of `semantic_map` are multiples of `denoiser.multiple`. `canvas` shows crops in place. `shares` says how
    much of its type each crop stands for, in each cell; None: crops of a type share it.
    """
    reads, types = denoiser.reads, denoiser.num_types
    if not reads.map:
        return Conditions()
    grid = type_map(semantic_map, types) if with_map else no_map(*semantic_map.shape, num_types=types)
    conditions = Conditions(type_map=torch.from_numpy(grid).long().to(denoiser.device)[None], canvas=canvas)
    packed = pack_crops([crops], denoiser.config["crop_edge"]) if reads.attends else None
    if packed is None:
        return conditions
    device = denoiser.device
    conditions.crops = shown_pixels(denoiser, packed.pixels, packed.valid)
    conditions.crop_types = torch.from_numpy(packed.types).to(device)
    conditions.crop_samples = torch.from_numpy(packed.samples).to(device)
    conditions.crop_textured = torch.from_numpy(packed.textured).to(device)
    if shares is not None:
        conditions.crop_shares = torch.from_numpy(shares).to(device, denoiser.dtype)
    if reads.vectors:
        vectors = embed_crops(autoencoder, conditions.crops.to(autoencoder.dtype))
        conditions.crop_vectors = vectors.to(denoiser.dtype)
    return conditions


def shown_pixels(
    denoiser: Denoiser, pixels: UInt8[np.ndarray, "m h w 3"], valid: Bool[np.ndarray, "m h w"]
) -> Float[Tensor, "m 4 h w"]:
    """Pixels and their validity as the denoiser reads them."""
    shown = with_validity(torch.from_numpy(pixels), torch.from_numpy(valid))
    return shown.to(denoiser.device, denoiser.dtype)


def clean_latents(
    denoiser: Denoiser, latents: Float[Tensor, "b c h w"], predicted: Float[Tensor, "b kc h w"], share: float
) -> Float[Tensor, "b c h w"]:
    """What a prediction says that latents with this share of noise become; of a policy, at the end of its step."""
    ahead = predicted[:, -latents.shape[1] :]
    if denoiser.objective == "flow":
        return latents - share * ahead
    of_latents, of_noise = factors(share)
    return (latents - of_noise * ahead) / of_latents


def factors(share: float) -> tuple[float, float]:
    """The factors of latents and noise in a mixture with this share of noise whose variance is one."""
    of_latents = (1 + (share / (1 - share)) ** 2) ** -0.5
    return of_latents, (1 - of_latents**2) ** 0.5


def denormalized(denoiser: Denoiser, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Latents as the autoencoder knows them."""
    mean, std = _moments(denoiser, latents.device)
    return latents * std + mean


def normalized(denoiser: Denoiser, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Latents as the denoiser knows them: the inverse of `denormalized`."""
    mean, std = _moments(denoiser, latents.device)
    return (latents - mean) / std


def _moments(denoiser: Denoiser, device: torch.device) -> tuple[Tensor, Tensor]:
    names = ("latent_mean", "latent_std")
    mean, std = (torch.tensor(denoiser.config[name], device=device)[:, None, None] for name in names)
    return mean, std
