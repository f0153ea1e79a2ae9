"""The dataset card: a README.md that people read and the Hugging Face hub understands.

Counts come from the shards themselves, so the card tells what is there and not what was asked for.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from histoloom.patches.heterogeneity import is_heterogeneous
from histoloom.patches.store import iter_rows, read_table, splits
from histoloom.tissue import TissueTable

_ORDER = ("train", "val", "test")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds: patches, cases, edge and mpp of the patches, class fractions `n k`."""

    name: str
    cases: int
    sizes: tuple[int, ...]
    mpp: tuple[float, ...]
    fractions: Float[np.ndarray, "n k"] = field(repr=False)

    @property
    def patches(self) -> int:
        """Number of patches."""
        return len(self.fractions)


def summarize(folder: Path) -> list[SplitSummary]:
    """One summary per split of the dataset in `folder`, train first; pixels are not read."""
    names = sorted(splits(folder), key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return [_summarize_split(folder, name) for name in names]


def write_card(folder: Path, record: dict, license_name: str = "unknown") -> None:
    """Write `README.md` of the dataset in `folder`; `record` is what `dataset.json` says of its making.

    `license_name` is a hub identifier such as cc-by-4.0. The name in the title is `record["name"]`.
    """
    text = card_text(summarize(folder), read_table(folder), record, license_name)
    aside = folder / "README.md.partial"
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, folder / "README.md")


def card_text(summaries: list[SplitSummary], table: TissueTable, record: dict, license_name: str = "unknown") -> str:
    """The markdown of the card, with a YAML header for the hub."""
    total = sum(summary.patches for summary in summaries)
    parts = (
        _header(summaries, record["name"], total, license_name),
        f"# {record['name']}\n\n{total:,} H&E patches with pixel-exact tissue maps, {_geometry(summaries)}.",
        "## Splits\n\nA case (patient) is never in two splits.\n\n" + _split_table(summaries),
        "## Tissue types\n\nShare: mean over the patches of the type's part of the labelled pixels. Map value 255 is "
        "unlabelled.\n\n" + _type_table(summaries, table),
        "## How it was made\n\n" + _making(record),
        _USE,
    )
    return "\n\n".join(parts)


_USE = """## How to open it

```python
from datasets import load_dataset

patches = load_dataset("path/to/this/folder")  # image, semantic_map, source, x, y, size, mpp, fractions, entropy, case
```
"""


def _summarize_split(folder: Path, name: str) -> SplitSummary:
    cases, sizes, mpp, fractions = set(), set(), set(), []
    for row in iter_rows(folder, name, ["case", "size", "mpp", "fractions"]):
        cases.add(row["case"])
        sizes.add(row["size"])
        mpp.add(row["mpp"])
        fractions.append(np.asarray(row["fractions"], np.float32))
    known = tuple(sorted(value for value in mpp if value is not None))
    return SplitSummary(name, len(cases), tuple(sorted(sizes)), known, np.stack(fractions).astype(np.float64))


def _header(summaries: list[SplitSummary], name: str, total: int, license_name: str) -> str:
    size = next((label for bound, label in _SIZES if total < bound), "n>1M")
    lines = (
        "---",
        f"pretty_name: {json.dumps(name)}",
        f"license: {json.dumps(license_name)}",
        "task_categories:\n- image-segmentation",
        "tags:\n- histopathology\n- histoloom",
        f"size_categories:\n- {size}",
        "configs:\n- config_name: default\n  data_files:",
        *(f"  - split: {s.name}\n    path: data/{s.name}-*.parquet" for s in summaries),
        "---",
    )
    return "\n".join(lines)


def _geometry(summaries: list[SplitSummary]) -> str:
    sizes = sorted({size for summary in summaries for size in summary.sizes})
    mpp = sorted({value for summary in summaries for value in summary.mpp})
    edge = " or ".join(f"{size} x {size}" for size in sizes)
    return f"{edge} px, " + (
        " or ".join(f"{value:g}" for value in mpp) + " um per pixel" if mpp else "um per pixel unknown"
    )


def _split_table(summaries: list[SplitSummary]) -> str:
    rows = [
        (s.name, f"{s.patches:,}", f"{s.cases:,}", f"{100 * is_heterogeneous(s.fractions).mean():.0f} %")
        for s in summaries
    ]
    return _markdown(("split", "patches", "cases", "heterogeneous (20-80 %)"), rows)


def _type_table(summaries: list[SplitSummary], table: TissueTable) -> str:
    titles = ["id", "name", "colour"]
    titles += [f"{s.name}: {what}" for s in summaries for what in ("patches with it", "share")]
    rows = []
    for tissue in table.types:
        cells = [str(tissue.id), tissue.name.replace("|", "\\|"), f"`{tissue.color}`"]
        for summary in summaries:
            share = summary.fractions[:, tissue.id]
            cells += [f"{(share > 0).sum():,}", f"{100 * share.mean():.1f} %"]
        rows.append(cells)
    return _markdown(titles, rows)


def _making(record: dict) -> str:
    lines = [
        f"Made by Histoloom {record['version']} (`histoloom {record['command']}`); see `dataset.json` for all of it.",
        "",
    ]
    given = {key: value for key, value in record["config"].items() if value not in (None, "", [], ())}
    lines += [f"- {key}: `{json.dumps(value)}`" for key, value in given.items()]
    lines += [f"- {note}" for note in record.get("notes", ())]
    return "\n".join(lines)


def _markdown(titles: list[str] | tuple[str, ...], rows: list) -> str:
    lines = [" | ".join(titles), " | ".join("---" for _ in titles), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
