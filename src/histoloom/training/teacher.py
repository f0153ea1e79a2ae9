"""The teacher of a distillation: a frozen denoiser that is asked for guided velocities.

A plain denoiser is guided as in weaving, which takes up to three predictions. A student of method `guided` reads the
guidance, and takes one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from histoloom.errors import ConfigError
from histoloom.models.conditions import Conditions, Context
from histoloom.models.denoiser import Denoiser
from histoloom.models.students import Student


@dataclass
class PlainTeacher:
    """A denoiser that was not distilled, and what it reads of a batch: everything, the map alone, nothing."""

    denoiser: Denoiser
    interval: tuple[float, float]
    both: Context
    only_map: Context
    nothing: Context

    def take(self, samples: Tensor) -> "PlainTeacher":
        """The teacher of some samples of the batch."""
        contexts = (context.take(samples) for context in (self.both, self.only_map, self.nothing))
        return PlainTeacher(self.denoiser, self.interval, *contexts)

    def velocity(self, latents: Tensor, time: Float[Tensor, " b"], guidance: Float[Tensor, "b 2"]) -> Tensor:
        """The guided velocity: v_00 + map (v_m0 - v_00) + crop (v_mc - v_m0); outside the interval, guidance above 1
        counts as 1."""
        found = self.denoiser(latents, time, self.both).float()
        low, high = self.interval
        within = (time >= low) & (time <= high)
        guidance = torch.where(within[:, None], guidance, guidance.clamp(max=1))
        acts = (within | (guidance < 1).any(1)).nonzero()[:, 0]
        if len(acts):
            part, at = latents[acts], time[acts]
            with_map, without = (self.denoiser(part, at, c.take(acts)).float() for c in (self.only_map, self.nothing))
            by_map, by_crop = (weight[:, None, None, None] for weight in guidance[acts].T)
            found[acts] = without + by_map * (with_map - without) + by_crop * (found[acts] - with_map)
        return found


@dataclass
class GuidedTeacher:
    """A student of method `guided`, and what it reads of a batch."""

    denoiser: Denoiser
    context: Context

    def take(self, samples: Tensor) -> "GuidedTeacher":
        """The teacher of some samples of the batch."""
        return GuidedTeacher(self.denoiser, self.context.take(samples))

    def velocity(self, latents: Tensor, time: Float[Tensor, " b"], guidance: Float[Tensor, "b 2"]) -> Tensor:
        """The guided velocity, in one prediction."""
        assert self.denoiser.student is not None
        return self.denoiser(latents, time, self.context, self.denoiser.student.aim(time, *guidance.T)).float()


Teacher = PlainTeacher | GuidedTeacher


def read_teacher(denoiser: Denoiser, conditions: Conditions, interval: tuple[float, float]) -> Teacher:
    """Encode the conditions of a batch; guidance acts within the `interval` of times."""
    if denoiser.student is not None:
        return GuidedTeacher(denoiser, denoiser.read(conditions))
    assert conditions.type_map is not None
    empty = torch.full_like(conditions.type_map, denoiser.num_types + 1)
    return PlainTeacher(
        denoiser,
        interval,
        denoiser.read(conditions),
        denoiser.read(Conditions(type_map=conditions.type_map)),
        denoiser.read(Conditions(type_map=empty)),
    )


def check_teacher(teacher: Denoiser, student: Student) -> None:
    """Raise ConfigError for a denoiser that cannot be distilled into `student`."""
    if teacher.objective != "flow":
        raise ConfigError(f"the teacher predicts noise ({teacher.objective}); only flow can be distilled")
    if not teacher.reads.map or teacher.reads.canvas:
        raise ConfigError(f"the teacher's conditioning is {teacher.config['conditioning']}, which cannot be distilled")
    if teacher.student is None:
        return
    if teacher.student.method != "guided" or student.method == "guided":
        raise ConfigError(
            f"the teacher is itself a student of method {teacher.student.method}; name the model that it was distilled "
            "from (only a student of method guided can teach, and only other methods)"
        )
    for name in ("map_guidance", "crop_guidance", "guidance_interval"):
        has, asked = getattr(teacher.student, name), getattr(student, name)
        if has != asked:
            raise ConfigError(
                f"{name} is {asked[0]:g} to {asked[1]:g}; the teacher was distilled for {has[0]:g} to {has[1]:g}: give "
                "the same"
            )
