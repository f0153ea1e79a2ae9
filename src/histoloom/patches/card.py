"""The dataset card: a README.md that people read and the Hugging Face hub understands.

Counts come from the shards themselves, so the card says what is there and not what was asked for. Names come from
others, so they are escaped.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import Float, Int

from histoloom.files import write_text
from histoloom.license import License
from histoloom.patches.heterogeneity import is_heterogeneous
from histoloom.patches.store import iter_batches, read_table, splits
from histoloom.text import one_line, shorten
from histoloom.tissue import TissueTable

_ORDER = ("train", "val", "test")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TEMPLATE = "card.md.jinja"


@dataclass(frozen=True, eq=False)
class SplitSummary:
    """What one split holds; `holding` (patches that show the type) and `share` (its mean fraction) are by tissue id."""

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


def write_card(folder: Path, summaries: list[SplitSummary], description: dict) -> None:
    """Write `README.md` of the dataset in `folder` from its description, whose `name` is the title."""
    write_text(folder / "README.md", card_text(summaries, read_table(folder), description))


def card_text(summaries: list[SplitSummary], table: TissueTable, description: dict) -> str:
    """The Markdown of the card, with a YAML header for the hub."""
    total = sum(summary.patches for summary in summaries)
    settings = {key: value for key, value in description["config"].items() if value not in (None, "", [], ())}
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            summaries=summaries,
            name=description["name"],
            license=License.of(description),
            size_category=next((label for bound, label in _SIZES if total < bound), "n>1M"),
            total=total,
            maps=description.get("maps", "pixel-exact tissue maps"),
            geometry=_geometry(summaries, description),
            split_table=_split_table(summaries),
            type_table=type_table(summaries, table),
            version=description["version"],
            command=description["command"],
            settings=[(markdown(key), json.dumps(value).replace("`", "'")) for key, value in settings.items()],
            notes=description.get("notes", ()),
            failures=description.get("failures", ()),
        )
    )


def type_table(summaries: list[SplitSummary], table: TissueTable) -> str:
    """A Markdown table with a row per tissue type: patches that show it and its mean share, by split."""
    titles = ["id", "name", "color"]
    titles += [f"{s.name}: {what}" for s in summaries for what in ("patches with it", "share")]
    rows = []
    for tissue in table.types:
        cells = [str(tissue.id), markdown(tissue.name), f"`{tissue.color}`"]
        for summary in summaries:
            cells += [f"{summary.holding[tissue.id]:,}", f"{100 * summary.share[tissue.id]:.1f} %"]
        rows.append(cells)
    return _markdown(titles, rows)


def missing_types(summaries: list[SplitSummary], table: TissueTable, hint: str = "") -> list[str]:
    """A line that names the types of the table that no patch holds; `hint` is a likely reason."""
    missing = [t.name for t in table.types if not any(summary.holding[t.id] for summary in summaries)]
    if not missing:
        return []
    names = ", ".join(repr(shorten(name)) for name in missing[:10]) + (", ..." if len(missing) > 10 else "")
    return [f"no patch holds {names}{f'; {hint}' if hint else ''}"]


def markdown(text: str) -> str:
    """A foreign text as one line of Markdown that nothing in it can break out of."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", escape(one_line(str(text)), quote=False))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # the card is Markdown; `markdown` escapes it
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"markdown": markdown, "tojson_text": json.dumps}
    return environment


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


def _geometry(summaries: list[SplitSummary], description: dict) -> str:
    """Edge and mpp of the patches; slides of several mpp give one size of patch from several sizes at level 0."""
    rules = description["config"].get("rules")
    sizes = [rules["size"]] if rules else sorted({size for summary in summaries for size in summary.sizes})
    mpp = sorted({value for summary in summaries for value in summary.mpp})
    edge = " or ".join(f"{size} x {size}" for size in sizes)
    return f"{edge} px, " + (
        " or ".join(f"{value:g}" for value in mpp) + " um per pixel" if mpp else "um per pixel unknown"
    )


def _split_table(summaries: list[SplitSummary]) -> str:
    rows = [(s.name, f"{s.patches:,}", f"{s.cases:,}", f"{100 * s.mixed / max(s.patches, 1):.0f} %") for s in summaries]
    return _markdown(("split", "patches", "cases", "heterogeneous (20-80 %)"), rows)


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(titles), " | ".join("---" for _ in titles), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
