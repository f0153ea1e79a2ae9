"""The dataset card: a README.md that people read and the Hugging Face hub understands.

Counts come from the shards themselves, so the card tells what is there and not what was asked for.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from histoloom.patches.heterogeneity import is_heterogeneous
from histoloom.patches.store import iter_batches, read_table, splits
from histoloom.tissue import TissueTable

_ORDER = ("train", "val", "test")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds; `holding` and `share` are by tissue id: patches that show it, its mean fraction."""

    name: str
    patches: int
    cases: int
    sizes: tuple[int, ...]  # edges in level-0 pixels
    mpp: tuple[float, ...]
    mixed: int  # patches whose most common type covers 20-80 %
    holding: Int[np.ndarray, " k"]
    share: Float[np.ndarray, " k"]


def summarize(folder: Path) -> list[SplitSummary]:
    """One summary per split of the dataset in `folder`, train first; pixels are not read, and rows are not kept."""
    names = sorted(splits(folder), key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return [_summarize_split(folder, name) for name in names]


def write_card(folder: Path, summaries: list[SplitSummary], record: dict, license_name: str = "unknown") -> None:
    """Write `README.md` of the dataset in `folder`; `record` is what `dataset.json` says of its making.

    `license_name` is a hub identifier such as cc-by-4.0. The name in the title is `record["name"]`.
    """
    text = card_text(summaries, read_table(folder), record, license_name)
    aside = folder / "README.md.partial"
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, folder / "README.md")


def card_text(summaries: list[SplitSummary], table: TissueTable, record: dict, license_name: str = "unknown") -> str:
    """The markdown of the card, with a YAML header for the hub."""
    total = sum(summary.patches for summary in summaries)
    parts = (
        _header(summaries, record["name"], total, license_name),
        f"# {record['name']}\n\n{total:,} H&E patches with {record.get('maps', 'pixel-exact tissue maps')}, "
        f"{_geometry(summaries, record)}.",
        "## Splits\n\nA case (patient) is never in two splits.\n\n" + _split_table(summaries),
        "## Tissue types\n\nShare: mean over the patches of the type's part of the labelled pixels. Map value 255 is "
        "unlabelled.\n\n" + type_table(summaries, table),
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


def type_table(summaries: list[SplitSummary], table: TissueTable) -> str:
    """A markdown table with a row per tissue type: patches that show it and its mean share, by split."""
    titles = ["id", "name", "colour"]
    titles += [f"{s.name}: {what}" for s in summaries for what in ("patches with it", "share")]
    rows = []
    for tissue in table.types:
        cells = [str(tissue.id), tissue.name.replace("|", "\\|"), f"`{tissue.color}`"]
        for summary in summaries:
            cells += [f"{summary.holding[tissue.id]:,}", f"{100 * summary.share[tissue.id]:.1f} %"]
        rows.append(cells)
    return _markdown(titles, rows)


def _summarize_split(folder: Path, name: str) -> SplitSummary:
    cases, sizes, mpp = set(), set(), set()
    patches = mixed = 0
    width = read_table(folder).num_ids
    holding, total = np.zeros(width, np.int64), np.zeros(width)
    for batch in iter_batches(folder, name, ["case", "size", "mpp", "fractions"]):
        cases |= set(batch["case"].unique().to_pylist())
        sizes |= set(batch["size"].unique().to_pylist())
        mpp |= set(batch["mpp"].unique().to_pylist())
        fractions = np.stack(batch["fractions"].to_numpy(zero_copy_only=False)).astype(np.float64)
        patches, mixed = patches + len(fractions), mixed + int(is_heterogeneous(fractions).sum())
        holding, total = holding + (fractions > 0).sum(0), total + fractions.sum(0)
    known = tuple(sorted(value for value in mpp if value is not None))
    return SplitSummary(name, patches, len(cases), tuple(sorted(sizes)), known, mixed, holding, total / max(patches, 1))


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


def _geometry(summaries: list[SplitSummary], record: dict) -> str:
    """Edge and mpp of the patches; slides of several mpp give one size of patch from several sizes at level 0."""
    rules = record["config"].get("rules")
    sizes = [rules["size"]] if rules else sorted({size for summary in summaries for size in summary.sizes})
    mpp = sorted({value for summary in summaries for value in summary.mpp})
    edge = " or ".join(f"{size} x {size}" for size in sizes)
    return f"{edge} px, " + (
        " or ".join(f"{value:g}" for value in mpp) + " um per pixel" if mpp else "um per pixel unknown"
    )


def _split_table(summaries: list[SplitSummary]) -> str:
    rows = [(s.name, f"{s.patches:,}", f"{s.cases:,}", f"{100 * s.mixed / max(s.patches, 1):.0f} %") for s in summaries]
    return _markdown(("split", "patches", "cases", "heterogeneous (20-80 %)"), rows)


def _making(record: dict) -> str:
    lines = [
        f"Made by Histoloom {record['version']} (`histoloom {record['command']}`); see `dataset.json` for all of it.",
        "",
    ]
    given = {key: value for key, value in record["config"].items() if value not in (None, "", [], ())}
    lines += [f"- {key}: `{json.dumps(value)}`" for key, value in given.items()]
    lines += [f"- {note}" for note in record.get("notes", ())]
    lines += [f"- skipped: {failure}" for failure in record.get("failures", ())]
    return "\n".join(lines)


def _markdown(titles: list[str] | tuple[str, ...], rows: list) -> str:
    lines = [" | ".join(titles), " | ".join("---" for _ in titles), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
