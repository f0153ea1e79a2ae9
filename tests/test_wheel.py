"""The wheel: it holds what weaving needs, and weaves without the repository."""

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from histoloom.recipes import FOLDER
from histoloom.version import VERSION

ROOT = Path(__file__).parents[1]
CORE = {
    "diffusers", "filelock", "huggingface-hub", "jaxtyping", "jinja2", "lazy-loader", "numpy", "pillow", "pyarrow",
    "pyyaml", "rich", "safetensors", "tomli-w", "torch", "typer",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel as `python -m build` makes it, with the hatchling that is installed."""
    out = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(out.glob("histoloom-*.whl")))


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    tracked = subprocess.run(
        ["git", "-c", "core.quotePath=off", "ls-files", "src/histoloom"], cwd=ROOT, capture_output=True, text=True
    )
    files = {name.removeprefix("src/") for name in tracked.stdout.splitlines()}
    held = {name for name in wheel.namelist() if not name.startswith(f"histoloom-{VERSION}.dist-info/")}
    assert held >= files
    assert {name for name in held - files if not (ROOT / "src" / name).is_file()} == set()
    assert {f"histoloom/recipes/{path.name}" for path in FOLDER.glob("*.toml")} <= held
    assert "histoloom/py.typed" in held


def test_it_asks_for_what_weaving_needs_and_no_more(wheel):
    metadata = message_from_bytes(wheel.read(f"histoloom-{VERSION}.dist-info/METADATA"))
    assert metadata["Version"] == VERSION
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert {line.split(">")[0].split("[")[0] for line in needed} <= CORE
    assert all("<" not in line and "==" not in line for line in needed), "lower bounds only"


def test_what_it_installs_weaves_the_demo(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    code = """
import sys
for name in ("accelerate", "datasets", "tensorboard", "torchvision", "scipy", "timm", "openslide", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, "site")
import histoloom
assert histoloom.__file__.startswith(sys.argv.pop(1)), histoloom.__file__
from histoloom.cli.main import run
run()
"""
    command = (sys.executable, "-I", "-c", code, str(tmp_path), "demo", "--count", "1", "--out", "woven")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote 1 patch")
    assert (tmp_path / "woven" / "contact-sheet.png").is_file()
