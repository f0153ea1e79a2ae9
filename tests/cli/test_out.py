"""What is wrong with the place to write is found before a command opens anything, whatever the command."""

import os
import time
from pathlib import Path

import pytest

from histoloom.locks import locked

# Every command that writes, without its --out; none of the inputs exists, so that loading one first would be noticed.
# `train` and `reproduce` read their recipe before, since it may name the folder.
COMMANDS = {
    "demo": "demo",
    "generate": "generate nowhere",
    "generate --as": "generate nowhere --as coco",
    "bank": "bank nowhere",
    "export": "export nowhere --as coco",
    "pairs": "pairs nowhere --maps nowhere --tissue gland",
    "inpaint": "inpaint nowhere --image none.png --map none.png --mask none.png",
    "import": "import nowhere --tissue none.toml",
    "lumens": "lumens nowhere",
    "patches": "patches nowhere --tissue none.toml",
    "evaluate": "evaluate --real nowhere --fake nowhere",
    "train-encoder": "train-encoder nowhere",
    "train": "train camelyon16 --data nowhere",
    "reproduce": "reproduce ebhi-seg-htd --data nowhere",
    "discover embed": "discover embed nowhere",
    "discover classify": "discover classify nowhere",
    "discover maps": "discover maps nowhere --by nowhere",
    "discover look": "discover look nowhere",
    "study create": "study create --real nowhere --fake nowhere",
    "study report": "study report nowhere",
}
FILES = {
    "downstream": "downstream --real nowhere --fake nowhere --out {}.json",
    "canvas": "canvas nowhere --map none.png --out {}.tif",
    "overlay": "overlay nowhere --out {}.png",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written_is_found_first(name, fails, tmp_path):
    (tmp_path / "file").touch()
    words = COMMANDS[name].split()
    assert "file/below/out: cannot be written (Not a directory)" in fails(*words, "--out", "file/below/out")
    (tmp_path / "out").touch()
    assert "out: exists already" in fails(*words, "--out", "out")
    with locked(tmp_path / "new"):
        assert "new: is being written by process" in fails(*words, "--out", "new")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_written_is_found_first(name, fails, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written (Not a directory)" in fails(*FILES[name].format("file/below/out").split())
    out = FILES[name].format("new").split()
    with locked(tmp_path / out[-1]):
        assert "is being written by process" in fails(*out)


def test_a_check_that_is_followed_by_another_error_leaves_nothing(fails):
    assert "nowhere" in fails("generate", "nowhere", "--out", "deep/below/out")


def test_an_output_may_be_a_link_to_an_empty_or_absent_folder(histoloom, tmp_path, crop_folder):
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    for name in ("empty", "absent"):
        os.symlink(tmp_path / "disk" / name, tmp_path / name)
        done = histoloom("generate", "ebhi-seg", "--layouts", 1, "--size", 64, "--steps", 1, "--out", name)
        assert done.code == 0, done.stderr
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "disk" / name / "index.parquet").is_file()
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["absent", "empty"]


def test_the_root_is_no_output(fails):
    assert "/: " in fails("generate", "nowhere", "--out", "/")


def test_a_mount_point_is_refused_before_the_work(fails):
    mounts = Path("/proc/mounts")
    points = [line.split()[1] for line in mounts.read_text().splitlines()] if mounts.is_file() else []
    empty = [point for point in points if point != "/" and os.path.isdir(point) and not os.listdir(point)]
    if not empty:
        pytest.skip("needs an empty mount point")
    for _ in range(50):  # such as /dev/shm, in which another test may put a file for a moment
        said = fails("generate", "nowhere", "--out", empty[0])
        if "is a mount point" in said:
            break
        time.sleep(0.1)
    assert "is a mount point" in said
