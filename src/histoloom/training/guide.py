"""Train away from a weaker model, so that what is woven keeps clear of the errors that both make.

A denoiser that has not finished learning errs as a weaker one of its kind does, only less. Autoguidance (Karras et al.
2024, arXiv 2406.02507) extrapolates from the weaker prediction when it samples, at the price of another prediction per
step. Here the denoiser itself learns to extrapolate: not its prediction v but the mixture

    u = v_weak + (v - v_weak) / weight

is fitted to tissue, so that v comes out at v_weak + weight (u - v_weak). It is so where map and crops are shown;
without either, v is fitted as always, and guidance by map and crops goes on from there. A mixture in training, to make
guidance in sampling needless, is that of Chen et al. 2025 (arXiv 2501.15420), with a prediction without conditions in
place of v_weak.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.models.conditions import Conditions
from histoloom.models.denoiser import Denoiser
from histoloom.training.start import TypeMatch, start_from

MARGIN = 2  # latents around a type that the guide does not know, in which it does not guide


@dataclass(frozen=True, kw_only=True)
class Guide:
    """The weaker model, and how far to go from it."""

    model: str = ""  # folder, hub name or bundled name; such as an early model of the same kind
    weight: float = 1.75  # 1: the weaker model has no effect; above: what is woven goes further away from it

    def __post_init__(self):
        check_numbers(self)
        if not self.model:
            raise ConfigError("model is empty; name a weaker model, or leave the table out")
        if not 1 < self.weight <= 10:
            raise ConfigError(f"weight is {self.weight:g}; give a number above 1, up to 10")


@dataclass(frozen=True)
class Weaker:
    """A frozen weaker denoiser that knows the types of the patches."""

    denoiser: Denoiser
    weight: float
    unknown: tuple[int, ...] = ()  # ids of types of the patches that it never learned

    def mixture(
        self,
        predicted: Float[Tensor, "b c h w"],
        noisy: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        conditions: Conditions,
    ) -> Float[Tensor, "b c h w"]:
        """What is fitted to tissue, where `predicted` is the prediction that is trained.

        Samples that lack their map or their crops are fitted alone, and so are places within `MARGIN` latents of a type
        that the guide does not know: there its prediction means nothing, and going away from it draws nonsense.
        """
        nn.Module.to(self.denoiser, noisy.device)
        mixed, at = predicted.float().clone(), _complete(self.denoiser, conditions, len(noisy)).nonzero()[:, 0]
        if not len(at):
            return mixed
        with torch.no_grad():
            weak = self.denoiser(noisy[at], time[at], self.denoiser.read(conditions).take(at)).float()
        mixture = weak + (mixed[at] - weak) / self.weight
        mixed[at] = torch.where(self._unknown(conditions, at, noisy.shape[-2:]), mixed[at], mixture)
        return mixed

    def _unknown(self, conditions: Conditions, at: Tensor, size: tuple[int, ...]) -> Bool[Tensor, "b 1 h w"]:
        """Which latents of the samples `at` are near a type that the guide does not know."""
        if conditions.type_map is None or not self.unknown:
            return torch.zeros(len(at), 1, *size, dtype=torch.bool, device=at.device)
        types = torch.tensor(self.unknown, device=at.device)
        shown = torch.isin(conditions.type_map[at], types).float()[:, None]
        near = F.adaptive_max_pool2d(shown, list(size))
        return F.max_pool2d(near, 2 * MARGIN + 1, stride=1, padding=MARGIN) > 0


def weaker(guide: Denoiser, match: TypeMatch, denoiser: Denoiser, weight: float) -> Weaker:
    """`guide` with the types of `denoiser`, matched as `start_from` does."""
    config = {key: value for key, value in guide.config.items() if not key.startswith("_")}
    mine = cast(Denoiser, Denoiser.from_config(config | {"num_types": denoiser.num_types}))
    start_from(mine, guide, match)
    unknown = tuple(tissue for tissue, source in enumerate(match.sources) if source is None)
    return Weaker(mine.eval().requires_grad_(False), weight, unknown)


def _complete(denoiser: Denoiser, conditions: Conditions, count: int) -> Bool[Tensor, " b"]:
    """Which of `count` samples show all that the denoiser reads: map, and at least one crop."""
    reads = denoiser.reads
    shown = torch.ones(count, dtype=torch.bool, device=denoiser.device)
    if reads.map:
        shown &= ~denoiser.mapless(conditions)
    if reads.canvas:
        shown &= conditions.canvas[:, 3].flatten(1).any(1) if conditions.canvas is not None else False
    if reads.attends:
        has = torch.zeros_like(shown)
        if conditions.crop_samples is not None:
            has[conditions.crop_samples] = True
        shown &= has
    return shown
