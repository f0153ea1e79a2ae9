import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw_image_folder
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from histoloom.cli.train import reproduce
from histoloom.experiments.recipe import read_recipe
from histoloom.experiments.run import run_recipe
from histoloom.files import write_record
from histoloom.fitting.checkpoint import CHECKPOINT
from histoloom.fitting.stop import FINISH
from histoloom.locks import locked
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.recipes import FOLDER
from histoloom.records import Record

SMOKE = FOLDER / "smoke.toml"


def write_recipe(folder: Path) -> Path:
    """The recipe `smoke` next to pictures, its steps cut down."""
    text = SMOKE.read_text().replace("steps = 20", "workers = 0\nsteps = 2").replace("steps = 25", "steps = 1")
    assert text.count("steps = 2\n") == 4
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.fixture
def recipe(image_folder) -> Path:
    """See `write_recipe`; in a folder of its own."""
    return write_recipe(image_folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of the recipe."""
    folder = draw_image_folder(tmp_path_factory.mktemp("finished"))
    return run_recipe(read_recipe(write_recipe(folder)), folder / "run").parent


@pytest.fixture
def trained(finished, recipe, tmp_path) -> Path:
    """A copy of it, next to its recipe."""
    return shutil.copytree(finished, tmp_path / "run")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_recipe_becomes_a_model_that_weaves(histoloom, recipe, tmp_path):
    ended = histoloom("train", recipe)
    assert (ended.code, ended.stderr) == (0, "")
    assert "wrote runs/mine/model; weave with: histoloom generate runs/mine/model" in ended.stdout
    run = tmp_path / "runs" / "mine"
    assert sorted(p.name for p in run.iterdir()) == [
        "autoencoder", "copy-limit.json", "dataset", "decoder", "denoiser", "model", "recipe.toml", "record.json",
        "samples", "segmenter", "tensorboard", "tissue.toml",
    ]  # fmt: skip
    assert [p.name for p in (run / "samples").iterdir()] == ["000002.png"]
    assert HistoloomPipeline.load(run / "model").table.names == ["stroma", "gland"]
    woven = histoloom("generate", run / "model", "--layouts", 2, "--size", 64, "--steps", 2, "--out", "woven")
    assert (woven.code, woven.stderr) == (0, "")
    assert pq.read_table(tmp_path / "woven" / "index.parquet").num_rows == 2


def test_a_comparison_names_the_slides_that_it_skipped_and_the_files_that_it_left_out(recipe, capsys, monkeypatch):
    def run(_, folder: Path, *__) -> None:
        (folder / "dataset").mkdir(parents=True)
        made = {"failures": ["a.svs: is damaged"], "notes": ["1 map belongs to no image: b.png"]}
        (folder / "dataset" / "dataset.json").write_text(json.dumps(made))
        (folder / "tables.md").write_text("| tables |")

    monkeypatch.setattr("histoloom.experiments.reproduce.reproduce", run)
    reproduce(str(recipe), recipe.parent / "run")
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["1 map belongs to no image: b.png", "skipped: a.svs: is damaged"]
    assert shown.out.splitlines()[0] == "| tables |"


def test_a_plan_prints_what_training_costs_and_leaves_nothing(histoloom, recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    ended = histoloom("train", recipe, "--plan")
    assert (ended.code, sorted(tmp_path.rglob("*"))) == (0, before)
    for stage in ("autoencoder", "decoder", "denoiser"):
        assert re.search(rf"{stage} .*\d", ended.stdout), stage
    refused = histoloom("train", recipe, "--plan", "--finish")
    assert (refused.code, refused.stdout) == (1, "")
    assert "give --plan or --finish, not both" in refused.stderr


def test_the_resolved_copy_of_a_recipe_trains_the_same_model(histoloom, trained, tmp_path):
    assert histoloom("train", trained / "recipe.toml", "--out", "two").code == 0
    assert (tmp_path / "two" / "recipe.toml").read_text() == (trained / "recipe.toml").read_text()
    one, two = (HistoloomPipeline.load(tmp_path / name / "model") for name in ("run", "two"))
    assert one.fingerprint == two.fingerprint


def test_the_same_command_on_a_finished_run_changes_no_weight(histoloom, recipe, trained):
    weights = {p: p.read_bytes() for p in (trained / "model").rglob("*.safetensors")}
    assert histoloom("train", recipe, "--out", "run").code == 0
    assert {p: p.read_bytes() for p in weights} == weights


def test_accelerate_launches_two_processes_that_train_as_one(histoloom, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("steps = 2\n", 'steps = 2\nprecision = "fp32"\n', 3))
    assert histoloom("train", recipe, "--out", "one").code == 0
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0")
    launched = (*launcher, "--num_processes", "2", "-m", "histoloom.cli.main", "train", recipe, "--out", "two")
    world = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(launched, cwd=tmp_path, env=world, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("wrote two/model") == 1
    for stage in ("autoencoder", "decoder", "denoiser"):
        alone, pair = (load_file(tmp_path / name / stage / CHECKPOINT) for name in ("one", "two"))
        for name, tensor in alone.items():
            # Adam takes steps of one size, of 4e-4 here, so that a gradient near zero moves a weight by its rounding.
            tolerance = 5e-5 if stage == "decoder" else 1e-5
            torch.testing.assert_close(pair[name], tensor, rtol=1e-4, atol=tolerance)
    curves = [EventAccumulator(str(tmp_path / name / "tensorboard")).Reload() for name in ("one", "two")]
    for stage in ("autoencoder", "decoder", "denoiser"):
        losses = [[event.value for event in curve.Scalars(f"{stage}/loss")] for curve in curves]
        np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_recipe_that_is_not_there(fails):
    for command in ("train", "reproduce"):
        assert fails(command, "none.toml") == (
            "histoloom: none.toml: no such recipe; `histoloom recipes` lists those of the package"
        )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "[watch]",
            "[watsh]",
            "mine.toml: unknown key 'watsh'; known: data, autoencoder, decoder, denoiser, distillation",
        ),
        (
            "window = 64",
            "windo = 64",  # codespell:ignore windo
            "mine.toml denoiser: unknown key 'windo'; known: conditioning, objective, time_mean, time_spread, window",
        ),
        ("window = 64", 'window = "64"', "mine.toml denoiser window: expected int, found '64'"),
        ("base = 24", "base = 20", "mine.toml denoiser crops: crops need 24 <= base <= largest; got base 20"),
        ("window = 64", "window = 72", "window 72 must be a multiple of 16 px"),
        ("size = 64", "size = 128", "smaller than autoencoder size 128"),
        ('source = "images"', 'source = "none"', "none: no such folder of images"),
    ],
)
def test_a_recipe_without_sense(fails, recipe, tmp_path, old, new, said):
    change(recipe, old, new)
    assert said in fails("train", recipe, "--out", "run", may_leave="run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_recipe_whose_data_is_no_table(fails, tmp_path):
    (tmp_path / "odd.toml").write_text("data = 3\n")
    assert "odd.toml data: expected DataSource, found 3" in fails("train", "odd.toml")


def test_a_recipe_that_is_no_toml(fails, tmp_path):
    (tmp_path / "broken.toml").write_text("[data\n")
    assert "broken.toml: not a readable TOML recipe" in fails("train", "broken.toml")


def broken_images(folder: Path) -> dict[str, str]:
    """What is wrong with the second picture, and what is said about it."""
    image, semantic_map = folder / "images" / "P0" / "1.png", folder / "maps" / "P0" / "1.png"
    return {
        "a map of another size": (
            lambda: Image.fromarray(np.zeros((70, 80), np.uint8)).save(semantic_map), "P0/1.png: "),
        "a value that the table does not know": (
            lambda: Image.fromarray(np.full((80, 80), 9, np.uint8)).save(semantic_map), "value 9 belongs to no tissue"),
        "a truncated image": (lambda: image.write_bytes(image.read_bytes()[:300]), "P0/1.png: cannot read the picture"),
        "a truncated map": (
            lambda: semantic_map.write_bytes(semantic_map.read_bytes()[:60]), "P0/1.png: cannot read the picture"),
        "no map": (semantic_map.unlink, "P0/1"),
        "no images at all": (lambda: [p.unlink() for p in (folder / "images").rglob("*.png")], "images: "),
        "a table without a type": (lambda: (folder / "tissue.toml").write_text(""), "tissue.toml: the tissue table is"),
    }  # fmt: skip


@pytest.mark.parametrize("fault", broken_images(Path()))
def test_pictures_that_cannot_be_used(fails, recipe, tmp_path, fault):
    breaks, said = broken_images(tmp_path)[fault]
    breaks()
    assert said in fails("import", "images", "--maps", "maps", "--tissue", "tissue.toml", "--out", "dataset")
    assert said in fails("train", recipe, "--out", "run", may_leave="run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_architecture(fails, recipe, trained):
    before = (trained / "denoiser" / "checkpoint.safetensors").read_bytes()
    change(recipe, "channels = [32, 64]", "channels = [32, 96]")
    said = fails("train", recipe, "--out", "run", may_leave="run")
    assert "run: was made by another run (denoiser.channels was [32, 64], is now [32, 96])" in said
    assert (trained / "denoiser" / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("stage", ["autoencoder", "decoder", "denoiser"])
def test_a_damaged_or_pickled_checkpoint(fails, recipe, trained, stage):
    path = trained / stage / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    said = fails("train", recipe, "--out", "run", may_leave="run")
    assert f"run/{stage}/checkpoint.safetensors: is not a readable checkpoint" in said
    assert "delete it to start over" in said
    torch.save({"weights": torch.ones(3)}, path)
    assert "is not a readable checkpoint" in fails("train", recipe, "--out", "run", may_leave="run")


@pytest.mark.parametrize("largest_file", [400, 3_000, 40_000])
def test_a_full_disk_while_training(fails, histoloom, recipe, tmp_path, largest_file):
    said = fails("train", recipe, "--out", "run", largest_file=largest_file, may_leave="run")
    assert "run" in said
    assert "cannot" in said
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").rglob("checkpoint.safetensors.partial"))
    assert histoloom("train", recipe, "--out", "run").code == 0


def test_a_folder_that_cannot_be_made(fails, recipe, tmp_path):
    (tmp_path / "taken").write_text("a file")
    assert "taken: exists already and is not a run of histoloom" in fails("train", recipe, "--out", "taken")


def test_a_run_is_finished_early_with_a_usable_model_and_then_continued(histoloom, recipe, tmp_path):
    change(recipe, "[denoiser.loop]\nworkers = 0\nsteps = 2", "[denoiser.loop]\nworkers = 0\nsteps = 4")
    assert histoloom("train", recipe, "--out", "whole").code == 0
    assert histoloom("train", recipe, "--out", "run", "--finish").code == 0
    early = HistoloomPipeline.load(tmp_path / "run" / "model").fingerprint
    assert int(load_file(tmp_path / "run" / "denoiser" / CHECKPOINT)["step"]) == 1
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["000001.png"]
    whole = HistoloomPipeline.load(tmp_path / "whole" / "model").fingerprint
    assert early != whole
    assert histoloom("train", recipe, "--out", "run").code == 0
    assert HistoloomPipeline.load(tmp_path / "run" / "model").fingerprint == whole
    sheets = [sorted(path.name for path in (tmp_path / name / "samples").iterdir()) for name in ("run", "whole")]
    assert sheets[0] == sheets[1]  # none by the denoiser of a half-trained autoencoder


@pytest.mark.parametrize("count", [1, 2])
def test_a_running_process_is_asked_to_finish_by_one_process_or_by_several(start, recipe, tmp_path, count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    world |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    script = """
import os, sys
os.environ.update(world)
os.chdir(folder)
sys.argv = ["histoloom", "train", "mine.toml", "--out", "run", "--finish"]
from histoloom.cli.main import run
run()
"""
    with locked(tmp_path / "run"):
        ranks = [
            start(script, folder=str(recipe.parent), world=world | {"RANK": str(i), "LOCAL_RANK": str(i)})
            for i in range(count)
        ]
        for process in ranks:
            process.join(60)
        assert [process.exitcode for process in ranks] == [0] * count
    assert [path.name for path in (tmp_path / "run").iterdir()] == [FINISH]


def test_a_run_of_another_command_is_not_asked_to_finish(fails, recipe, tmp_path):
    with locked(tmp_path / "run"):
        write_record(tmp_path / "run", Record(command="reproduce", format=1, settings={}, inputs={}))
        assert "run: is being written by process" in fails("train", recipe, "--out", "run", "--finish")
    assert not (tmp_path / "run" / FINISH).exists()


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_is_one_line_and_the_same_command_continues(start, image_folder, recipe, tmp_path, number, code, name):
    change(recipe, "[denoiser.loop]\nworkers = 0\nsteps = 2", "[denoiser.loop]\nworkers = 0\nsteps = 2000")
    command = [sys.executable, "-m", "histoloom.cli.main", "train", recipe, "--out", "run"]
    world = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=world, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None and not (tmp_path / "run" / "denoiser" / "latents.json").exists():
            time.sleep(0.05)
        time.sleep(1)
        running.send_signal(number)
        stderr = running.communicate()[1]
    assert running.returncode == code, stderr
    assert len(stderr.splitlines()) == 1
    assert f"stopped by {name}" in stderr
    assert "the same command" in stderr
    assert not list(tmp_path.glob(".*.lock"))
