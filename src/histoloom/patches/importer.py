"""Write a patch dataset from pictures: shards by split, tissue table, record, card."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from histoloom.errors import InputError
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import content_hash, read_record, written_aside
from histoloom.patches.folder import FolderImport, Picture, dropped_share, input_hash, patch_rows
from histoloom.patches.store import write_record, write_shards
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

COMMAND = "import"


def is_made_from(folder: Path, pictures: list[Picture], table: TissueTable, config: FolderImport) -> bool:
    """True when the dataset in `folder` was made from these very files with this table and config."""
    record = read_record(folder)
    if record is None or record.get("command") != COMMAND:
        return False
    same = all(record.get(key) == value for key, value in _recipe(table, config).items())
    return same and record.get("sha256") == content_hash(folder) and record.get("input_sha256") == input_hash(pictures)


def import_pictures(
    pictures: list[Picture],
    table: TissueTable,
    config: FolderImport,
    out: Path,
    license_name: str = "unknown",
    advance: Callable[[], None] = lambda: None,
) -> dict:
    """Write the dataset of all `pictures` to `out`, whole or not at all, and return its record.

    `advance` is called after each picture. Raises OutputError when `out` holds something already, ImageError and
    TissueError for broken pictures, InputError when a split ends up empty.
    """
    with written_aside(out) as aside:
        (aside / "tissue.toml").write_text(table.to_toml(), encoding="utf-8")
        written = 0
        for split in sorted({picture.split for picture in pictures}):
            part = [picture for picture in pictures if picture.split == split]
            count = write_shards(patch_rows(_counted(part, advance), table, config), table, aside, split)
            if not count:
                raise InputError(
                    f"{part[0].map}: like every map of split {split!r} it has no label; draw some, or drop them"
                )
            written += count
        summaries = summarize(aside)
        record = _recipe(table, config) | {
            "name": out.resolve().name,
            "version": VERSION,
            "seed": config.seed,
            "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
            "notes": _notes(pictures, written),
            "input_sha256": input_hash(pictures),
            "sha256": content_hash(aside),
        }
        write_record(aside, record)
        write_card(aside, summaries, record, license_name)
    return record


def _recipe(table: TissueTable, config: FolderImport) -> dict:
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    return {"command": COMMAND, "config": settings, "tissue": table.to_rows()}


def _counted(pictures: list[Picture], advance: Callable[[], None]) -> Iterator[Picture]:
    for picture in pictures:
        yield picture
        advance()


def _notes(pictures: Iterable[Picture], written: int) -> list[str]:
    pictures = list(pictures)
    planned, small = sum(len(p.places) for p in pictures), sum(not p.places for p in pictures)
    notes = [
        f"{100 * dropped_share(pictures):.1f} % of the pixels lie in no patch (trimmed, or left over beside the grid)"
    ]
    if small:
        notes.append(f"{small} images are smaller than a patch and were left out")
    if planned > written:
        notes.append(f"{planned - written} patches without any label were left out")
    return notes
