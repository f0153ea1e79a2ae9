import json
import math
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from histoloom.errors import ConfigError, HistoloomError, ModelError, OutputError
from histoloom.fitting.checkpoint import CHECKPOINT
from histoloom.fitting.loop import LoopConfig, fit, identity_of, learning_rate_factor

# Fits a line through eight numbers; the checkpoint is written after every step. `moment` is where it is cut short.
RUN = """
import json, multiprocessing, os, resource, signal
import numpy as np
from dataclasses import replace
from pathlib import Path
from safetensors.torch import save_file
from histoloom.errors import Interrupted
from histoloom.fitting.loop import LoopConfig, fit
if group:
    os.setpgrp()
    multiprocessing.set_start_method("fork", force=True)

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.SiLU(), torch.nn.Linear(16, 1))
    def forward(self, batch):
        error = (self.layers(batch["x"])[:, 0] - batch["y"]).square().mean()
        return {"loss": error, "double": 2 * error}

def draw(n):
    x = np.random.default_rng((3, n)).standard_normal(8).astype(np.float32)
    return {"x": x, "y": x.sum()}

def collate(samples):
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def on_step(progress):
    losses.append(progress.losses["loss"])
    if progress.step == 7 and moment == "before it is saved":
        die()
    if progress.step == 7 and moment == "in the middle of writing":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    if progress.step == 7 and moment == "between writing and renaming":
        os.replace = die
    if progress.step == 7 and moment in ("SIGTERM", "SIGINT"):
        os.killpg(os.getpgrp(), getattr(signal, moment)) if group else os.kill(os.getpid(), getattr(signal, moment))
    if progress.step == 7 and moment == "finish":
        Path(folder, "finish").touch()

def on_checkpoint(step, averaged):
    if step == 7 and moment == "after it is saved":
        die()

losses = []
torch.manual_seed(seed)
config = LoopConfig(steps=12, workers=0, warmup_steps=3, checkpoint_minutes=minutes, seed=seed, **loop)
config = replace(config, workers=workers)
try:
    averaged = fit(Line(), draw, collate, config, Path(folder), {"seed": seed}, on_step, on_checkpoint)
except Interrupted as error:
    Path(folder, "reason").write_text(str(error))
    os._exit(error.code)
if os.environ.get("RANK", "0") == "0":
    save_file(averaged.state_dict(), f"{folder}/weights.safetensors")
    Path(folder, "losses.json").write_text(json.dumps(losses))
"""
EVERY_STEP, NEVER = 1e-9, 1e9
SIZES = {"batch_size": 8, "precision": "fp32"}


@pytest.fixture
def run(start, tmp_path):
    """`run(name, moment, ...)`: a run in the folder `name`; returns its exit code."""

    def one(name: str, moment: str = "", seed: int = 0, minutes: float = EVERY_STEP, workers: int = 0, **loop) -> int:
        (tmp_path / name).mkdir(exist_ok=True)
        names = {"folder": str(tmp_path / name), "moment": moment, "seed": seed, "minutes": minutes}
        names |= {"workers": workers, "group": workers > 0}
        process = start(RUN, **names, loop=SIZES | loop)
        process.join()
        return process.exitcode

    return one


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("moment", "minutes", "signaled", "precision"),
    [
        ("before it is saved", NEVER, signal.SIGKILL, "fp32"),
        ("before it is saved", EVERY_STEP, signal.SIGKILL, "fp32"),
        ("in the middle of writing", EVERY_STEP, signal.SIGXFSZ, "fp32"),
        ("between writing and renaming", EVERY_STEP, signal.SIGKILL, "bf16"),
        ("after it is saved", EVERY_STEP, signal.SIGKILL, "bf16"),
    ],
)
def test_a_run_killed_at_step_7_and_started_again_ends_with_the_bytes_of_a_whole_one(
    run, tmp_path, moment, minutes, signaled, precision
):
    assert run("killed", moment, minutes=minutes, precision=precision) == -signaled
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    assert (tmp_path / "killed" / CHECKPOINT).exists() == (minutes == EVERY_STEP)
    assert run("killed", precision=precision) == run("whole", minutes=NEVER, precision=precision) == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert (tmp_path / "killed" / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()
    resumed, whole = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("killed", "whole"))
    assert resumed == whole[-len(resumed) :]
    assert len(resumed) == {"after it is saved": 5}.get(moment, 6) if minutes == EVERY_STEP else 12


@pytest.mark.parametrize(("number", "code", "called"), [("SIGTERM", 143, "SIGTERM"), ("SIGINT", 130, "Ctrl-C")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_saves_a_checkpoint_at_the_next_step_and_the_same_command_resumes(
    run, tmp_path, number, code, called, workers
):
    # With a worker the whole group is signaled, as a terminal does.
    assert run("stopped", number, minutes=NEVER, workers=workers) == code
    assert (tmp_path / "stopped" / "reason").read_text() == (
        f"{tmp_path / 'stopped'}: stopped by {called} after step 7 of 12, which is saved; the same command resumes"
    )
    assert run("stopped", workers=workers) == run("whole") == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert len(json.loads((tmp_path / "stopped" / "losses.json").read_text())) == 5


def test_a_file_named_finish_ends_a_run_early_with_usable_weights(run, tmp_path):
    assert run("early", "finish", minutes=NEVER) == 0
    assert len(json.loads((tmp_path / "early" / "losses.json").read_text())) == 7
    before = weights(tmp_path / "early")
    assert run("early") == 0  # the file is still there: nothing more is trained
    assert weights(tmp_path / "early") == before
    (tmp_path / "early" / "finish").unlink()
    (tmp_path / "finish").touch()  # in the run folder above the stage
    assert run("early") == 0
    assert weights(tmp_path / "early") == before
    (tmp_path / "finish").unlink()
    assert run("early") == run("whole") == 0
    assert weights(tmp_path / "early") == weights(tmp_path / "whole")


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


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(run, tmp_path):
    assert [run("one"), run("two", minutes=NEVER), run("other", seed=1)] == [0, 0, 0]
    assert weights(tmp_path / "one") == weights(tmp_path / "two") != weights(tmp_path / "other")


def test_a_finished_run_started_again_hands_over_the_same_weights(run, tmp_path):
    assert run("run") == 0
    before = weights(tmp_path / "run")
    assert run("run") == 0
    assert weights(tmp_path / "run") == before
    assert json.loads((tmp_path / "run" / "losses.json").read_text()) == []


def test_parts_of_a_batch_add_up_to_it(run, tmp_path):
    assert [run("whole"), run("halves", accumulate=2)] == [0, 0]
    compare(tmp_path / "halves", tmp_path / "whole")


def test_two_processes_walk_the_path_of_one_with_the_same_batch(run, start, tmp_path):
    (tmp_path / "pair").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What `torchrun --nproc_per_node 2` and `accelerate launch --cpu --num_processes 2` set.
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    names = {"folder": str(tmp_path / "pair"), "moment": "", "seed": 0, "minutes": EVERY_STEP, "loop": SIZES}
    names |= {"workers": 0, "group": False}
    ranks = [
        start(f"import os\nos.environ.update({world | {'RANK': str(i), 'LOCAL_RANK': str(i)}})\n{RUN}", **names)
        for i in range(2)
    ]
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert run("one") == 0
    compare(tmp_path / "pair", tmp_path / "one")


def compare(folder: Path, other: Path) -> None:
    curves = [json.loads((f / "losses.json").read_text()) for f in (folder, other)]
    assert len(curves[0]) == 12
    np.testing.assert_allclose(*curves, rtol=1e-4)
    found, expected = (load_file(f / "weights.safetensors") for f in (folder, other))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


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
        train(tmp_path, Line(scale=scale), checkpoint_minutes=EVERY_STEP)
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
