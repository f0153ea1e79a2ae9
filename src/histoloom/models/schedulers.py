"""Samplers, all from diffusers, by name: which fits an objective, and how many steps it takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from histoloom.errors import ConfigError
from histoloom.models.few_steps import FewStepScheduler
from histoloom.models.sampling import Sampling

Scheduler = Any  # a scheduler of diffusers, whose common base class declares none of the methods they share
S = TypeVar("S", bound=Sampling)

# The prototype's schedule: "linear" in the words of latent-diffusion, which is linear in the square root of beta.
PAPER_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0205,
    "beta_schedule": "scaled_linear",
}
_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}

# family -> sampler -> (factory, steps); the first of a family is its default. A family is the objective up to its dash,
# or the method of a student that moves in steps of its own.
SAMPLERS: dict[str, dict[str, tuple[Callable[[], Scheduler], int]]] = {
    "flow": {
        "unipc": (lambda: UniPCMultistepScheduler(**_FLOW), 10),
        "dpm++": (lambda: DPMSolverMultistepScheduler(**_FLOW), 20),
        "euler": (lambda: FlowMatchEulerDiscreteScheduler(), 25),
        "heun": (lambda: FlowMatchHeunDiscreteScheduler(), 12),
    },
    "epsilon": {
        "ddim": (lambda: DDIMScheduler(**PAPER_SCHEDULE, clip_sample=False, set_alpha_to_one=False), 200),
        "dpm++": (lambda: DPMSolverMultistepScheduler(**PAPER_SCHEDULE), 25),
        "unipc": (lambda: UniPCMultistepScheduler(**PAPER_SCHEDULE), 25),
    },
    "average": {"average": (lambda: FewStepScheduler("average"), 4)},
    "policy": {"policy": (lambda: FewStepScheduler("policy"), 4)},
}


def make_sampler(kind: str, name: str | None = None) -> tuple[Scheduler, int]:
    """The sampler of this name, or the default, and its usual number of steps.

    `kind` is an objective, or `Denoiser.samplers`. Raises ConfigError with the known names.
    """
    family = SAMPLERS[kind.split("-")[0]]
    name = name or next(iter(family))
    if name not in family:
        raise ConfigError(f"sampler {name!r} does not fit a model of kind {kind!r}; known: {', '.join(family)}")
    factory, steps = family[name]
    return factory(), steps


def resolve(sampling: S, kind: str, saved: Scheduler) -> tuple[Scheduler, S]:
    """The scheduler that `sampling` means for a model, and `sampling` with the sampler's name and its steps filled in.

    `saved` is the scheduler that was saved with the model; a fresh copy of it is used where `sampling` names none.
    `kind` is an objective, or `Denoiser.samplers`. Raises ConfigError for a sampler that does not fit it.
    """
    if sampling.sampler is not None:
        scheduler, usual = make_sampler(kind, sampling.sampler)
        return scheduler, replace(sampling, steps=sampling.steps or usual)
    name, usual = _find(kind, saved)
    return type(saved).from_config(saved.config), replace(sampling, sampler=name, steps=sampling.steps or usual)


def noise_shares(scheduler: Scheduler, objective: str) -> list[float]:
    """The share of noise in what the network sees, at each timestep that is set: n / (x + n) of their factors.

    For flow it is the time itself; for noise prediction it follows from the schedule.
    """
    if objective == "flow":
        return [t / 1000 for t in scheduler.timesteps.tolist()]  # float32 may miss a bound
    of_latents = scheduler.alphas_cumprod[scheduler.timesteps.long().cpu()].sqrt()
    of_noise = (1 - of_latents**2).sqrt()
    return (of_noise / (of_latents + of_noise)).tolist()


def scheduler_classes() -> set[tuple[str, str]]:
    """Library and class name of all schedulers in the table, as a saved pipeline names them."""
    classes = {type(factory()) for family in SAMPLERS.values() for factory, _ in family.values()}
    return {(c.__module__ if c.__module__.startswith("histoloom") else "diffusers", c.__name__) for c in classes}


def _find(kind: str, saved: Scheduler) -> tuple[str, int]:
    """Name and usual steps of a saved scheduler."""
    family = SAMPLERS[kind.split("-")[0]]
    for name, (factory, steps) in family.items():
        known = factory()
        same_target = known.config.get("prediction_type") == saved.config.get("prediction_type")
        if type(known) is type(saved) and same_target:
            return name, steps
    raise ConfigError(
        f"the model was saved with {type(saved).__name__}, which does not fit a model of kind {kind!r}; choose a "
        f"sampler: {', '.join(family)}"
    )
