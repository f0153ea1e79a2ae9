from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.errors import ConfigError, ModelError
from histoloom.fitting.loop import LoopConfig
from histoloom.models.conditions import Conditions
from histoloom.models.guided import calls_of, predict, weights_of
from histoloom.models.sampling import Sampling
from histoloom.models.students import Student
from histoloom.training.denoiser import DenoiserTraining
from histoloom.training.distillation import (
    Distillation,
    StepSampler,
    make_student,
    train_student,
)
from histoloom.training.teacher import check_teacher, read_teacher

LOOP = LoopConfig(
    steps=24, batch_size=8, learning_rate=3e-3, warmup_steps=2, workers=0, precision="fp32", average_decay=0.5,
    checkpoint_minutes=1e9,
)  # fmt: skip
WINDOWS = DenoiserTraining(window=64, views=1)


@pytest.fixture
def teacher(make_pipeline):
    return make_pipeline()


def drawn(config: Distillation, count: int = 400) -> list[dict]:
    sampler = StepSampler(lambda n: {"time_draw": np.float32(np.random.default_rng(n).standard_normal())}, config)
    return [sampler(n) for n in range(count)]


@pytest.mark.parametrize("method", ["guided", "average", "policy"])
def test_steps_lie_on_the_grid_that_weaving_takes(method):
    config = Distillation(method=method, steps=(1, 4), asked=3, loop=replace(LOOP, steps=50))
    for sample in drawn(config):
        start, end, asked = float(sample["start"]), float(sample["end"]), sample["asked"]
        assert 0 <= end <= start <= 1
        assert (asked <= start).all()
        assert (asked >= min(end, 0.02)).all()
        if method == "policy":
            assert round(1 / (start - end), 4) in (1, 4)
            assert len(asked) == 3
            assert (np.diff(asked) <= 0).all()
        if method == "guided":
            assert start == end


def test_steps_of_the_mean_velocity_grow_during_the_first_half():
    config = Distillation(method="average", instant_share=0.0, loop=replace(LOOP, steps=50))
    lengths = [float(s["start"] - s["end"]) for s in drawn(config)]
    assert max(lengths[:10]) == 1 / 32
    assert max(lengths[200:]) == 1


def test_half_of_the_samples_have_the_usual_guidance_and_the_others_fill_the_ranges():
    found = np.array([s["guidance"] for s in drawn(Distillation(loop=LOOP))])
    usual = (found == np.float32([Sampling.map_guidance, Sampling.crop_guidance])).all(1)
    assert 0.4 < usual.mean() < 0.6
    assert (found.min(0) < [1.1, 1.2]).all()
    assert (found.max(0) > [1.9, 3.8]).all()


def test_the_teacher_is_guided_as_weaving_guides_it(teacher):
    """v_00 + map (v_m0 - v_00) + crop (v_mc - v_m0) within the interval; above 1, v_mc outside."""
    denoiser = teacher.denoiser
    conditions = Conditions(
        type_map=torch.randint(0, 3, (2, 32, 32)),
        crops=torch.cat([torch.rand(2, 3, 96, 96) * 2 - 1, torch.ones(2, 1, 96, 96)], 1),
        crop_types=torch.tensor([0, 1]),
        crop_samples=torch.tensor([0, 1]),
    )
    latents, guidance = torch.randn(2, 4, 8, 8), torch.tensor([[1.5, 3.0], [2.0, 1.0]])
    with torch.no_grad():
        asked = read_teacher(denoiser, conditions, Student().guidance_interval)
        time = torch.tensor([0.6, 0.95])
        both, only_map, nothing = (denoiser(latents, time, c) for c in (asked.both, asked.only_map, asked.nothing))
        found = asked.velocity(latents, time, guidance)
    expected = nothing[0] + 1.5 * (only_map[0] - nothing[0]) + 3 * (both[0] - only_map[0])
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], both[1])
    assert not torch.allclose(found[0], both[0], atol=1e-3)


@pytest.mark.parametrize("time", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("guidance", [(1.5, 3.0), (0.5, 2.0), (1.5, 0.0), (0.0, 0.5)])
def test_guidance_below_one_acts_at_all_times_in_weaving_and_in_the_teacher(teacher, guidance, time):
    denoiser, latents = teacher.denoiser, torch.randn(1, 4, 8, 8)
    conditions = Conditions(
        type_map=torch.randint(0, 3, (1, 32, 32)),
        crops=torch.cat([torch.rand(1, 3, 96, 96) * 2 - 1, torch.ones(1, 1, 96, 96)], 1),
        crop_types=torch.tensor([1]),
        crop_samples=torch.tensor([0]),
    )
    sampling = Sampling(map_guidance=guidance[0], crop_guidance=guidance[1])
    with torch.no_grad():
        asked = read_teacher(denoiser, conditions, sampling.guidance_interval)
        found = asked.velocity(latents, torch.tensor([time]), torch.tensor([guidance]))
        contexts = {(True, True): asked.both, (True, False): asked.only_map, (False, False): asked.nothing}
        calls = calls_of(weights_of(denoiser, sampling, True, sampling.acts(time)), contexts, latents[:, 0].numel())
        woven = predict(denoiser, latents, torch.tensor(1000 * time), calls)
    torch.testing.assert_close(found, woven, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["guided", "average", "policy"])
def test_a_student_comes_nearer_to_its_teacher(teacher, small_patches, tmp_path, method):
    config = Distillation(method=method, points=4, steps=(2,), instant_share=1.0, loop=LOOP)
    errors = []
    student = train_student(
        small_patches, teacher.denoiser, teacher.autoencoder, config, WINDOWS, tmp_path,
        on_step=lambda step: errors.append(step.losses["error"]),
    )  # fmt: skip
    assert student.student.method == method
    assert np.mean(errors[-8:]) < 0.95 * np.mean(errors[:8])
    assert not student.training


@pytest.mark.parametrize("method", ["average", "policy"])
def test_a_guided_student_teaches_what_it_predicts(teacher, small_patches, tmp_path, method):
    guided = make_student(teacher.denoiser, Student(method="guided"))
    torch.nn.init.normal_(guided.aim[2].weight, std=0.1)  # so that guidance matters
    config = Distillation(
        method=method, points=4, steps=(2,), instant_share=1.0, power=0.0, loop=replace(LOOP, steps=2)
    )
    errors = []
    student = train_student(
        small_patches, guided, teacher.autoencoder, config, WINDOWS, tmp_path,
        on_step=lambda step: errors.append(step.losses["error"]),
    )  # fmt: skip
    assert student.student.method == method
    if method == "average":  # steps without length: it starts as its teacher
        assert errors[0] < 1e-6
    torch.testing.assert_close(student.aim[0].weight, guided.aim[0].weight, rtol=0, atol=0.02)


def test_a_finished_distillation_is_opened_and_another_teacher_is_refused(teacher, small_patches, tmp_path):
    config = Distillation(points=2, steps=(1,), loop=replace(LOOP, steps=2))

    def train(**changes) -> dict:
        made = train_student(
            small_patches, teacher.denoiser, teacher.autoencoder, replace(config, **changes), WINDOWS, tmp_path
        )
        return made.state_dict()

    first, second = train(), train()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(Exception, match="another"):
        train(power=0.0)


def test_a_distillation_goes_on_with_other_workers_and_for_more_steps(teacher, small_patches, tmp_path):
    def train(folder: str, steps: int, **changes) -> dict:
        loop = replace(LOOP, steps=steps, schedule="constant", **changes)
        config = Distillation(method="guided", steps=(2,), loop=loop)
        made = train_student(small_patches, teacher.denoiser, teacher.autoencoder, config, WINDOWS, tmp_path / folder)
        return made.state_dict()

    train("resumed", 1)
    resumed, whole = train("resumed", 3, workers=1, checkpoint_minutes=3.0), train("whole", 3)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    with pytest.raises(ModelError, match=r"was made by another run \(loop.batch_size: 8 then, 4 now\)"):
        train("resumed", 3, batch_size=4)


def test_only_a_model_of_flow_that_reads_maps_is_a_teacher(make_pipeline):
    for wrong, reason in (
        (make_pipeline(objective="epsilon-l1").denoiser, "predicts noise"),
        (make_pipeline("unconditional").denoiser, "conditioning is unconditional"),
        (make_pipeline("crops-in-place").denoiser, "conditioning is crops-in-place"),
        (make_student(make_pipeline().denoiser, Student()), "is itself a student of method average"),
        (
            make_student(make_pipeline().denoiser, Student(method="guided", crop_guidance=(1.0, 2.0))),
            "1 to 4; the teach",
        ),
    ):
        with pytest.raises(ConfigError, match=reason):
            check_teacher(wrong, Student())
    guided = make_student(make_pipeline().denoiser, Student(method="guided"))
    check_teacher(guided, Student())
    with pytest.raises(ConfigError, match="only other methods"):
        check_teacher(guided, Student(method="guided"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": (3,), "method": "average"},
        {"points": 1, "method": "policy"},
        {"asked": 0},
        {"power": -1.0},
        {"usual_share": 2.0},
    ],
)
def test_settings_that_no_distillation_has_are_refused(wrong):
    with pytest.raises(ConfigError):
        Distillation(**wrong)
