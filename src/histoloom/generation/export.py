"""Woven patches for other tools.

    OUT/
      README.md, tissue.toml, record.json
    as dataset: a patch dataset, which `train` reads
      dataset.json
      data/train-00000.parquet
    as huggingface: images, maps, and how each patch was made
      data/train-00000.parquet
    as coco
      images/00000.png
      semantic/00000.png         gray, pixel = category id, 0 = unlabeled
      instances.json             a mask for each connected region
    as yolo
      images/00000.png
      labels/00000.txt           a polygon for each connected region
      data.yaml
    as geojson
      images/00000.png
      annotations/00000.geojson  polygons for QuPath, in pixels of the image

Nothing of it names this machine: the key file of the woven folder is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from histoloom import files
from histoloom.errors import ConfigError
from histoloom.generation.export_card import read_license, write_card
from histoloom.generation.export_items import Item, count_items, iter_items
from histoloom.license import License
from histoloom.patches.store import read_table
from histoloom.progress import Progress, silent
from histoloom.records import Record, refuse_other_run
from histoloom.tissue import TissueTable

FORMAT = 1  # raised when the same settings and inputs give other bytes
Kind = Literal["dataset", "huggingface", "coco", "yolo", "geojson"]
Write = Callable[[Iterator[Item], TissueTable, License, Path], None]


def check_kind(kind: str) -> None:
    """Raise ConfigError for a kind of export that is not known."""
    if kind not in get_args(Kind):
        raise ConfigError(f"--as {kind} is unknown; known: {', '.join(get_args(Kind))}")


def check_export(kind: str, out: Path) -> None:
    """Raise ConfigError for a kind that is not known, OutputError where `out` could not take such an export: call it
    before the patches are woven."""
    check_kind(kind)
    files.check_out(out)
    if (found := files.read_record(out)) is not None:
        refuse_other_run(out, found, replace(_record(kind, ""), inputs=found.get("inputs", {})))


def export_woven(folder: Path, kind: str, out: Path, progress: Progress = silent) -> int:
    """Write the woven patches of `folder` to the new folder `out` as `kind`; returns their number.

    A finished export of the same patches stays as it is; a killed one begins again. Raises ConfigError for a kind that
    is not known, InputError or ImageError where `folder` holds no woven patches, OutputError where `out` holds anything
    else.
    """
    check_kind(kind)
    count, digest = count_items(folder)
    record = _record(kind, digest)
    if files.is_finished(out, record):
        return count
    table, license = read_table(folder), read_license(folder)
    write = _writer(kind)
    with files.whole_folder(out) as aside, progress("writing", count, "patches") as bar:
        files.write_text(aside / "tissue.toml", table.to_toml())
        write(iter_items(folder, bar), table, license, aside)
        if kind != "dataset":  # which has a card of its own
            write_card(aside, kind, count, table, license)
        files.write_record(aside, record)
    return count


def _record(kind: str, patches: str) -> Record:
    return Record(command="export", format=FORMAT, settings={"as": kind}, inputs={"patches": patches})


def _writer(kind: str) -> Write:
    if kind in ("dataset", "huggingface"):
        from histoloom.generation.export_shards import write_dataset, write_hugging_face

        return write_dataset if kind == "dataset" else write_hugging_face
    from histoloom.generation.export_shapes import write_coco, write_geojson, write_yolo  # need the extra slides

    return {"coco": write_coco, "yolo": write_yolo, "geojson": write_geojson}[kind]
