from dataclasses import asdict

import numpy as np
import pytest
import torch

from histoloom.errors import ConfigError, HistoloomError
from histoloom.models.few_steps import FewStepScheduler
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import make_sampler
from histoloom.models.students import Student, clean_at, clean_points, follow
from histoloom.training.distillation import make_student

MAP = np.zeros((64, 64), np.uint8)
MAP[16:48, 16:48] = 1


@pytest.fixture
def make_student_pipeline(make_pipeline):
    """`make(**student)`: a tiny pipeline whose denoiser is a fresh student; all that starts at zero is stirred."""

    def make(stirred: bool = True, **student) -> HistoloomPipeline:
        teacher = make_pipeline()
        made = make_student(teacher.denoiser, Student(**student)).eval()
        for parameter in made.parameters():
            if stirred and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        scheduler, _ = make_sampler(made.samplers)
        return HistoloomPipeline(teacher.autoencoder, made, scheduler, teacher.table.to_rows())

    return make


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_a_policy_of_one_patch_leads_straight_to_it():
    latents, clean = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    points = clean[:, None].expand(-1, 5, -1, -1, -1)
    start, end = times(1.0, 0.5), times(0.5, 0.0)
    found = follow(latents, points, (start, end), start, end)
    expected = clean + (end / start)[:, None, None, None] * (latents - clean)
    torch.testing.assert_close(found, expected)


def test_a_policy_is_linear_between_its_points():
    points = torch.arange(3.0)[None, :, None, None, None]
    found = [float(clean_at(points, times(0.8), times(0.4), times(t))) for t in (0.8, 0.7, 0.6, 0.5, 0.4)]
    assert found == pytest.approx([0, 0.5, 1, 1.5, 2], abs=1e-5)


def test_following_a_policy_in_two_parts_is_following_it_in_one():
    points, latents = torch.randn(1, 6, 2, 3, 3), torch.randn(1, 2, 3, 3)
    between = times(0.9), times(0.3)
    whole = follow(latents, points, between, *between, substeps=32)
    half = follow(latents, points, between, times(0.9), times(0.6), substeps=16)
    torch.testing.assert_close(follow(half, points, between, times(0.6), times(0.3), substeps=16), whole)


def test_clean_points_are_where_each_velocity_leads():
    latents, velocities = torch.randn(1, 2, 1, 1), torch.randn(1, 6, 1, 1)
    points = clean_points(latents, velocities, times(0.5))
    torch.testing.assert_close(points[0, 2], latents[0] - 0.5 * velocities[0, 4:])


def test_the_mean_velocity_moves_as_far_as_the_step_is_long():
    scheduler = FewStepScheduler("average")
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [1000, 750, 500, 250]
    latents, velocity = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for t in scheduler.timesteps:
        torch.testing.assert_close(scheduler.step(velocity, t, latents)[0], latents - 0.25 * velocity)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"steps": 3}, "steps is 3; this model was distilled for 1, 2, 4, 8"),
        ({"crop_guidance": 4.5}, "crop_guidance is 4.5; this model was distilled for 1 to 4"),
        ({"map_guidance": 0.5}, "map_guidance is 0.5; this model was distilled for 1 to 2"),
        ({"guidance_interval": (0.0, 1.0)}, "guidance_interval is fixed in a distilled model: 0.4 to 0.9"),
        ({"sampler": "unipc"}, "sampler 'unipc' does not fit"),
    ],
)
def test_a_student_refuses_what_it_was_not_trained_for(make_student_pipeline, asked, reason):
    with pytest.raises(ConfigError, match=reason):
        make_student_pipeline()(MAP, **asked)


@pytest.mark.parametrize("method", ["guided", "average", "policy"])
def test_a_student_makes_one_prediction_per_step_and_opens_as_it_was_saved(make_student_pipeline, tmp_path, method):
    pipeline = make_student_pipeline(method=method, points=8 if method == "policy" else 1)
    seen: list[int] = []
    pipeline.denoiser.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    woven = pipeline(MAP, steps=4, crop_guidance=2.0)
    assert sum(seen) == 4
    assert not np.array_equal(woven, pipeline(MAP, steps=4, crop_guidance=3.0))
    pipeline.save_pretrained(str(tmp_path / "student"))
    opened = HistoloomPipeline.load(tmp_path / "student", torch.float32)
    assert opened.denoiser.student == pipeline.denoiser.student
    again = opened(MAP, steps=4, crop_guidance=2.0)
    assert np.abs(again.astype(int) - woven).max() <= 1  # kernels round by where weights lie in memory


def test_the_default_of_a_student_is_four_steps_of_its_own_sampler(make_student_pipeline):
    scheduler, sampling = make_student_pipeline().resolve(Sampling())
    assert (type(scheduler).__name__, sampling.sampler, sampling.steps) == ("FewStepScheduler", "average", 4)
    assert make_student_pipeline(steps=(1, 2)).resolve(Sampling())[1].steps == 2
    assert make_student_pipeline(usual_steps=1).resolve(Sampling())[1].steps == 1
    assert make_student_pipeline(method="guided", points=1).resolve(Sampling())[1].sampler == "unipc"


@pytest.mark.parametrize(
    "damage",
    [
        {"method": "magic"},
        {"steps": []},
        {"steps": [0]},
        {"points": 1, "method": "policy"},
        {"usual_steps": 3},
        {"points": 10**9},
        {"map_guidance": [2.0, 1.0]},
        {"crop_guidance": [1.0, float("nan")]},
        {"unknown": 1},
        [],
        "policy",
    ],
)
def test_a_student_of_nonsense_is_refused_before_any_weight_is_made(make_student_pipeline, tmp_path, damage):
    import json

    folder = tmp_path / "student"
    make_student_pipeline().save_pretrained(str(folder))
    path = folder / "denoiser" / "config.json"
    config = json.loads(path.read_text())
    config["student"] = {**config["student"], **damage} if isinstance(damage, dict) else damage
    path.write_text(json.dumps(config))
    with pytest.raises(HistoloomError, match=r"student|method|steps|points|guidance"):
        HistoloomPipeline.load(folder)


def test_a_fresh_student_weaves_what_its_teacher_weaves_without_guidance(make_pipeline, make_student_pipeline):
    teacher, student = make_pipeline(), make_student_pipeline(stirred=False)
    ours = student(MAP, steps=8).astype(int)
    # Straight to each predicted patch, by the same eight predictions: Euler steps of the velocity.
    theirs = teacher(MAP, steps=8, sampler="euler", map_guidance=1.0, crop_guidance=1.0).astype(int)
    assert np.abs(ours - theirs).mean() < 3
    assert asdict(Student())["points"] == 8
