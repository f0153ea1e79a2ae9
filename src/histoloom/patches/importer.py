"""Write a patch dataset from pictures: shards by split, tissue table, record, description, card."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from histoloom.errors import InputError
from histoloom.files import whole_folder, write_record, write_text
from histoloom.license import UNKNOWN, License
from histoloom.patches.card import missing_types, summarize, write_card
from histoloom.patches.dataset import content_hash, finished_dataset, write_description
from histoloom.patches.folder import FolderImport, Picture, dropped_share, patch_rows
from histoloom.patches.maps import Tally
from histoloom.patches.store import write_shards
from histoloom.progress import SILENT, Bar
from histoloom.records import Record, fingerprint
from histoloom.text import counted, shorten
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

COMMAND = "import"
FORMAT = 2


def is_made_from(folder: Path, pictures: list[Picture], table: TissueTable, config: FolderImport) -> bool:
    """True when the dataset in `folder` was made from these very files with this table and config.

    Raises OutputError where `folder` holds anything else.
    """
    return finished_dataset(folder, dataset_record(pictures, table, config)) is not None


class UnlabeledError(InputError):
    """No map of a split has a label."""


def dataset_record(pictures: list[Picture], table: TissueTable, config: FolderImport) -> Record:
    """All that decides the bytes of the dataset; raises InputError for a file that cannot be read."""
    inputs = {}
    for picture in pictures:
        inputs[f"image {picture.source}"] = fingerprint(picture.image)
        inputs[f"map {picture.source}"] = fingerprint(picture.map)
    settings = {
        "config": dataclasses.asdict(config),
        "tissue": table.to_rows(),
        "order": list(table.order),
        "pictures": [{"source": p.source, "case": p.case, "split": p.split} for p in pictures],
    }
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def import_pictures(
    pictures: list[Picture],
    table: TissueTable,
    config: FolderImport,
    out: Path,
    license: License = UNKNOWN,
    bar: Bar = SILENT,
    notes: Iterable[str] = (),
) -> dict:
    """Write the dataset of all `pictures` to `out`, whole or not at all, and return its description.

    `bar` advances with each picture; `notes` are kept in the description. Raises OutputError when `out` holds something
    already or is being written, ImageError and TissueError for broken pictures, InputError when a split ends up empty.
    """
    tally = Tally()
    with whole_folder(out) as aside:
        record = dataset_record(pictures, table, config)
        write_record(aside, record)
        write_text(aside / "tissue.toml", table.to_toml())
        written = 0
        for split in sorted({picture.split for picture in pictures}):
            part = [picture for picture in pictures if picture.split == split]
            count = write_shards(patch_rows(_counted(part, bar), table, config, tally), table, aside, split)
            if not count:
                raise UnlabeledError(
                    f"{part[0].map}: like every map of split {split!r} it has no label; draw some, or drop them"
                )
            written += count
        summaries = summarize(aside)
        description = {
            "name": out.absolute().name,
            "command": COMMAND,
            "version": VERSION,
            "config": record.to_json()["settings"]["config"],
            "seed": config.seed,
            "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
            "notes": [
                *notes,
                *_notes(pictures, written),
                *_repeated(pictures, record),
                *missing_types(summaries, table, tally.hint()),
            ],
            "failures": [],
            "sha256": content_hash(aside),
            **license.said(),
        }
        write_description(aside, description)
        write_card(aside, summaries, description)
    return description


def _repeated(pictures: list[Picture], record: Record) -> list[str]:
    """A line on files that are the same under two names: cases that share an image should be one."""
    first: dict[str, Picture] = {}
    pairs = [(p, first.setdefault(record.inputs[f"image {p.source}"], p)) for p in pictures]
    pairs = [(again, before) for again, before in pairs if again.case != before.case]
    apart = [pair for pair in pairs if pair[0].split != pair[1].split]
    if not pairs:
        return []
    again, before = (apart or pairs)[0]
    return [
        f"{counted(len(pairs), 'image is', 'images are')} the same file as one of another case, {len(apart)} of them "
        "in another split: "
        f"{shorten(again.source)} is {shorten(before.source)}; name one case for both, or leave one out"
    ]


def _counted(pictures: list[Picture], bar: Bar) -> Iterator[Picture]:
    for picture in pictures:
        yield picture
        bar.advance()


def _notes(pictures: list[Picture], written: int) -> list[str]:
    planned, small = sum(len(p.places) for p in pictures), sum(not p.places for p in pictures)
    notes = []
    if dropped := dropped_share(pictures):
        notes.append(f"{100 * dropped:.1f} % of the pixels are in no patch (trimmed, or left over around the grid)")
    enlarged = max((p.grid.scale for p in pictures if p.grid), default=1.0)
    if enlarged < 1:
        notes.append(f"images were enlarged {1 / enlarged:.2g} times to the mpp of the patches, which adds no detail")
    if small:
        notes.append(f"left out: {counted(small, 'image')} smaller than a patch")
    if planned > written:
        notes.append(f"left out: {counted(planned - written, 'patch')} without any label")
    return notes
