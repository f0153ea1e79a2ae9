"""Figures of a report of `histoloom evaluate`, for two of them side by side."""

import json
import math

from histoloom.errors import RequestError

MOST_FIGURES = 500
MOST_BYTES = 8 * 2**20


def read_figures(data: bytes) -> dict:
    """Name and figures of a report.json; raises RequestError for any other file."""
    try:
        report = json.loads(data)
        sets = report["sets"]
        name = f"{sets['fake']['folder']} against {sets['reference']['folder']}, {sets['fake']['images']} images"
        figures = [
            _figure(row, f"{row['name']}, {encoder}")
            for encoder, found in report["encoders"].items()
            for row in found["overall"]
        ]
        figures += [_figure(row, row["name"]) for row in (*report["stain"], *report["maps"])]
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RequestError(f"this is not a report.json of `histoloom evaluate` ({str(error)[:80]})", 400) from None
    return {"name": name[:300], "figures": figures[:MOST_FIGURES]}


def _figure(row: dict, name: str) -> dict:
    value, low, high = (_number(row[key]) for key in ("value", "low", "high"))
    floor = _number(row["floor"])
    note = str(row["note"])[:300] or ("" if floor is None else f"real against real: {floor:.4g}")
    interval = None if low is None or high is None else [low, high]
    return {
        "name": str(name)[:120],
        "value": "not given" if value is None else value,
        "interval": interval,
        "note": note,
    }


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a figure is not a number")
    return float(value)
