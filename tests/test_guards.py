"""What keeps the front door honest: names, speed, documents, recipes and examples."""

import ast
import importlib.util
import inspect
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.models import CommandInfo
from typer.testing import CliRunner

import histoloom
from histoloom import errors
from histoloom.cli.evaluate import downstream
from histoloom.cli.main import app
from histoloom.evaluation.downstream import DownstreamConfig
from histoloom.recipes import FOLDER

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


CALLER = """
from histoloom import LayoutConfig, TissueTable, draw_layouts
from histoloom import absent

table = TissueTable.load("tissue.toml")
layouts = draw_layouts(LayoutConfig(two_types=0.5), table, count=2, seed=0, size=64)
number: int = table.names
""".lstrip()


def commands() -> list[tuple[str, CommandInfo]]:
    """Every command by the words that call it."""
    own = [(str(command.name), command) for command in app.registered_commands]
    groups = [
        (group.name, command) for group in app.registered_groups for command in group.typer_instance.registered_commands
    ]
    return own + [(f"{name} {command.name}", command) for name, command in groups]


def run(*command: object, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """A command in a process of its own, as a user gives it."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


def children_seconds() -> float:
    """Seconds of one core that commands have taken so far, whatever else the machine is doing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_public_names_are_those_of_all():
    assert set(dir(histoloom)) == set(histoloom.__all__)
    assert len(set(histoloom.__all__)) == len(histoloom.__all__)
    for name in histoloom.__all__:
        assert getattr(histoloom, name) is not None
    with pytest.raises(AttributeError, match="Absent"):
        _ = histoloom.Absent


def test_every_exception_is_public():
    found = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert found <= set(histoloom.__all__)


def test_a_type_checker_sees_the_public_names(tmp_path):
    (tmp_path / "caller.py").write_text(CALLER)
    done = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "caller.py", folder=tmp_path)
    faults = [line.partition("caller.py:")[2] for line in done.stdout.splitlines() if " error: " in line]
    assert [fault.split(":")[0] for fault in faults] == ["2", "6"], done.stdout
    assert '"absent" is unknown import symbol' in faults[0]
    assert '"list[str]"' in faults[1] or '"tuple[str, ...]"' in faults[1]


def test_the_version_is_one():
    for command in ((sys.executable, "-m", "histoloom"), (Path(sys.executable).parent / "histoloom",)):
        assert run(*command, "--version").stdout == f"histoloom {histoloom.__version__}\n"


def test_every_command_has_short_help_that_names_debug():
    for words in ([], ["discover"], *(name.split() for name, _ in commands())):
        done = CliRunner().invoke(app, [*words, "-h"])
        assert done.exit_code == 0, words
        assert "--debug" in done.output, words


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "diffusers", "accelerate", "datasets", "numpy", "PIL", "pyarrow", "typer"}
    done = run(sys.executable, "-c", "import sys, histoloom; print(*sys.modules)")
    assert not heavy & set(done.stdout.split()), done.stderr
    done = run(sys.executable, "-c", "import sys, histoloom.cli.main; print(*sys.modules)")
    assert not heavy - {"typer"} & set(done.stdout.split()), done.stderr


def slowness() -> float:
    """How many times the seconds of the machine of docs/benchmarks.md this one takes now for a help without Histoloom.

    A bound in seconds holds for that machine; another may be slower, and neighbors make it slower still.
    """
    script = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    before = children_seconds()
    assert "--help" in run(sys.executable, "-c", script).stdout
    return max(1.0, (children_seconds() - before) / 0.28)


def ended_within(seconds: float, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A process that took less time of a processor, in the best of five runs at most."""
    for _ in range(5):
        before = children_seconds()
        done = run(*words)
        took = children_seconds() - before
        assert done.returncode == 0, done.stderr
        if took < seconds * (slower := slowness()):
            return done
    pytest.fail(f"{took:.2f} s in the last of five runs, on a machine that takes {slower:.1f} times as long as usual")


def test_help_is_there_in_half_a_second():
    ended_within(0.5, Path(sys.executable).parent / "histoloom", "--help")


def test_the_slide_readers_are_there_in_a_second():
    modules = "reader, tissue, overlay, annotations, rasterize"
    done = ended_within(
        1, sys.executable, "-c", f"import sys; from histoloom.slides import {modules}; print(*sys.modules)"
    )
    assert not {"torch", "pyarrow", "pandas"} & set(done.stdout.split()), done.stderr


def test_every_command_is_documented():
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for name, command in commands():
        assert f"\n## {name}\n" in text
        assert command.callback is not None
        assert command.callback.__doc__


def test_defaults_of_commands_are_those_of_what_they_configure():
    def defaults(function: Callable) -> dict:
        return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}

    given, meant = defaults(downstream), defaults(DownstreamConfig)
    names = (given.keys() & meant.keys()) - {"seeds"}  # a number there, their list here
    assert {"steps", "batch_size", "backbone", "start", "balance"} <= names
    assert {name: given[name] for name in names} == {name: meant[name] for name in names}


def test_dataclasses_that_hold_arrays_compare_by_identity():
    """Arrays have no single truth value: Python before 3.13 compares the same array by identity, later by value."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and (
                made_by := [d for d in node.decorator_list if "dataclass" in ast.unparse(d)]
            ):
                kinds = [ast.unparse(field.annotation) for field in node.body if isinstance(field, ast.AnnAssign)]
                if any("np.ndarray" in kind or "Tensor" in kind for kind in kinds if "Callable" not in kind):
                    assert "eq=False" in ast.unparse(made_by[0]), f"{path}: {node.name}"


def test_no_reference_page_is_stale():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "scripts" / "make_reference.py")
    make_reference = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = make_reference
    spec.loader.exec_module(make_reference)
    stale = [str(path) for path, text in make_reference.render_all(ROOT).items() if (ROOT / path).read_text() != text]
    assert stale == [], "run: python scripts/make_reference.py"


def test_the_reference_shows_every_value_that_an_option_takes():
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert all(f"| `{option}` |" in text for option in ("--size INT INT", "--at INT INT", "--types INT"))


def test_the_smoke_recipe_trains_and_weaves_on_drawn_tissue_within_a_minute(tmp_path):
    slower = slowness()
    before = children_seconds()
    command = Path(sys.executable).parent / "histoloom"
    assert run(sys.executable, ROOT / "examples" / "draw_tissue.py", tmp_path).returncode == 0
    (tmp_path / "smoke.toml").write_text((FOLDER / "smoke.toml").read_text())
    trained = run(command, "train", "smoke.toml", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    woven = run(
        command, "generate", "runs/smoke/model", "--layouts", 2, "--size", 64, "--out", "woven", folder=tmp_path
    )
    assert woven.returncode == 0, woven.stderr
    assert len(histoloom.read_woven(tmp_path / "woven").images) == 2
    assert children_seconds() - before < 60 * slower


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs(example, tmp_path):
    arguments = {"draw_tissue.py": ["drawn", "--patches", "4"], "weave.py": []}
    done = run(sys.executable, example, *arguments[example.name], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    if example.name == "draw_tissue.py":
        maps = sorted((tmp_path / "drawn" / "maps").iterdir())
        assert len(maps) == len(list((tmp_path / "drawn" / "images").iterdir())) == 4
        assert all(set(np.unique(np.asarray(Image.open(path)))) == {0, 1} for path in maps)
    else:
        assert Image.open(tmp_path / "contact-sheet.png").size[0] > 400
