"""Students: denoisers distilled from another, which weave in a few steps and take guidance as an input.

A student reads three more numbers than its teacher: where a step ends, and how strongly map and crops are followed.

guided   predicts the teacher's guided velocity, so that a step takes one prediction; any number of steps.
average  predicts the mean velocity between two times, so that a step of any length is one subtraction (shortcut models,
         Frans et al. 2024, arXiv 2410.12557; SplitMeanFlow, Guo et al. 2025, arXiv 2507.16884).
policy   predicts what the patch looks like at several times between the start and the end of a step, and follows these
         predictions without asking the network again (pi-Flow, Chen et al. 2025, arXiv 2510.14974).
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.models.sampling import MOST_GUIDANCE, MOST_STEPS, Sampling

Method = Literal["guided", "average", "policy"]
S = TypeVar("S", bound=Sampling)
METHODS: tuple[Method, ...] = ("guided", "average", "policy")
SUBSTEPS = 16  # in which a step follows its policy; they ask no network


@dataclass(frozen=True, kw_only=True)
class Student:
    """What a student can be asked for."""

    method: Method = "average"  # what the student predicts: see histoloom.models.students
    steps: tuple[int, ...] = (1, 2, 4, 8)  # numbers of steps that it was trained for; without effect for guided
    usual_steps: int | None = None  # of these, where none are asked for; none: 4, or the most
    points: int = 8  # predictions of the patch per step of a policy; without effect for the others
    map_guidance: tuple[float, float] = (1.0, 2.0)  # least and most
    crop_guidance: tuple[float, float] = (1.0, 4.0)  # least and most
    guidance_interval: tuple[float, float] = Sampling.guidance_interval  # in which the teacher's guidance acted

    def __post_init__(self):
        check_numbers(self)
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r} is unknown; known: {', '.join(METHODS)}")
        if not self.steps or not all(1 <= n <= MOST_STEPS for n in self.steps):
            raise ConfigError(f"steps is {list(self.steps)}; give numbers from 1 to {MOST_STEPS}")
        if self.usual_steps is not None and self.usual_steps not in self.steps:
            raise ConfigError(f"usual_steps is {self.usual_steps}; give one of steps, {list(self.steps)}")
        if not (2 if self.method == "policy" else 1) <= self.points <= 64:
            raise ConfigError(f"points is {self.points}; give 2 to 64")
        for name in ("map_guidance", "crop_guidance"):
            low, high = getattr(self, name)
            if not 0 <= low < high <= MOST_GUIDANCE:
                raise ConfigError(f"{name} is {low:g} to {high:g}; give two numbers from 0 to {MOST_GUIDANCE:g}")
        Sampling(guidance_interval=self.guidance_interval)

    @property
    def outputs(self) -> int:
        """How many velocities the network predicts at once."""
        return self.points if self.method == "policy" else 1

    @property
    def family(self) -> str | None:
        """The family of samplers that follows what it predicts; None: that of the teacher."""
        return None if self.method == "guided" else self.method

    def resolve(self, sampling: S) -> S:
        """`sampling` with its steps filled in; raises ConfigError for what the student was not trained for."""
        for name in ("map_guidance", "crop_guidance"):
            low, high = getattr(self, name)
            if not low <= getattr(sampling, name) <= high:
                raise ConfigError(
                    f"{name} is {getattr(sampling, name):g}; this model was distilled for {low:g} to {high:g}"
                )
        if sampling.guidance_interval != self.guidance_interval:
            low, high = self.guidance_interval
            raise ConfigError(f"guidance_interval is fixed in a distilled model: {low:g} to {high:g}; leave it out")
        if self.family is None:
            return sampling
        if sampling.steps is None:
            return replace(sampling, steps=self.usual_steps or (4 if 4 in self.steps else max(self.steps)))
        if sampling.steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise ConfigError(f"steps is {sampling.steps}; this model was distilled for {known}")
        return sampling

    def ends(self, times: list[float]) -> list[float]:
        """The end that the network reads for each of the steps that begin at `times`."""
        return times if self.family is None else [*times[1:], 0.0]

    def aim(
        self, end: Float[Tensor, " b"], map_guidance: Float[Tensor, " b"], crop_guidance: Float[Tensor, " b"]
    ) -> Float[Tensor, "b 3"]:
        """What the network reads of the end of a step and the guidances: three shares in [0, 1]."""
        asked = ((map_guidance, self.map_guidance), (crop_guidance, self.crop_guidance))
        return torch.stack([end, *((value - low) / (high - low) for value, (low, high) in asked)], 1)


def clean_points(
    latents: Float[Tensor, "b c h w"], velocities: Float[Tensor, "b kc h w"], time: Float[Tensor, " b"]
) -> Float[Tensor, "b k c h w"]:
    """The clean latents that each of the velocities leads to from `latents`, at `time`: x_0 = x_t - t v."""
    each = velocities.unflatten(1, (-1, latents.shape[1]))
    return latents[:, None] - time[:, None, None, None, None] * each


def clean_at(
    points: Float[Tensor, "b k c h w"], start: Float[Tensor, " b"], end: Float[Tensor, " b"], time: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The clean latents of a policy at `time`: points are evenly spaced from `start` to `end`, linear in between."""
    count = points.shape[1]
    place = ((start - time) / (start - end).clamp(min=1e-6)).clamp(0, 1) * (count - 1)
    weights = (1 - (place[:, None] - torch.arange(count, device=place.device)).abs()).clamp(min=0)
    return torch.einsum("bk,bkchw->bchw", weights, points)


def follow(
    latents: Float[Tensor, "b c h w"],
    points: Float[Tensor, "b k c h w"],
    between: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
    time: Float[Tensor, " b"],
    until: Float[Tensor, " b"],
    substeps: int = SUBSTEPS,
) -> Float[Tensor, "b c h w"]:
    """Latents at `until`, from those at `time`, along a policy that was made for the step `between` two times.

    Within a substep the clean latents stay what they are in its middle, so that dx/dt = (x - x_0) / t has the solution
    x_s = x_0 + s / t (x_t - x_0), down to time 0.
    """
    for number in range(substeps):
        now, then = (time + (until - time) * (n / substeps) for n in (number, number + 1))
        clean = clean_at(points, *between, (now + then) / 2)
        latents = clean + (then / now)[:, None, None, None] * (latents - clean)
    return latents
