"""The same promise for every command that writes a folder.

Killed at any moment and repeated, it ends in the bytes of an undisturbed run. Other settings, other inputs and a second
process are refused by one line, and nothing is deleted.
"""

import functools
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_tissue
from killing import KILLED
from PIL import Image
from resumption_cases import CASES, DISTILLATION, ORDER, RECIPE, Case
from slide_files import write_tiled_tiff
from typer.testing import CliRunner
from woven_folders import RECORD, TABLE, make_patch

from histoloom import files, locks
from histoloom.cli.main import app
from histoloom.models import pipeline

RUN = """
import os, sys
os.chdir(folder)
for number, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(f"{records}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
sys.path.insert(0, tests)
from killing import kill_before
from histoloom.cli.main import run
kill_before(kill, folder, f"{records}/count")
sys.argv = ["histoloom", *words]
run()
"""


@dataclass(frozen=True)
class Ended:
    code: int
    error: str
    changes: int


@pytest.fixture(scope="session")
def call(start, tmp_path_factory) -> Callable[..., Ended]:
    """`call(folder, words, kill)`: the command in that folder, killed before a change."""

    def run(folder: Path, words: str, kill: int = 0) -> Ended:
        records = tmp_path_factory.mktemp("records")
        names = {"folder": str(folder), "records": str(records), "tests": str(Path(__file__).parent), "kill": kill}
        process = start(RUN, **names, words=words.split())
        process.join()
        return Ended(process.exitcode, (records / "stderr").read_text(), (records / "count").stat().st_size)

    return run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, make_pipeline) -> Path:
    """Slides, masks, pictures, an encoder, a model, and what each step of discovery leaves."""
    from histoloom.discovery.choose import ChooseConfig, choose
    from histoloom.discovery.cluster import ClusterConfig, cluster
    from histoloom.discovery.cutting import Cutting
    from histoloom.discovery.embed import embed
    from histoloom.discovery.embedding_run import EmbedConfig
    from histoloom.discovery.parts import find_parts
    from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
    from histoloom.generation.woven_writer import write_patches
    from histoloom.patches.folder import FolderImport, find_pictures
    from histoloom.patches.importer import import_pictures
    from histoloom.tissue import TissueTable

    home = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for name in ("slides", "masks", "images", "maps"):
        (home / name).mkdir()
    table = TissueTable.from_names(["stroma", "gland", "tumour"])
    (home / "tissue.toml").write_text(table.to_toml())
    (home / "r.toml").write_text(RECIPE.replace("STEPS", "2"))
    (home / "order.toml").write_text(ORDER)
    (home / "d.toml").write_text(DISTILLATION.replace("STEPS", "2"))
    for name in "ab":
        image, semantic_map = draw_tissue(rng, 320, 3)
        write_tiled_tiff(home / "slides" / f"{name}.tif", image)
        Image.fromarray(semantic_map).save(home / "masks" / f"{name}.png")
    for case in range(3):
        for number in range(2):
            image, semantic_map = draw_tissue(rng, 80, 3)
            Image.fromarray(image).save(home / "images" / f"P{case}_{number}.png")
            Image.fromarray(semantic_map).save(home / "maps" / f"P{case}_{number}.png")
    config = FolderImport(mpp=0.5, val_share=0.4)
    import_pictures(find_pictures(home / "images", home / "maps", config), table, config, home / "dataset")
    for number in range(4):
        image, semantic_map = draw_tissue(rng, 80, 3)
        for folder, array in (("pictures", image), ("maps of pictures", semantic_map)):
            (home / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(home / folder / f"Q{number}.png")
    config = FolderImport(mpp=0.5, val_share=0.0)
    other = find_pictures(home / "pictures", home / "maps of pictures", config)
    import_pictures(other, table, config, home / "other")
    woven = [make_patch(number) for number in range(3)]
    write_patches(lambda first: woven[first:], TABLE, home / "woven", RECORD)
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=3)), home / "encoder")
    make_pipeline().save_pretrained(str(home / "model"))
    embedding = EmbedConfig(str(home / "encoder"), Cutting(mpp=0.5, size=32, stride=32, min_focus=0.0))
    embed(find_parts(home / "slides", embedding.cutting)[0], embedding, home / "embedded", home / "slides")
    for step, after in (("embedded", "chosen"), ("chosen", "clustered")):
        shutil.copytree(home / step, home / after)
        if after == "chosen":
            choose(home / after, ChooseConfig(per_slide=20))
        else:
            cluster(home / after, ClusterConfig((2, 3)))
    return home


def prepare(case: Case, inputs: Path, folder: Path) -> Path:
    """A folder with copies of what a command needs."""
    folder.mkdir()
    for name in case.needs:
        target = folder / (case.out if name == case.new_names else name)
        (shutil.copytree if (inputs / name).is_dir() else shutil.copy2)(inputs / name, target)
    return folder


def written(case: Case, folder: Path) -> dict[str, bytes]:
    """Every file that a command wrote, wherever it may have left something, but for what names this machine."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] in set(case.needs) - {case.out} or not path.is_file():
            continue
        if path.name != files.PATHS and not set(Path(name).parts) & set(case.logs):
            found[name] = path.read_bytes()
    return found


def kept(case: Case, folder: Path) -> dict[str, bytes]:
    """As `written`, but for locks and half-written files, which the next run may remove."""
    return {n: data for n, data in written(case, folder).items() if not Path(n).name.startswith(".")}


@pytest.fixture(scope="session")
def finished(inputs, call, tmp_path_factory) -> Callable[[str], tuple[Path, int]]:
    """`finished(name)`: a folder in which that command was not disturbed, made once, and the changes that it made."""

    @functools.cache
    def make(name: str) -> tuple[Path, int]:
        folder = prepare(CASES[name], inputs, tmp_path_factory.mktemp("finished") / "whole")
        ended = call(folder, CASES[name].words)
        assert ended.code == 0, ended.error
        assert ended.changes > 4
        return folder, ended.changes

    return make


@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_ends_in_the_bytes_of_an_undisturbed_one_and_no_other_run_takes_its_place(
    name, inputs, finished, call, tmp_path
):
    case, (folder, changes) = CASES[name], finished(name)
    whole = written(case, folder)
    assert not [n for n in whole if n.endswith((".partial", ".lock", ".old"))]
    assert not [n for n, data in whole.items() if str(folder.parent).encode() in data]
    assert call(folder, case.words).code == 0
    assert written(case, folder) == whole

    rng = np.random.default_rng(len(name))
    points = {int(rng.integers(min(5, changes), changes + 1)), *([4] if case.kills > 1 else [])}
    if os.environ.get("HISTOLOOM_KILL_ALL"):
        points = set(range(1, changes + 1))
    for point in sorted(points):
        folder = prepare(case, inputs, tmp_path / str(point))
        assert call(folder, case.words, point).code == KILLED
        if point == max(points):
            refuse_others(case, folder, call)
        again = call(folder, case.words)
        assert again.code == 0, (point, again.error)
        assert written(case, folder) == whole, f"killed before change {point} of {changes}"


def refuse_others(case: Case, folder: Path, call: Callable[..., Ended]) -> None:
    """A second process, other settings and another input are refused by one line, and nothing is deleted."""
    before = kept(case, folder)
    with locks.locked(folder / case.out):
        second = call(folder, case.words)
    assert "is being written by process" in second.error
    attempts = [second]
    if case.resumes and case.other:
        attempts.append(call(folder, f"{case.words} {case.other}"))
    for ended in attempts:
        assert (ended.code, len(ended.error.splitlines())) == (1, 1), ended.error
        assert kept(case, folder) == before


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.change is not None])
def test_what_is_there_is_not_taken_for_the_result_of_other_settings_or_inputs(name, inputs, finished, call, tmp_path):
    case, (whole, changes) = CASES[name], finished(name)
    folder = shutil.copytree(whole, tmp_path / "trial")
    before = written(case, folder)
    if case.other:
        refused(case, folder, call(folder, f"{case.words} {case.other}"), before)
    case.change(folder)
    refused(case, folder, call(folder, case.words), before)
    if case.resumes:
        folder = prepare(case, inputs, tmp_path / "killed")
        assert call(folder, case.words, changes * 2 // 3).code == KILLED
        before = kept(case, folder)
        case.change(folder)
        refused(case, folder, call(folder, case.words), before)


@pytest.mark.parametrize("name", ["generate", "canvas", "inpaint", "pairs", "bank"])
def test_what_another_precision_wove_is_not_the_result(name, finished, tmp_path, monkeypatch):
    other = not pipeline.bf16_is_faster()
    monkeypatch.setattr(pipeline, "bf16_is_faster", lambda: other)
    monkeypatch.chdir(shutil.copytree(finished(name)[0], tmp_path / "trial"))
    done = CliRunner().invoke(app, CASES[name].words.split())
    was, now = ("fp32", "bf16") if other else ("bf16", "fp32")
    assert f'computed_in was "{was} on cpu", is now "{now} on cpu"' in str(done.exception)


def refused(case: Case, folder: Path, ended: Ended, before: dict[str, bytes]) -> None:
    """One line says what differs, and no file is gone or another, but for the input that was changed."""
    assert (ended.code, len(ended.error.splitlines())) == (1, 1), ended.error
    assert re.search("was made (by another run|from other files)", ended.error), ended.error
    after = kept(case, folder)
    assert {name for name, data in before.items() if after.get(name) != data} <= {
        name for name in before if name.startswith("found/") and case.new_names
    }
