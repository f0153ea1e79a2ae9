"""Read folders of woven patches, which others may have written or changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from histoloom.errors import ImageError, InputError
from histoloom.generation.woven_patch import ADDED, COLUMNS, CROP, ROWS, Dropped
from histoloom.parquet import open_parquet, read_batches
from histoloom.patches.preview import preview_html
from histoloom.patches.store import read_table
from histoloom.pictures import read_image, read_labels
from histoloom.records import read_json
from histoloom.text import counted
from histoloom.tissue import TissueTable


@dataclass(frozen=True, repr=False, eq=False)
class Woven:
    """A finished folder in memory: images `n h w 3`, semantic_maps `n h w`, the rows of the index, the tissue table."""

    images: UInt8[np.ndarray, "n h w 3"]
    semantic_maps: UInt8[np.ndarray, "n h w"]
    rows: list[dict]
    table: TissueTable

    def __repr__(self) -> str:
        count, height, width = self.semantic_maps.shape
        types = counted(len(self.table.types), "tissue type")
        return f"<Woven: {counted(count, 'patch')} of {width} x {height} px, {types}>"

    def _repr_html_(self) -> str:
        return preview_html(repr(self), self.images, self.semantic_maps, [row["image"] for row in self.rows])


def read_dropped(folder: Path) -> list[Dropped]:
    """The patches that were dropped."""
    return [Dropped(**read_json(path)) for path in sorted((folder / "dropped").glob("*.json"))]


def read_index(folder: Path | str) -> list[dict]:
    """The rows of the index of woven patches; raises InputError with file and cure."""
    return list(iter_index(folder))


def iter_index(folder: Path | str) -> Iterator[dict]:
    """The rows of the index one by one, so that memory does not grow with their number; raises as `read_index` does."""
    path = Path(folder) / "index.parquet"
    types = {field.name: field.type for field in COLUMNS if field.name not in ADDED | {"crops"}}
    with open_parquet(path, types) as file:
        if not _holds_crops(file.schema_arrow):
            raise InputError(
                f"{path}: has no column 'crops', so it is not an index of woven patches; name the right folder"
            )
        if not file.metadata.num_rows:
            raise InputError(f"{path}: names no patches; weave the folder again")
    for batch in read_batches(path, ROWS):
        for row in batch.to_pylist():
            row["guidance_interval"] = row.get("guidance_interval") or [0.0, 1.0]  # older versions guided at all times
            yield row


def read_woven(folder: Path | str, most: int | None = None) -> Woven:
    """Read a finished folder, or its first `most` patches, which share one size.

    Raises InputError or ImageError with file and cure. `iter_woven` reads patches of any sizes, one by one.
    """
    if most is not None and most < 1:
        raise InputError(f"{folder}: {most} patches were asked for; give 1 or more, or None for all")
    rows, images, maps = [], [], []
    for row, image, semantic_map in islice(iter_woven(folder), most):
        if maps and semantic_map.shape != maps[0].shape:
            raise ImageError(
                f"{Path(folder) / row['image']}: its map {semantic_map.shape} has not the size of the first map "
                f"{maps[0].shape}; use iter_woven for patches of several sizes"
            )
        rows.append(row)
        images.append(image)
        maps.append(semantic_map)
    return Woven(np.stack(images), np.stack(maps), rows, read_table(folder))


def iter_woven(folder: Path | str) -> Iterator[tuple[dict, UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]:
    """Row, image and map of each patch of a finished folder; raises InputError or ImageError with file and cure.

    The index may come from anywhere: a path in it that leads out of the folder is refused before any file is opened.
    """
    folder = Path(folder)
    for number, row in enumerate(iter_index(folder)):
        for column in ("image", "semantic_map"):
            refuse_outside(folder, number, column, row[column])
    for row in iter_index(folder):
        image, semantic_map = read_image(folder / row["image"]), read_labels(folder / row["semantic_map"])
        if image.shape != (*semantic_map.shape, 3):
            raise ImageError(
                f"{folder / row['image']}: image {image.shape} and map {semantic_map.shape} differ in size; weave the "
                "folder again"
            )
        yield row, image, semantic_map


def _holds_crops(schema: pa.Schema) -> bool:
    """Whether the column of crops is one that this version or an older one, without `texture`, writes."""
    kind = schema.field("crops").type if "crops" in schema.names else pa.null()
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields, known = set(kind.value_type.names), set(CROP.names)
    return known - {"texture"} <= fields <= known


def refuse_outside(folder: Path, number: int, column: str, name: str) -> None:
    """Raise InputError where a path of the index leads out of the folder."""
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name with a zero byte
        path = None
    if path is None or Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder / 'index.parquet'}, row {number}: {column} {name!r} leads out of the folder; copy the file into "
            "it and name it by a relative path, or weave the folder again"
        )
