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
    with pytest.raises(AttributeError, match="no attribute 'absent'; public names: Authenticity"):
        _ = metrics.absent


def test_type_checkers_see_the_names_that_python_finds():
    tree = ast.parse(Path(metrics.__file__).read_text(encoding="utf-8"))
    seen = {
        (node.module, alias.asname)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("histoloom.metrics.")
        for alias in node.names
    }
    assert seen == {(f"histoloom.metrics.{module}", name) for name, module in metrics._MODULE_OF.items()}


def loaded_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_it_loads_neither_torch_nor_another_part_of_histoloom():
    assert not {"torch", "numpy"} & loaded_by("import sys, histoloom.metrics; print(*sys.modules)")
    every = loaded_by("import sys, histoloom.metrics as m; [getattr(m, n) for n in m.__all__]; print(*sys.modules)")
    assert {name.split(".")[1] for name in every if name.startswith("histoloom.")} == {"metrics", "errors", "stain"}
