"""The package is usable by itself: its names, what it loads, and what type checkers see."""

import subprocess
import sys

import pytest

from histoloom import metrics


def test_every_public_name_resolves_and_no_other():
    assert set(dir(metrics)) == set(metrics.__all__)
    assert len(set(metrics.__all__)) == len(metrics.__all__)
    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__, name
    with pytest.raises(AttributeError, match="absent"):
        _ = metrics.absent


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
