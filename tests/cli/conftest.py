"""The command line as a user meets it: exit code, stdout, stderr, in a process of its own."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoloom.cli.main import run

# Under a limit on the size of files, writing fails as on a full disk, but for the reason that is named.
RUN = """
import os, resource, sys
os.chdir(folder)
for number, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(f"{records}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
sys.argv = ["histoloom", *arguments]
from histoloom.cli.main import run
run()
"""


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def histoloom(start, tmp_path, tmp_path_factory) -> Callable[..., Ended]:
    """`histoloom("train", "mine.toml")`: the command, run in `tmp_path`."""

    def call(*arguments: object, largest_file: int = 0) -> Ended:
        records = tmp_path_factory.mktemp("records")
        names = {"folder": str(tmp_path), "records": str(records), "largest_file": largest_file}
        process = start(RUN, **names, arguments=[str(argument) for argument in arguments])
        process.join()
        return Ended(process.exitcode, *((records / name).read_text() for name in ("stdout", "stderr")))

    return call


@pytest.fixture
def call_here(monkeypatch, capfd) -> Callable[..., tuple[int, list[str], list[str]]]:
    """`call_here(*arguments)`: the command, run in this process; exit code, lines of stdout, lines of stderr."""

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["histoloom", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # of the tests, which a command takes away
        printed = capfd.readouterr()
        return ended.value.code or 0, printed.out.splitlines(), printed.err.splitlines()

    return call


@pytest.fixture
def fails(histoloom, tmp_path) -> Callable[..., str]:
    """`fails("train", "none.toml")`: the one line that a failing command prints; it must leave nothing new behind."""

    def run(*arguments: object, largest_file: int = 0, may_leave: str = "") -> str:
        before = contents(tmp_path, may_leave)
        ended = histoloom(*arguments, largest_file=largest_file)
        assert ended.code == 1, ended.stderr
        assert ended.stdout == ""
        assert len(ended.stderr.splitlines()) == 1, ended.stderr
        assert ended.stderr.startswith("histoloom: ")
        assert contents(tmp_path, may_leave) == before
        return ended.stderr.strip()

    return run


def contents(folder: Path, but: str) -> dict[str, bytes]:
    """Files and folders by their path, but for those in the folder `but`."""
    paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*"))}
    return {n: p.read_bytes() if p.is_file() else b"" for n, p in paths.items() if not but or n.split("/")[0] != but}


@pytest.fixture
def maps(tmp_path) -> Path:
    """A folder of three maps of 64 px, of two of the tiny model's three types each."""
    folder = tmp_path / "wanted"
    folder.mkdir()
    for number in range(3):
        stripes = np.repeat(np.array([number, (number + 1) % 3], np.uint8), 32)[None].repeat(64, 0)
        Image.fromarray(stripes).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def crop_folder(tmp_path) -> Path:
    """Crops of every type of the tiny model, one folder per type."""
    rng = np.random.default_rng(0)
    for name in ("stroma", "gland", "tumour"):
        path = tmp_path / "crops" / name / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path / "crops"
