"""Woven patches as Parquet shards: a patch dataset, or for Hugging Face the rows of the index with their pixels."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from histoloom.errors import ImageError
from histoloom.generation.export_items import Item
from histoloom.generation.woven_patch import COLUMNS
from histoloom.generation.woven_writer import indexed_png
from histoloom.license import License
from histoloom.patches import schema
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import content_hash, write_description
from histoloom.patches.heterogeneity import entropy
from histoloom.patches.store import encode_png, write_shards
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

SPLIT = "train"  # woven patches are for training


def write_dataset(items: Iterator[Item], table: TissueTable, license: License, aside: Path) -> None:
    """Write a patch dataset of one split, with its card; each patch is a case of its own.

    Raises ImageError where patches differ in size.
    """
    write_shards(_rows(items), table, aside, SPLIT)
    summaries = summarize(aside)
    description = {
        "name": "Woven patches",
        "maps": "the maps that they were woven from",
        "command": "export",
        "version": VERSION,
        "config": {},
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "notes": ["synthetic: a model wove all patches, and each counts as a case of its own"],
        "failures": [],
        **license.said(),
        "sha256": content_hash(aside),
    }
    write_description(aside, description)
    write_card(aside, summaries, description)


def write_hugging_face(items: Iterator[Item], table: TissueTable, license: License, aside: Path) -> None:
    """Write the rows of the index, with images and maps in them."""
    pixels = ("image", "semantic_map")
    fields = [schema.COLUMNS.field(field.name) if field.name in pixels else field for field in COLUMNS]
    features = {f.name: {"_type": "Image"} if f.name in pixels else _feature(f.type) for f in fields}
    metadata = {
        "huggingface": json.dumps({"info": {"features": features}}),
        "histoloom.tissue": json.dumps(table.to_rows()),
    }

    def rows() -> Iterator[dict]:
        for item in items:
            semantic_map = indexed_png(item.semantic_map, table, item.row.get("mpp"))
            yield item.row | {
                "image": {"bytes": item.encoded, "path": item.file.name},
                "semantic_map": {"bytes": semantic_map, "path": f"{item.file.stem}-map.png"},
            }

    write_shards(rows(), table, aside, SPLIT, pa.schema(fields, metadata))


def _rows(items: Iterator[Item]) -> Iterator[dict]:
    """Rows of a patch dataset."""
    first: Item | None = None
    for item in items:
        first = first or item
        if item.semantic_map.shape != first.semantic_map.shape:
            sizes = [f"{one.file} is {'{1} x {0}'.format(*one.semantic_map.shape)} px" for one in (first, item)]
            raise ImageError(
                f"patches of a dataset have one size, and {' and '.join(sizes)}; export as huggingface, or weave maps "
                "of one size"
            )
        yield {
            "image": {"bytes": item.encoded, "path": None},
            "semantic_map": encode_png(item.semantic_map),
            "source": item.file.name,
            "x": 0,
            "y": 0,
            "size": max(item.semantic_map.shape),
            "mpp": item.row.get("mpp"),
            "fractions": item.row["fractions"],
            "entropy": float(entropy(np.asarray([item.row["fractions"]]))[0]),
            "case": f"woven {item.file.stem}",
            "split": SPLIT,
        }


def _feature(kind: pa.DataType) -> dict:
    """A column as `datasets` describes it."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"double": "float64", "float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}
