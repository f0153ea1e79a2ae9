"""Damaged, foreign and hostile files: a result or one clear line. `benchmarks/fuzz.py` tries thousands."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc for its limits")
def test_a_damaged_file_is_a_result_or_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    rows = importlib.import_module("fuzz").campaign(range(80), 1, tmp_path)
    assert [row for row in rows if row["outcome"] not in ("accepted", "refused")] == []
    assert {row["outcome"] for row in rows} == {"accepted", "refused"}
