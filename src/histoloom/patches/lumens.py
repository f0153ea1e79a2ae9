"""Lumens and glass as a tissue type of their own, found by brightness.

Annotators draw a gland with its lumen and count glass as stroma. A model that learns from such maps has to invent what
they leave out, and a small one does not: it weaves glands without lumens where a map shows one area of one type. Here
the areas that light passes unhindered become a type of a new dataset, so that maps outline them.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from histoloom.errors import InputError
from histoloom.files import whole_folder, write_record, write_text
from histoloom.license import License
from histoloom.patches.bright import USUAL_MPP, Light, LumenRules, bright_areas, light_of_cases
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import (
    DESCRIPTION,
    content_hash,
    finished_dataset,
    read_description,
    write_description,
)
from histoloom.patches.heterogeneity import class_fractions, entropy
from histoloom.patches.store import (
    encode_png,
    has_pixels,
    iter_rows,
    read_table,
    row_pixels,
    shards_of,
    splits,
    write_shards,
)
from histoloom.pictures import write_picture
from histoloom.progress import SILENT, Bar
from histoloom.records import Record, fingerprint
from histoloom.text import canonical, counted
from histoloom.tissue import LAST_ID, TissueTable, TissueType
from histoloom.version import VERSION

COMMAND = "lumens"
FORMAT = 1
PICTURE = "lumens.jpg"
_SHOWN = 16  # patches in the picture
_EDGE = 256  # px of a patch in it
_TINT = (0, 170, 60)


def add_lumens(dataset: Path, out: Path, rules: LumenRules | None = None, bar: Bar = SILENT) -> dict:
    """Write `dataset` again to `out`, with lumens and glass as a type of their own, and return its description.

    Only labeled pixels change. `bar` advances with each patch, twice. A dataset that the same call has made stays as it
    is. Raises InputError for a dataset without pixels, or one in which nothing is bright, TissueError where no id is
    left, OutputError where `out` holds anything else.
    """
    rules = rules or LumenRules()
    table, record = read_table(dataset), lumen_record(dataset, rules)
    if (made := finished_dataset(out, record)) is not None:
        return made
    names, wider = splits(dataset), with_lumens(table, rules)
    lumen = wider.find(rules.name)
    for split in names:
        if not has_pixels(dataset, split):
            raise InputError(f"{dataset}: is an index without pixels; make it with `histoloom patches --pixels`")
    light = light_of_cases(shown for split in names for shown in _images(dataset, split, bar))
    sheet = _Sheet()
    with whole_folder(out) as aside:
        write_record(aside, record)
        write_text(aside / "tissue.toml", wider.to_toml())
        for split in names:
            rows = _outlined(dataset, split, light, rules, lumen.id, wider.num_ids, sheet, bar)
            write_shards(rows, wider, aside, split)
        if not sheet.changed:
            raise InputError(f"{dataset}: no patch shows lumens or glass; lower brightness or contrast")
        write_picture(aside / PICTURE, sheet.picture(), "JPEG", quality=85)
        summaries, before = summarize(aside), read_description(dataset) or {}
        description = {
            "name": out.absolute().name,
            "command": COMMAND,
            "version": VERSION,
            "config": dataclasses.asdict(rules) | {"dataset": before.get("sha256", content_hash(dataset))},
            "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
            "notes": [
                *before.get("notes", []),
                *_notes(dataset, sheet),
                f"{100 * sheet.changed / sheet.labeled:.1f} % of the labeled pixels became {lumen.name!r}, found by "
                f"brightness and not by a person; {PICTURE} shows {counted(len(sheet.shown), 'patch')}",
            ],
            "failures": before.get("failures", []),
            "sha256": content_hash(aside),
            **License.of(before).said(),
        }
        write_description(aside, description)
        write_card(aside, summaries, description)
    return description


def lumen_record(dataset: Path, rules: LumenRules) -> Record:
    """All that decides the bytes of the new dataset."""
    shards = [shard for split in splits(dataset) for shard in shards_of(dataset, split)]
    files = (*shards, dataset / DESCRIPTION)  # license and notes are taken over
    inputs = {file.name: fingerprint(file) for file in files if file.is_file()}
    settings = {"config": dataclasses.asdict(rules), "tissue": read_table(dataset).to_rows()}
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def with_lumens(table: TissueTable, rules: LumenRules | None) -> TissueTable:
    """The table with the type of lumens, which it may have already; without `rules`, as it is.

    Raises TissueError where no id is left, or where the name is an alias of a type.
    """
    if rules is None or any(canonical(tissue.name) == canonical(rules.name) for tissue in table.types):
        return table
    return TissueTable((*table.types, TissueType(max(table.ids) + 1, rules.name, rules.color)), table.order)


def _images(dataset: Path, split: str, bar: Bar) -> Iterator[tuple[str, np.ndarray, float]]:
    for row in iter_rows(dataset, split):
        yield row["case"], row_pixels(row, None, str(dataset))[0], row["mpp"] or USUAL_MPP
        bar.advance()


def _outlined(
    dataset: Path,
    split: str,
    light: dict[str, Light],
    rules: LumenRules,
    lumen: int,
    num_types: int,
    sheet: "_Sheet",
    bar: Bar,
) -> Iterator[dict]:
    for row in iter_rows(dataset, split):
        image, semantic_map = row_pixels(row, None, str(dataset))
        bright = bright_areas(image, light[row["case"]], row["mpp"] or USUAL_MPP, rules)
        labeled = semantic_map <= LAST_ID
        outlined = np.where(bright & labeled, np.uint8(lumen), semantic_map)
        sheet.add(row["case"], image, bright & labeled, labeled)
        sheet.unscaled += row["mpp"] is None
        fractions = class_fractions(outlined, num_types)
        yield row | {
            "semantic_map": encode_png(outlined),
            "fractions": fractions.tolist(),
            "entropy": float(entropy(fractions[None])[0]),
        }
        bar.advance()


def _notes(dataset: Path, sheet: "_Sheet") -> list[str]:
    notes = []
    if sheet.unscaled:
        notes.append(
            f"the mpp of {counted(sheet.unscaled, 'patch')} is unknown and was taken as {USUAL_MPP:g} um per pixel: at "
            "another scale, gaps between cells count as lumens, or lumens are missed; import the pictures with --mpp"
        )
    if (dataset / "levels.toml").is_file():
        notes.append("levels.toml is left out, since it does not know this type; a curriculum needs one that does")
    return notes


class _Sheet:
    """Counts what changes, and keeps patches of some cases to show it."""

    def __init__(self):
        self.changed = self.labeled = 0
        self.unscaled = 0  # patches of unknown mpp
        self.shown: dict[str, np.ndarray] = {}  # by case

    def add(
        self,
        case: str,
        image: UInt8[np.ndarray, "h w 3"],
        bright: Bool[np.ndarray, "h w"],
        labeled: Bool[np.ndarray, "h w"],
    ) -> None:
        """Count a patch, and keep it where it is the first of its case that shows something."""
        self.changed, self.labeled = self.changed + int(bright.sum()), self.labeled + int(labeled.sum())
        if case not in self.shown and len(self.shown) < _SHOWN and 0.02 < bright.mean() < 0.5:
            tinted = np.where(bright[..., None], np.array(_TINT, np.uint8), image)
            side = slice(0, _EDGE), slice(0, _EDGE)
            self.shown[case] = np.concatenate([image[side], tinted[side]], axis=1)

    def picture(self) -> Image.Image:
        """Patches as they are, and with their bright areas tinted, in rows of four."""
        blank = np.full((_EDGE, 2 * _EDGE, 3), 255, np.uint8)
        cells = []
        for shown in list(self.shown.values()) or [blank]:
            cells.append(blank.copy())
            cells[-1][: shown.shape[0], : shown.shape[1]] = shown
        cells += [blank] * (-len(cells) % 4)
        return Image.fromarray(np.vstack([np.hstack(cells[i : i + 4]) for i in range(0, len(cells), 4)]))
