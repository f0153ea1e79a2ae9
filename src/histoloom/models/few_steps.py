"""The sampler of students that weave in a few steps, as a scheduler of diffusers."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from histoloom.models.students import clean_points, follow


class FewStepScheduler(SchedulerMixin, ConfigMixin):
    """Steps of equal length from noise (time 1000) to the patch (time 0).

    `prediction_type` is the method of the student: average (x_r = x_t - (t - r) u) or policy. See
    `histoloom.models.students`.
    """

    order = 1

    @register_to_config
    def __init__(self, prediction_type: str = "policy", num_train_timesteps: int = 1000):
        self.timesteps = torch.empty(0)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Set as many steps."""
        shares = torch.arange(num_inference_steps, 0, -1, dtype=torch.float64) / num_inference_steps
        self.timesteps = (shares * self.config["num_train_timesteps"]).to(device, torch.float32)

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = False
    ) -> tuple[Tensor, ...]:
        """Latents at the end of the step that begins at `timestep`, as a tuple of one."""
        scale = float(self.config["num_train_timesteps"])
        later = self.timesteps[self.timesteps < timestep]
        start, end = (
            value.expand(len(sample)) / scale for value in (timestep, later.max() if len(later) else later.sum())
        )
        if self.config["prediction_type"] == "average":
            return (sample - (start - end)[:, None, None, None] * model_output,)
        points = clean_points(sample, model_output, start)
        return (follow(sample, points, (start, end), start, end),)
