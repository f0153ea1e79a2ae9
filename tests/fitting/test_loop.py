import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from histoloom.errors import ConfigError, HistoloomError, ModelError, OutputError
from histoloom.fitting import loop
from histoloom.fitting.checkpoint import CHECKPOINT
from histoloom.fitting.loop import LoopConfig, fit, identity_of, learning_rate_factor


def fit_stage(folder: Path, steps: int, schedule: str = "cosine") -> dict:
    loop = LoopConfig(steps=steps, batch_size=2, workers=0, precision="fp32", schedule=schedule)
    return fit(Line(), draw, collate, loop, folder, identity_of(StageConfig(loop))).state_dict()


def test_a_run_at_a_constant_rate_is_lengthened_and_ends_as_one_that_was_long_from_the_start(tmp_path):
    fit_stage(tmp_path / "short", 3, "constant")
    long, lengthened = (fit_stage(tmp_path / name, 6, "constant") for name in ("long", "short"))
    assert all(torch.equal(long[name], lengthened[name]) for name in long)
    with pytest.raises(ModelError, match="has trained 6 steps, more than the 3 asked for"):
        fit_stage(tmp_path / "short", 3, "constant")


def test_a_cosine_run_is_not_lengthened(tmp_path):
    fit_stage(tmp_path, 3)
    with pytest.raises(ModelError, match=r'loop\.steps: 3 then, 6 now; only a run with schedule = "constant"'):
        fit_stage(tmp_path, 6)


def test_a_run_in_memory_ends_with_the_weights_of_one_with_checkpoints(tmp_path):
    saved = train(tmp_path).state_dict()
    alone = fit(Line(), draw, collate, LoopConfig(steps=3, batch_size=2, workers=0, precision="fp32")).state_dict()
    assert all(torch.equal(saved[name], alone[name]) for name in saved)


def test_a_checkpoint_of_another_precision_is_not_mixed_in(tmp_path):
    train(tmp_path, precision="bf16")
    with pytest.raises(ModelError, match="precision: bf16 then, fp32 now; this machine resumes it with"):
        train(tmp_path, precision="fp32")


@dataclass(frozen=True)
class StageConfig:
    """A stage with nothing but its loop."""

    loop: LoopConfig


class Line(nn.Module):
    """One layer whose loss is `scale` times its mean square."""

    def __init__(self, features: int = 4, scale: float = 1.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale = nn.Linear(features, 1), scale

    def forward(self, batch: dict) -> dict:
        return {"loss": self.scale * self.layer(batch["x"]).square().mean()}


def train(folder: Path, line: nn.Module | None = None, identity: dict | None = None, **loop) -> nn.Module:
    config = LoopConfig(**{"steps": 3, "batch_size": 2, "workers": 0, "precision": "fp32"} | loop)
    return fit(line or Line(), draw, collate, config, folder, identity or {"loop": {"steps": 3}})


def draw(n: int) -> dict:
    return {"x": np.random.default_rng(n).standard_normal(4).astype(np.float32)}


def collate(samples: list[dict]) -> dict:
    return {"x": torch.from_numpy(np.stack([s["x"] for s in samples]))}


def test_another_recipe_in_the_same_folder_is_refused_by_the_key_that_differs(tmp_path):
    train(tmp_path)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: .*loop\.steps: 3 then, 5 now.*another folder"):
        train(tmp_path, identity={"loop": {"steps": 5}})


def test_another_architecture_in_the_same_folder_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: holds another architecture .*delete it"):
        train(tmp_path, nn.Sequential(Line()))
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: holds another architecture .*delete it"):
        train(tmp_path, Line(features=5))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e38])
def test_a_loss_or_gradient_that_is_not_finite_is_refused_and_not_saved(tmp_path, scale):
    with pytest.raises(HistoloomError, match="not finite at step 1; lower learning_rate"):
        train(tmp_path, Line(scale=scale), checkpoint_minutes=1e-9)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_checkpoint_is_named_with_its_cure(tmp_path, kept):
    train(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: is not a readable checkpoint .*delete it"):
        train(tmp_path)


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickled_checkpoint_is_refused_and_never_opened(tmp_path):
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: is not a readable checkpoint"):
        train(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_weights_without_our_record_are_no_checkpoint(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match="its configuration is not recorded"):
        train(tmp_path)


def test_a_place_that_cannot_be_written_to_leaves_nothing_behind(tmp_path):
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / "kept").touch()
    with pytest.raises((OutputError, ModelError), match="checkpoint"):
        train(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="batch_size 3 does not divide into 1 processes x 2 parts"):
        train(tmp_path, batch_size=3, accumulate=2)


def test_two_stages_of_one_process_may_differ_in_precision(tmp_path):
    train(tmp_path / "a", precision="fp32")
    train(tmp_path / "b", precision="bf16")


def test_the_rate_warms_up_in_a_line_and_falls_as_a_cosine_to_one_percent():
    config = LoopConfig(steps=110, warmup_steps=10)
    factors = [learning_rate_factor(step, config) for step in (0, 4, 9, 10, 60, 110)]
    halfway = 0.01 + 0.99 * (1 + math.cos(math.pi / 2)) / 2
    np.testing.assert_allclose(factors, [0.1, 0.5, 1.0, 1.0, halfway, 0.01])
    constant = LoopConfig(steps=110, warmup_steps=10, schedule="constant")
    assert [learning_rate_factor(step, constant) for step in (4, 60, 110)] == [0.5, 1.0, 1.0]


def test_what_a_run_may_change_on_its_way_is_not_part_of_its_identity():
    from histoloom.training.autoencoder import AutoencoderTraining

    one, other, third = (
        identity_of(AutoencoderTraining(loop=LoopConfig(**loop)), patches="a")
        for loop in ({}, {"workers": 0, "checkpoint_minutes": 1.0}, {"steps": 7})
    )
    assert one == other != third
    assert identity_of(AutoencoderTraining(), patches="b") != identity_of(AutoencoderTraining(), patches="a")


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"accumulate": 0},
        {"workers": -1},
        {"learning_rate": 0.0},
        {"average_decay": 1.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -1.0},
        {"clip_norm": math.nan},
        {"warmup_steps": -1},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_settings_without_sense_are_refused(values):
    with pytest.raises(ConfigError, match=r"must be|give|too large"):
        LoopConfig(**values)


def test_a_device_that_must_not_wait_reports_every_few_steps_and_the_last(monkeypatch):
    monkeypatch.setitem(loop.STEPS_PER_REPORT, "cpu", 4)
    reported = []
    config = LoopConfig(steps=10, batch_size=2, workers=0, precision="fp32")
    fit(Line(), draw, collate, config, on_step=lambda step: reported.append(step.step))
    assert reported == [4, 8, 10]
