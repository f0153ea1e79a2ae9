"""The tables of results that lie beside the docs, and of results that know more intervals."""

import copy
import json
from pathlib import Path

import pytest

from histoloom.evaluation.paper_tables import paper_tables

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "ebhi-seg-tables.json"


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def rows_of(text: str, first: str) -> list[str]:
    """Lines of the table whose head begins with `first`, without that."""
    return text[text.index(f"| {first}") :].split("\n\n")[0].splitlines()[2:]


def with_intervals(result: dict, low: float | None, high: float | None) -> dict:
    """The result with this interval for each distance with squares left out."""
    changed = copy.deepcopy(result)
    for of in changed["sets"].values():
        for figures in of["left_out"].values():
            for figure in figures:
                figure.update(low=low, high=high)
    return changed


def test_distances_with_squares_left_out_show_their_interval(result):
    text = paper_tables(with_intervals(result, 110.5, 210.25))
    for row in rows_of(text, f"{100 * _share(result):.0f} % of the"):
        _, floor, *cells = row.removesuffix(" |").split(" | ")
        assert "[" not in floor
        assert len(cells) == len(result["sets"])
        assert all(cell.endswith(" [110.5, 210.2]") for cell in cells)
    answer = next(line for line in text.splitlines() if "the squares left out: unconditional " in line)
    assert answer.count(" [110.5, 210.2]") == 3


def test_results_from_before_there_were_intervals_still_make_tables(result):
    rows = rows_of(paper_tables(with_intervals(result, None, None)), f"{100 * _share(result):.0f} % of the")
    assert [row.split(", ")[0] for row in rows] == [f"| {name}" for name in result["budget"]["encoders"]]
    assert not any("[" in row or "None" in row for row in rows)


def _share(result: dict) -> float:
    return next(iter(result["sets"].values()))["left_out_share"]
