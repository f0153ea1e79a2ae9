"""Samplers, all from diffusers, by name: which of them fits an objective, and how many steps it wants."""

from collections.abc import Callable

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from histoloom.errors import ConfigError

# The prototype's schedule: "linear" in the words of latent-diffusion, which is linear in the square root of beta.
PAPER_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0205,
    "beta_schedule": "scaled_linear",
}
_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}

# objective family -> sampler -> (factory, steps); the first of a family is its default.
SAMPLERS: dict[str, dict[str, tuple[Callable[[], SchedulerMixin], int]]] = {
    "flow": {
        "unipc": (lambda: UniPCMultistepScheduler(**_FLOW), 20),
        "dpm++": (lambda: DPMSolverMultistepScheduler(**_FLOW), 20),
        "euler": (lambda: FlowMatchEulerDiscreteScheduler(), 25),
        "heun": (lambda: FlowMatchHeunDiscreteScheduler(), 12),
    },
    "epsilon": {
        "ddim": (lambda: DDIMScheduler(**PAPER_SCHEDULE, clip_sample=False, set_alpha_to_one=False), 200),
        "dpm++": (lambda: DPMSolverMultistepScheduler(**PAPER_SCHEDULE), 25),
        "unipc": (lambda: UniPCMultistepScheduler(**PAPER_SCHEDULE), 25),
    },
}


def make_sampler(objective: str, name: str | None = None) -> tuple[SchedulerMixin, int]:
    """The sampler of this name, or the default one, with its usual number of steps; raises ConfigError with the
    known names."""
    family = SAMPLERS[objective.split("-")[0]]
    name = name or next(iter(family))
    if name not in family:
        raise ConfigError(f"sampler {name!r} does not fit objective {objective!r}; known: {', '.join(family)}")
    factory, steps = family[name]
    return factory(), steps


def noise_shares(scheduler: SchedulerMixin, objective: str) -> list[float]:
    """How much of what the network sees is noise, at each timestep that is set: n / (x + n) of their factors.

    For flow that is time itself; noise prediction has a schedule, by which time says something else.
    """
    if objective == "flow":
        return [t / 1000 for t in scheduler.timesteps.tolist()]  # float32 may miss a bound
    of_latents = scheduler.alphas_cumprod[scheduler.timesteps.long().cpu()].sqrt()
    of_noise = (1 - of_latents**2).sqrt()
    return (of_noise / (of_latents + of_noise)).tolist()
