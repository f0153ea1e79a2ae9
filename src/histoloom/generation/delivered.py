"""What was delivered, counted on the pixels of the woven maps, next to what was ordered."""

from pathlib import Path

import numpy as np

from histoloom.generation.dataset_order import DatasetOrder
from histoloom.generation.order_plan import wanted_shares
from histoloom.generation.woven_reader import iter_index
from histoloom.records import read_json
from histoloom.tissue import TissueTable

DELIVERED = "delivered.json"


def count_delivered(folder: Path, order: DatasetOrder, table: TissueTable) -> dict:
    """Patches, shares of labeled pixels by type, and patches within the band: ordered and obtained."""
    pixels, patches, in_band, whole = np.zeros(table.num_ids), 0, 0, 0
    low, high = order.band
    for row in iter_index(folder):
        fractions = np.asarray(row["fractions"])
        pixels += fractions * row["labeled"]
        patches, whole = patches + 1, whole + row["labeled"]
        in_band += bool(low <= fractions.max() <= high)
    asked = wanted_shares(order.shares, table)  # a type that is named twice is owed both shares
    shares = {
        tissue.name: {
            "ordered": float(asked[tissue.id]) if order.shares else None,
            "obtained": pixels[tissue.id] / max(whole, 1),
        }
        for tissue in table.types
        if asked[tissue.id] or pixels[tissue.id]
    }
    return {
        "patches": {"ordered": order.count, "obtained": patches},
        "shares": shares,
        "band": {"ordered": list(order.band), "patches_within": in_band},
        "labeled_pixels": whole,
    }


def describe_delivered(folder: Path) -> str:
    """The report of a folder as lines of text; empty where nothing was ordered."""
    if not (folder / DELIVERED).is_file():
        return ""
    report = read_json(folder / DELIVERED)
    patches, band = report["patches"], report["band"]
    lines = [
        f"delivered: {patches['obtained']:,} of {patches['ordered']:,} patches, {report['labeled_pixels']:,} labeled "
        f"pixels; {band['patches_within']:,} patches have a most common type of {band['ordered'][0]:.0%} to "
        f"{band['ordered'][1]:.0%}"
    ]
    width = max(len(name) for name in report["shares"])
    for name, share in report["shares"].items():
        ordered = "" if share["ordered"] is None else f"  ordered {share['ordered']:6.1%}"
        lines.append(f"  {name:{width}}{ordered}  obtained {share['obtained']:6.1%}")
    return "\n".join(lines)
