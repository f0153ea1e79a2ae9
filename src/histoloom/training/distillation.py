"""Distill a trained denoiser into a student that weaves in a few steps, with guidance as an input.

The student starts as its teacher. Each sample asks it for one step: from a time to another, at guidances that are drawn
from the ranges it is to know.

guided   the step has no length, and the target is the teacher's guided velocity.
average  a share of the samples are as above. The others ask for a step of length 1/32 to 1, and the target is the mean
         of what the student itself, held still, predicts for the two halves of it. Long steps come in later.
policy   the student's predictions are followed to some times within the step. There the teacher is asked where it would
         go, which the policy has to agree with (pi-ID: Chen et al. 2025, arXiv 2510.14974).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig, Step, fit, identity_of
from histoloom.fitting.samples import Draw
from histoloom.models.autoencoder import weights_hash
from histoloom.models.conditions import Context
from histoloom.models.denoiser import Denoiser
from histoloom.models.sampling import Sampling
from histoloom.models.students import Student, clean_at, clean_points, follow
from histoloom.patches.store import Patches
from histoloom.progress import SILENT, Bar
from histoloom.training.denoiser import DenoiserTraining, collate, prepare, read_conditions
from histoloom.training.objective import flow
from histoloom.training.teacher import Teacher, check_teacher, read_teacher

EARLIEST = 0.02  # share of noise below which the teacher is not asked: velocities of almost clean latents diverge
FINEST = 5  # the shortest step of `average` has the length 2 ** -FINEST
BETWEEN = 8  # substeps in which a policy is followed from one time to the next


@dataclass(frozen=True, kw_only=True)
class Distillation(Student):
    """What a student can be asked for, and how it is trained. Its windows and crops are those of `[denoiser]`."""

    usual_share: float = 0.5  # share of samples at the usual guidances; the others' are drawn from the ranges
    asked: int = 2  # times per step at which the teacher is asked, for a policy
    instant_share: float = 0.5  # share of samples that ask for a step without length, for average
    power: float = 0.5  # a sample of error e has weight 1 / (e + 0.001) ** power; 0: all weigh the same
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=4000, batch_size=16, learning_rate=2e-4, warmup_steps=100)
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.usual_share <= 1 or not 0 <= self.instant_share <= 1 or not 0 <= self.power <= 2:
            raise ConfigError("usual_share and instant_share must be in [0, 1], power in [0, 2]")
        if not 1 <= self.asked <= 64:
            raise ConfigError(f"asked is {self.asked}; give 1 to 64 times per step")
        if self.method == "average" and any(n & (n - 1) or n > 2**FINEST for n in self.steps):
            raise ConfigError(f"steps of method average must be powers of 2 up to {2**FINEST}; found {self.steps}")

    def student(self) -> Student:
        """What the student can be asked for, without how it is trained."""
        return Student(**{f.name: getattr(self, f.name) for f in fields(Student)})


@dataclass(frozen=True)
class StepSampler:
    """Draws sample n: a window, and the step that the student is asked for."""

    windows: Draw
    config: Distillation

    def __call__(self, n: int) -> dict:
        config, rng = self.config, np.random.default_rng((self.config.loop.seed, n, 2))
        sample = self.windows(n)
        usual = (Sampling.map_guidance, Sampling.crop_guidance)
        ranges = np.array([config.map_guidance, config.crop_guidance])
        drawn = np.clip(usual, *ranges.T) if rng.random() < config.usual_share else rng.uniform(*ranges.T)
        done = n / (config.loop.steps * config.loop.batch_size)
        start, end, asked = self._step(rng, float(sample["time_draw"]), done)
        times = {"start": np.float32(start), "end": np.float32(end), "asked": np.asarray(asked, np.float32)}
        return sample | times | {"guidance": drawn.astype(np.float32)}

    def _step(self, rng: np.random.Generator, time_draw: float, done: float) -> tuple[float, float, np.ndarray]:
        """Start and end of a step, and the times within it at which something is asked, the latest last."""
        config = self.config
        if config.method == "policy":
            steps = int(rng.choice(config.steps))
            start = 1 - int(rng.integers(steps)) / steps
            end = start - 1 / steps
            parts = (np.arange(config.asked) + rng.random(config.asked)) / config.asked
            return start, end, np.maximum(start - parts * (start - end), EARLIEST)
        if config.method == "guided" or rng.random() < config.instant_share:
            time = max(1 / (1 + np.exp(-time_draw)), EARLIEST)
            return time, time, np.array([time])
        longest = max(0, round(FINEST - 2 * FINEST * done))  # steps grow during the first half
        parts = 2 ** int(rng.integers(longest, FINEST + 1))
        start = 1 - int(rng.integers(parts)) / parts
        return start, start - 1 / parts, np.array([start - 0.5 / parts])


class DistillationObjective(nn.Module):
    """Losses of a batch of steps that `StepSampler` drew."""

    def __init__(self, student: Denoiser, teacher: Denoiser, autoencoder: ModelMixin, config: Distillation):
        super().__init__()
        self.student, self.config = student, config
        self._frozen = (teacher.eval().requires_grad_(False), autoencoder)  # in a tuple: neither trained nor saved

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        teacher, autoencoder = self._frozen
        nn.Module.to(teacher, batch["latents"].device)
        conditions = read_conditions(batch, self.student, autoencoder)
        with torch.no_grad():
            asked = read_teacher(teacher, conditions, self.config.guidance_interval)
        context = self.student.read(conditions)
        latents, _ = flow(batch["latents"], batch["noise"], batch["start"])
        way = self._policy if self.config.method == "policy" else self._velocity
        errors = way(latents, batch, context, asked)
        weights = (errors.detach() + 1e-3) ** -self.config.power
        return {"loss": (weights * errors).mean(), "error": errors.mean().detach()}

    def _predict(
        self, latents: Tensor, start: Tensor, end: Tensor, guidance: Tensor, context: Context
    ) -> Float[Tensor, "b kc h w"]:
        aim = self.config.aim(end, *guidance.T)
        return self.student(latents, start, context, aim).float()

    def _velocity(
        self, latents: Tensor, batch: dict[str, Tensor], context: Context, teacher: Teacher
    ) -> Float[Tensor, " b"]:
        """Errors of the guided velocity, for steps without length, and of the mean velocity of the others."""
        start, end, guidance = batch["start"], batch["end"], batch["guidance"]
        predicted = self._predict(latents, start, end, guidance, context)
        target, instant = torch.empty_like(predicted), start == end
        with torch.no_grad():
            if len(at := instant.nonzero()[:, 0]):
                asked = teacher.take(at)
                target[at] = asked.velocity(latents[at], start[at], guidance[at])
            if len(at := (~instant).nonzero()[:, 0]):
                middle = batch["asked"][at, 0]
                target[at] = self._mean_velocity(
                    latents[at], start[at], middle, end[at], guidance[at], context.take(at)
                )
        return _square(predicted - target)

    def _mean_velocity(
        self, latents: Tensor, start: Tensor, middle: Tensor, end: Tensor, guidance: Tensor, context: Context
    ) -> Tensor:
        """The mean of what the student predicts for both halves of a step."""
        first = self._predict(latents, start, middle, guidance, context)
        halfway = latents - (start - middle)[:, None, None, None] * first
        return (first + self._predict(halfway, middle, end, guidance, context)) / 2

    def _policy(
        self, latents: Tensor, batch: dict[str, Tensor], context: Context, teacher: Teacher
    ) -> Float[Tensor, " b"]:
        """Errors of the velocity of a policy, where it leads."""
        between, guidance = (batch["start"], batch["end"]), batch["guidance"]
        points = clean_points(latents, self._predict(latents, *between, guidance, context), batch["start"])
        followed, now, errors = points.detach(), batch["start"], []
        for then in batch["asked"].T:
            with torch.no_grad():
                latents = follow(latents, followed, between, now, then, BETWEEN)
                target = teacher.velocity(latents, then, guidance)
            predicted = (latents - clean_at(points, *between, then)) / then[:, None, None, None]
            errors.append(_square(predicted - target))
            now = then
        return torch.stack(errors).mean(0)


def make_student(teacher: Denoiser, student: Student) -> Denoiser:
    """A student that predicts what its teacher predicts, whatever the step it is asked for.

    It starts without guidance, unless the teacher is itself a student that reads guidance.
    """
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(student).items()}
    config = {key: value for key, value in teacher.config.items() if not key.startswith("_")}
    made = cast(Denoiser, Denoiser.from_config(config | {"student": asked}))
    weights = teacher.state_dict()
    for name in ("leave.2.weight", "leave.2.bias"):
        weights[name] = weights[name].repeat(student.outputs, *[1] * (weights[name].ndim - 1))
    made.load_state_dict(made.state_dict() | weights)
    return made


def train_student(
    patches: Patches,
    teacher: Denoiser,
    autoencoder: ModelMixin,
    config: Distillation,
    windows: DenoiserTraining,
    folder: Path,
    *,
    caching: Bar = SILENT,
    on_step: Callable[[Step], None] | None = None,
    on_checkpoint: Callable[[int, Denoiser], None] | None = None,
    hidden: tuple[int, ...] = (),
) -> Denoiser:
    """Distill `teacher`, resuming from `folder`; returns the averaged student in eval mode.

    `windows` says how windows and crops are drawn; its loop has no effect, and `hidden` are the ids of its hidden
    types. Raises ConfigError for a teacher that cannot be distilled so: see `check_teacher`.
    """
    check_teacher(teacher, config)
    shown = replace(windows_of(windows, teacher), loop=config.loop)
    _, sampler = prepare(patches, teacher.num_types, autoencoder, shown, folder, caching, hidden=hidden)
    mean, std = (np.asarray(teacher.config[name], np.float32) for name in ("latent_mean", "latent_std"))
    sampler = replace(sampler, cache=replace(sampler.cache, mean=mean, std=std))
    torch.manual_seed(config.loop.seed)
    student = make_student(teacher, config.student())
    objective = DistillationObjective(student, teacher, autoencoder, config)
    drawn = str(replace(shown, loop=LoopConfig()))  # `identity_of` says what of the loop may not change
    identity = identity_of(config, patches=patches.fingerprint(), teacher=weights_hash(teacher), windows=drawn)
    if config.method == "average":
        identity |= {"steps grow over": config.loop.steps}  # so a longer run is another run
    report = None if on_checkpoint is None else (lambda step, averaged: on_checkpoint(step, averaged.student))
    together = partial(collate, crop_edge=shown.crops.largest)
    averaged = fit(objective, StepSampler(sampler, config), together, config.loop, folder, identity, on_step, report)
    assert isinstance(averaged, DistillationObjective)
    return averaged.student.eval()


def windows_of(windows: DenoiserTraining, teacher: Denoiser) -> DenoiserTraining:
    """How windows are drawn for a student: with a map always, and for the network of the teacher."""
    return replace(
        windows,
        conditioning=teacher.config["conditioning"],
        channels=tuple(teacher.config["channels"]),
        blocks=tuple(teacher.config["blocks"]),
        objective=teacher.config["objective"],
        map_dropout=0.0,
    )


def _square(difference: Tensor) -> Float[Tensor, " b"]:
    """Mean square per sample."""
    return difference.square().flatten(1).mean(1)
