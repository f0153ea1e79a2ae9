"""Write folders of woven patches: an interrupted run resumes, and ends with the bytes of an undisturbed one.

Images are written last, so all up to the first number without one are finished, and an interrupted run resumes there.
"""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from histoloom import files
from histoloom.errors import ImageError, OutputError
from histoloom.generation.woven_patch import (
    COLUMNS,
    PROVENANCE_KEY,
    ROWS,
    SOURCES,
    AnnotatedPatch,
    Dropped,
    dropped_path,
    image_path,
    map_path,
    read_provenance,
)
from histoloom.parquet import count_rows, parquet_writer
from histoloom.patches.heterogeneity import class_fractions
from histoloom.pictures import read_labels
from histoloom.records import Record
from histoloom.tissue import UNLABELLED, TissueTable


def write_patches(
    weave: Callable[[int], Iterable[AnnotatedPatch | Dropped]],
    table: TissueTable,
    folder: Path | str,
    record: Record,
    sources: dict | None = None,
    finish: Callable[[Path], None] = lambda aside: None,
) -> int:
    """Write the patches that `weave(first)` yields, from number `first` on; returns how many the folder holds.

    `first` counts the patches that an interrupted run with the same `record` has left. A finished folder with this
    record stays as it is. `sources` is the content of the key file that is not for sharing. `finish` adds files to the
    folder before it is published. Raises OutputError where the folder holds anything else, is being written by another
    process, or cannot be written; ImageError or TissueError where a patch does not fit its map or the table.
    """
    folder = Path(folder)
    if files.is_finished(folder, record):
        return count_rows(folder / "index.parquet")
    with files.resumable_folder(folder, record) as aside:
        done = count_finished(aside)
        for number, patch in enumerate(weave(done), start=done):
            if isinstance(patch, AnnotatedPatch):
                _check(patch, table, number)
            if number == 0:
                files.write_text(aside / "tissue.toml", table.to_toml())
                if sources:
                    files.write_json(aside / SOURCES, sources)
            if isinstance(patch, Dropped):
                files.write_json(dropped_path(aside, number), asdict(patch))
            else:
                _write_patch(aside, number, patch, table)
            done = number + 1
        if not done:
            raise OutputError(f"{folder}: there is nothing to weave; ask for at least one patch")
        kept = [number for number in range(done) if image_path(aside, number).exists()]
        if not kept:
            raise OutputError(
                f"{folder}: all {done} patches failed the self-check; loosen it, or change crops or model"
            )
        _write_index(aside, kept, table)
        finish(aside)
    return len(kept)


def count_finished(aside: Path) -> int:
    """How many patches an interrupted run has left in its folder, dropped ones included."""
    return next(n for n in count() if not (image_path(aside, n).exists() or dropped_path(aside, n).exists()))


def _check(patch: AnnotatedPatch, table: TissueTable, number: int) -> None:
    where = f"patch {number} ({patch.provenance.map_source})"
    if patch.image.shape != (*patch.semantic_map.shape, 3):
        raise ImageError(
            f"{where}: image {patch.image.shape} and map {patch.semantic_map.shape} differ in size; "
            "weave at the size of the map"
        )
    table.check(patch.semantic_map, where)


def _write_patch(aside: Path, number: int, patch: AnnotatedPatch, table: TissueTable) -> None:
    """Map first, image last: an image that exists has its map."""
    drawn = indexed_png(patch.semantic_map, table, patch.provenance.mpp)
    files.write_bytes(map_path(aside, number), drawn)
    files.write_bytes(image_path(aside, number), image_png(patch))


def image_png(patch: AnnotatedPatch) -> bytes:
    """The image of a patch as a PNG whose text chunk holds the provenance."""
    return explained_png(patch.image, asdict(patch.provenance), patch.provenance.mpp)


def explained_png(image: UInt8[np.ndarray, "h w 3"], said: dict, mpp: float | None = None) -> bytes:
    """An image as a PNG whose text chunk says how it was made."""
    text = PngImagePlugin.PngInfo()
    text.add_text(PROVENANCE_KEY, json.dumps(said, sort_keys=True, default=lambda scalar: scalar.item()))
    return _png(Image.fromarray(image), mpp, text)


def _write_index(aside: Path, numbers: list[int], table: TissueTable) -> None:
    """Rows come from the images themselves, so that an interrupted run and an undisturbed one write the same bytes."""
    schema = COLUMNS.with_metadata({"histoloom.tissue": json.dumps(table.to_rows())})
    # `datasets` opens the files that columns of these names point to.
    names = [f"{name}_file_name" if name in ("image", "semantic_map") else name for name in schema.names]
    renamed = pa.schema(
        [field.with_name(name) for name, field in zip(names, schema, strict=True)], metadata=schema.metadata
    )
    with (
        files.whole_file(aside / "index.parquet") as index,
        files.whole_file(aside / "metadata.parquet") as metadata,
        parquet_writer(index, schema, compression="zstd") as write_index,
        parquet_writer(metadata, renamed, compression="zstd") as write_metadata,
    ):
        for start in range(0, len(numbers), ROWS):
            rows = [_row(aside, number, table) for number in numbers[start : start + ROWS]]
            write_index.write_table(pa.Table.from_pylist(rows, schema))
            write_metadata.write_table(pa.Table.from_pylist(rows, schema).rename_columns(names))


def _row(aside: Path, number: int, table: TissueTable) -> dict:
    image, semantic_map = image_path(aside, number), map_path(aside, number)
    places = {"image": image.relative_to(aside).as_posix(), "semantic_map": semantic_map.relative_to(aside).as_posix()}
    labels = read_labels(semantic_map)
    shown = {"fractions": class_fractions(labels, table.num_ids).tolist(), "labeled": int((labels != UNLABELLED).sum())}
    return places | asdict(read_provenance(image)) | shown


def indexed_png(semantic_map: UInt8[np.ndarray, "h w"], table: TissueTable, mpp: float | None) -> bytes:
    """A map as PNG in the colors of `table`, whose pixels stay the ids."""
    image = Image.fromarray(semantic_map)
    image.putpalette(table.palette())  # gray becomes indexed
    return _png(image, mpp)


def _png(image: Image.Image, mpp: float | None, text: PngImagePlugin.PngInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    density = {} if mpp is None else {"dpi": (25_400 / mpp,) * 2}  # becomes the chunk pHYs, in pixels per meter
    image.save(buffer, "PNG", pnginfo=text, **density)
    return buffer.getvalue()
