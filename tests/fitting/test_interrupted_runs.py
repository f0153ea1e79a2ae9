import json
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from histoloom.fitting.checkpoint import CHECKPOINT

# Fits a line through eight numbers; the checkpoint is written after every step. `moment` is where it is cut short.
RUN = """
import json, multiprocessing, os, resource, signal, time
import numpy as np
from dataclasses import replace
from pathlib import Path
from safetensors.torch import save_file
from histoloom.errors import HistoloomError
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
    if progress.step == 7 and moment == "an error":
        raise ValueError("no more")
    if progress.step == 7 and moment == "a lost worker":
        multiprocessing.active_children()[0].kill()
    if progress.step == 7 and moment == "finish":
        Path(folder, "finish").touch()

def on_checkpoint(step, averaged):
    if moment == "finish while a checkpoint is watched":
        time.sleep(1)  # the other process does not wait for this
        Path(folder, "finish").touch()
    if step == 7 and moment == "after it is saved":
        die()
    with Path(folder, "watched").open("a") as file:
        file.write(f"{step} ")

losses = []
torch.manual_seed(seed)
config = LoopConfig(steps=12, workers=0, warmup_steps=3, checkpoint_minutes=minutes, seed=seed, **loop)
config = replace(config, workers=workers)
try:
    averaged = fit(Line(), draw, collate, config, Path(folder), {"seed": seed}, on_step, on_checkpoint)
except HistoloomError as error:
    Path(folder, "reason").write_text(str(error))
    os._exit(getattr(error, "code", 1))
if "RANK" in os.environ:
    group = torch.distributed.distributed_c10d._get_default_group()
    Path(folder, "patience").write_text(str(group._get_backend(torch.device("cpu")).options._timeout))
if os.environ.get("RANK", "0") == "0":
    save_file(averaged.state_dict(), f"{folder}/weights.safetensors")
    Path(folder, "losses.json").write_text(json.dumps(losses))
"""
EVERY_STEP, NEVER = 1e-9, 1e9
SIZES = {"batch_size": 8, "precision": "fp32"}


@pytest.fixture
def run(start, tmp_path):
    """`run(name, moment, ...)`: a run in the folder `name`; returns its exit code, or None after a minute."""

    def one(
        name: str, moment: str = "", seed: int = 0, minutes: float = EVERY_STEP, workers: int = 0, **loop
    ) -> int | None:
        (tmp_path / name).mkdir(exist_ok=True)
        names = {"folder": str(tmp_path / name), "moment": moment, "seed": seed, "minutes": minutes}
        names |= {"workers": workers, "group": workers > 0}
        process = start(RUN, **names, loop=SIZES | loop)
        process.join(60)
        exitcode = process.exitcode  # None while it runs
        process.kill()
        return exitcode

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
    if moment == "after it is saved":  # its pictures are made by the run that resumes
        assert (tmp_path / "killed" / "watched").read_text() == "1 2 3 4 5 6 7 8 9 10 11 12 "
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


def test_a_run_that_an_error_ends_does_not_wait_for_its_workers(run):
    assert run("ended", "an error", workers=1) == 1  # workers ignore the SIGTERM by which Python ends them at exit


def test_a_lost_worker_is_explained_and_the_same_command_resumes(run, tmp_path):
    assert run("lost", "a lost worker", workers=1) == 1
    reason = (tmp_path / "lost" / "reason").read_text()
    assert reason.startswith(f"{tmp_path / 'lost'}: a process that prepares batches died")
    assert "give the same command again" in reason
    assert run("lost") == run("whole") == 0
    assert weights(tmp_path / "lost") == weights(tmp_path / "whole")


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


@pytest.fixture
def run_pair(start, tmp_path):
    """`run_pair(moment)`: a run in the folder `pair` by two processes; returns their exit codes."""

    def one(moment: str = "") -> list[int | None]:
        (tmp_path / "pair").mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # What `torchrun --nproc_per_node 2` and `accelerate launch --cpu --num_processes 2` set.
        world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        names = {"folder": str(tmp_path / "pair"), "moment": moment, "seed": 0, "minutes": EVERY_STEP, "loop": SIZES}
        names |= {"workers": 0, "group": False}
        ranks = [
            start(f"import os\nos.environ.update({world | {'RANK': str(i), 'LOCAL_RANK': str(i)}})\n{RUN}", **names)
            for i in range(2)
        ]
        for process in ranks:
            process.join(60)
        codes = [process.exitcode for process in ranks]
        for process in ranks:
            process.kill()
        return codes

    return one


def test_two_processes_walk_the_path_of_one_with_the_same_batch_and_have_patience(run, run_pair, tmp_path):
    assert run_pair() == [0, 0]
    assert run("one") == 0
    compare(tmp_path / "pair", tmp_path / "one")
    assert (tmp_path / "pair" / "patience").read_text() == "7 days, 0:00:00"


def test_two_processes_agree_on_whether_a_run_that_resumes_shall_finish(run_pair, tmp_path):
    assert run_pair() == [0, 0]
    assert run_pair("finish while a checkpoint is watched") == [0, 0]
    assert (tmp_path / "pair" / "finish").exists()


def compare(folder: Path, other: Path) -> None:
    curves = [json.loads((f / "losses.json").read_text()) for f in (folder, other)]
    assert len(curves[0]) == 12
    np.testing.assert_allclose(*curves, rtol=1e-4)
    found, expected = (load_file(f / "weights.safetensors") for f in (folder, other))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
