"""The package is usable by itself: its names, what it loads, and what type checkers see."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from histoloom import metrics


def test_every_public_name_resolves_and_no_other():
    assert set(dir(metrics)) == set(metrics.__all__)
    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__, name
    with pytest.raises(AttributeError, match="absent"):
        _ = metrics.absent


def test_a_function_is_not_hidden_by_the_module_that_holds_it():
    for order in ("Prdc, prdc", "prdc, Prdc"):
        code = (
            f"from histoloom.metrics import {order}; import histoloom.metrics.stain_distance as _; print(prdc.__name__)"
        )
        assert loaded_by(code) == {"prdc"}
    code = "import histoloom.metrics as m; import histoloom.metrics.stain_distance; print(callable(m.stain_distance))"
    assert loaded_by(code) == {"True"}


def test_type_checkers_see_the_names_that_python_finds():
    stub = ast.parse(Path(metrics.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(metrics.__all__)


def loaded_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_it_loads_neither_torch_nor_another_part_of_histoloom():
    assert not {"torch", "numpy"} & loaded_by("import sys, histoloom.metrics; print(*sys.modules)")
    every = loaded_by("import sys, histoloom.metrics as m; [getattr(m, n) for n in m.__all__]; print(*sys.modules)")
    assert {name.split(".")[1] for name in every if name.startswith("histoloom.")} == {
        "metrics",
        "errors",
        "stain",
        "version",
    }
