"""The hook after each step: it sees where a step leads, changes no byte, and stops the work."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from weaving import grain, halves, weave

from histoloom import Crop, Order, WeaveConfig
from histoloom import weave as weave_orders
from histoloom.canvas.inpaint import inpaint
from histoloom.models.autoencoder import to_images
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import SAMPLERS
from histoloom.models.students import Student


class Watcher:
    """Keeps the calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, pipeline, step, timestep, kwargs):
        self.calls.append((step, float(timestep), kwargs))
        return {}


def decoded(pipeline, latents) -> np.ndarray:
    """Pixels of latents, without the margin of 8 px."""
    return to_images(pipeline.decode_latents(latents)).numpy()[:, 8:-8, 8:-8]


@pytest.fixture(scope="module")
def make_student(pipeline):
    """A tiny pipeline whose denoiser is a student of a method."""

    def make(method: str) -> HistoloomPipeline:
        from histoloom.models.denoiser import Denoiser
        from histoloom.models.schedulers import make_sampler

        torch.manual_seed(1)
        student = Student(method=method, points=2, steps=(1, 2, 4))
        shape = dict(pipeline.denoiser.config) | {"student": json.loads(json.dumps(asdict(student)))}
        denoiser = Denoiser(**{name: value for name, value in shape.items() if not name.startswith("_")})
        scheduler = make_sampler(denoiser.samplers)[0]
        return HistoloomPipeline(pipeline.autoencoder, denoiser.eval(), scheduler, list(pipeline.config["tissue"]))

    return make


@pytest.mark.parametrize("sampler", SAMPLERS["flow"])
def test_it_is_called_after_each_step_and_changes_no_byte(pipeline, sampler):
    watcher = Watcher()
    crops = {"stroma": grain(0)}
    plain = weave(pipeline, halves(0, 1), crops, sampler=sampler)
    watched = weave(pipeline, halves(0, 1), crops, sampler=sampler, callback_on_step_end=watcher)
    assert np.array_equal(plain, watched)
    numbers = [kwargs["number"] for _, _, kwargs in watcher.calls]
    assert numbers == list(range(watcher.calls[0][2]["count"]))
    assert {tuple(kwargs["clean_latents"].shape) for *_, kwargs in watcher.calls} == {(1, 4, 10, 10)}


def test_clean_latents_of_the_last_euler_step_are_the_result(pipeline):
    watcher = Watcher()
    image = weave(pipeline, halves(0, 1), sampler="euler", callback_on_step_end=watcher)
    last = watcher.calls[-1][2]
    assert torch.allclose(last["clean_latents"], last["latents"], atol=1e-5)
    assert np.array_equal(decoded(pipeline, last["latents"]), image)


def test_clean_latents_of_noise_prediction_are_those_of_its_own_sampler(make_pipeline):
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    noisy, watcher, kept = make_pipeline(objective="epsilon-l2"), Watcher(), []
    step = DDIMScheduler.step

    class Kept(DDIMScheduler):
        def step(self, *given, **options):
            kept.append(step(self, *given, **options | {"return_dict": True}).pred_original_sample)
            return step(self, *given, **options)

    noisy.scheduler = Kept.from_config(noisy.scheduler.config)
    scheduler, sampling = noisy.resolve(Sampling(steps=4, sampler="ddim"))
    noisy._generate([halves(0, 1)], [[]], [3], Kept.from_config(scheduler.config), sampling, watcher)
    assert len(kept) == len(watcher.calls) == 4
    for mine, (_, _, kwargs) in zip(kept, watcher.calls, strict=True):
        assert torch.allclose(kwargs["clean_latents"], mine, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["guided", "average", "policy"])
def test_students_say_where_their_steps_lead(make_student, method):
    student, watcher = make_student(method), Watcher()
    options = {"steps": 2, "sampler": "euler" if method == "guided" else None}
    plain = weave(student, halves(0, 1), **options)
    assert np.array_equal(plain, weave(student, halves(0, 1), callback_on_step_end=watcher, **options))
    assert len(watcher.calls) == 2
    if method != "policy":  # one velocity: its last step ends at the clean latents
        last = watcher.calls[-1][2]
        assert torch.allclose(last["clean_latents"], last["latents"], atol=1e-5)


def test_other_latents_are_used_and_an_exception_stops_the_work(pipeline):
    def zeros(pipeline, step, timestep, kwargs):
        return {"latents": torch.zeros_like(kwargs["latents"])}

    image = weave(pipeline, halves(0, 1), callback_on_step_end=zeros)
    assert np.array_equal(image, decoded(pipeline, torch.zeros(1, 4, 10, 10)))

    def stop(pipeline, step, timestep, kwargs):
        calls.append(step)
        raise KeyboardInterrupt

    calls = []
    with pytest.raises(KeyboardInterrupt):
        weave(pipeline, halves(0, 1), callback_on_step_end=stop)
    assert calls == [0]


def test_large_maps_have_a_call_for_each_window(pipeline, monkeypatch):
    monkeypatch.setattr("histoloom.models.pipeline.LARGE", 300)
    watcher, semantic_map = Watcher(), halves(0, 1, size=448)
    plain = weave(pipeline, semantic_map, steps=1)
    assert np.array_equal(plain, weave(pipeline, semantic_map, steps=1, callback_on_step_end=watcher))
    places = {(kwargs["y"], kwargs["x"]) for *_, kwargs in watcher.calls}
    assert len(places) == len(watcher.calls) == 4
    assert (-8, -8) in places  # the margin, too, is woven
    assert all(kwargs["number"] < kwargs["count"] for *_, kwargs in watcher.calls)


def test_inpaint_and_weave_pass_it_on(pipeline):
    watcher, semantic_map, mask = Watcher(), halves(0, 1, size=192), np.zeros((192, 192), bool)
    mask[160:180, 150:170] = True
    image = grain(5, 192, 192)
    plain = inpaint(pipeline, image, semantic_map, mask, [], Sampling(steps=2), context=16)
    watched = inpaint(
        pipeline, image, semantic_map, mask, [], Sampling(steps=2), context=16, callback_on_step_end=watcher
    )
    assert np.array_equal(plain, watched)
    assert watcher.calls
    assert all(120 <= kwargs["y"] <= 192 for *_, kwargs in watcher.calls)

    woven = Watcher()
    order = Order(halves(0, 1), "map", [Crop(grain(1), 0)])
    list(weave_orders(pipeline, [order], WeaveConfig(steps=2), callback_on_step_end=woven))
    assert [step for step, *_ in woven.calls] == [0, 1]
