import numpy as np
import pytest
import torch

from histoloom.errors import ConfigError
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import PAPER_SCHEDULE, SAMPLERS, make_sampler, noise_shares
from histoloom.training import objective

FLOW, EPSILON = ([(family, name) for name in SAMPLERS[family]] for family in ("flow", "epsilon"))


def sample(family: str, name: str, steps: int, clean: torch.Tensor) -> torch.Tensor:
    """Run a sampler on the exact predictor of data that is one point: it must arrive there."""
    scheduler, _ = make_sampler(family, name)
    scheduler.set_timesteps(steps)
    kept = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0205**0.5, 1000) ** 2)
    latents = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        if family == "flow":
            prediction = (latents - clean) / max(float(t) / 1000, 1e-3)
        else:
            alpha = float(kept[int(t)])
            prediction = (latents - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize(("family", "name"), FLOW + EPSILON)
def test_every_sampler_finds_the_one_point_that_the_data_is(family, name):
    clean = torch.linspace(-2, 2, 16).view(1, 1, 4, 4)
    torch.testing.assert_close(sample(family, name, 25, clean), clean, atol=0.1, rtol=0.05)


@pytest.mark.parametrize(("family", "name"), FLOW + EPSILON)
def test_every_sampler_says_how_many_steps_it_wants(family, name):
    scheduler, steps = make_sampler(family, name)
    assert steps == SAMPLERS[family][name][1]
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) >= steps
    assert float(scheduler.timesteps.max()) <= 1000


def test_defaults_are_unipc_for_flow_and_the_papers_ddim_for_noise():
    assert type(make_sampler("flow")[0]).__name__ == "UniPCMultistepScheduler"
    for name in ("epsilon-l1", "epsilon-l2"):
        scheduler, steps = make_sampler(name)
        assert (type(scheduler).__name__, steps) == ("DDIMScheduler", 200)
        assert {key: scheduler.config[key] for key in PAPER_SCHEDULE} == PAPER_SCHEDULE


def test_training_and_sampling_share_one_schedule():
    scheduler, _ = make_sampler("epsilon-l1")
    clean, noise = torch.randn(2, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([0.0, 0.3, 0.6, 0.999])
    noisy, _ = objective.epsilon(clean, noise, time)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, (time * 1000).long()))


def test_a_sampler_that_does_not_fit_is_answered_with_those_that_do():
    with pytest.raises(ConfigError, match=r"'ddim' does not fit a model of kind 'flow'; known: unipc, dpm"):
        make_sampler("flow", "ddim")


@pytest.mark.parametrize(("family", "name"), FLOW + EPSILON)
def test_the_share_of_noise_falls_from_one_to_nearly_none(family, name):
    scheduler, _ = make_sampler(family, name)
    scheduler.set_timesteps(25)
    shares = noise_shares(scheduler, "flow" if family == "flow" else "epsilon-l1")
    assert len(shares) == len(scheduler.timesteps)
    assert shares == sorted(shares, reverse=True)
    assert 0.9 < shares[0] <= 1
    assert 0 <= shares[-1] < 0.25


@pytest.mark.parametrize(("interval", "steps"), [((0.4, 0.9), 11), ((0.2, 0.8), 13), ((0.7, 0.9), 5)])
def test_a_bound_on_a_step_takes_it_in(interval, steps):
    scheduler, _ = make_sampler("flow", "unipc")
    scheduler.set_timesteps(20)
    assert sum(map(Sampling(guidance_interval=interval).acts, noise_shares(scheduler, "flow"))) == steps


def test_the_share_of_noise_is_what_a_noisy_sample_holds():
    scheduler, _ = make_sampler("epsilon", "ddim")
    scheduler.set_timesteps(10)
    nothing, noise = torch.zeros(1), torch.ones(1)
    for t, share in zip(scheduler.timesteps, noise_shares(scheduler, "epsilon-l2"), strict=True):
        of_latents, of_noise = (scheduler.add_noise(*pair, t[None]) for pair in ((noise, nothing), (nothing, noise)))
        assert share == pytest.approx(float(of_noise / (of_latents + of_noise)), rel=1e-4)
    flow, _ = make_sampler("flow", "euler")
    flow.set_timesteps(10)
    assert noise_shares(flow, "flow") == pytest.approx(flow.sigmas[:-1].tolist())
