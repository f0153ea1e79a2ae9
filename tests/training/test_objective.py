import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from histoloom.models.schedulers import PAPER_SCHEDULE
from histoloom.training import objective


@pytest.fixture
def latents():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 3, 4, 4, generator=generator)


def test_flow_mixes_as_the_flow_scheduler_of_diffusers_does(latents):
    clean, noise = latents
    scheduler = FlowMatchEulerDiscreteScheduler()
    timesteps = scheduler.timesteps[[0, 10, 500, 900, 999]]
    noisy, velocity = objective.flow(clean, noise, timesteps / 1000)
    torch.testing.assert_close(noisy, scheduler.scale_noise(clean, timesteps, noise))
    torch.testing.assert_close(velocity, noise - clean)


def test_a_euler_step_along_the_velocity_leads_from_noise_to_clean(latents):
    clean, noise = latents
    noisy, velocity = objective.flow(clean, noise, torch.full((5,), 0.7))
    torch.testing.assert_close(noisy - 0.7 * velocity, clean)
    torch.testing.assert_close(noisy + 0.3 * velocity, noise)


def test_epsilon_noises_as_ddim_does_at_the_thousandths_of_time(latents):
    clean, noise = latents
    time = torch.tensor([0.0, 0.0109, 0.5, 0.9, 1.0])
    noisy, target = objective.epsilon(clean, noise, time)
    scheduler = DDIMScheduler(**PAPER_SCHEDULE)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, torch.tensor([0, 10, 500, 900, 999])))
    assert target is noise


def test_the_papers_betas_are_linear_in_their_root():
    betas = np.linspace(0.0015**0.5, 0.0205**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    clean, noise = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    for step in (0, 250, 999):
        noisy, _ = objective.epsilon(clean, noise, torch.tensor([(step + 0.5) / 1000]))
        assert float(noisy) == pytest.approx(kept[step] ** 0.5, rel=1e-4)


def test_times_are_logit_normal():
    normal = torch.linspace(-3, 3, 7)
    time = objective.logit_normal_time(normal)
    torch.testing.assert_close(torch.logit(time), normal, atol=1e-5, rtol=1e-5)
    assert float(time[3]) == 0.5


def test_losses_are_the_mean_absolute_and_the_mean_squared_difference(latents):
    one, other = latents
    assert float(objective.loss(one, other, "l1")) == pytest.approx((one - other).abs().mean().item())
    assert float(objective.loss(one, other, "l2")) == pytest.approx(((one - other) ** 2).mean().item())
