"""The table of embeddings: one row per patch with its place and vector; the schema names the encoder.

`FOLDER/embeddings/*.parquet`, one file per part of a run, and `FOLDER/chosen.parquet` have these columns.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from histoloom.discovery.tree import check_dimension
from histoloom.errors import InputError
from histoloom.parquet import open_parquet, parquet_writer, read_batches

EMBEDDINGS, CHOSEN = "embeddings", "chosen.parquet"
ENCODER, FINGERPRINT = b"histoloom.encoder", b"histoloom.fingerprint"
ROWS_PER_GROUP = 4096  # rows in the memory of a writer: 12 MB of 1,536 half-precision numbers
PLACE = ("slide", "x", "y", "size")  # what identifies a patch
COLUMNS = {"slide": pa.string(), "x": pa.int64(), "y": pa.int64(), "size": pa.int64(), "case_id": pa.string()}


@dataclass(frozen=True)
class Table:
    """Files of embeddings that one encoder made, and their number of rows."""

    paths: tuple[Path, ...]
    encoder: str
    fingerprint: str
    dimensions: int
    rows: int

    def batches(self, rows: int = ROWS_PER_GROUP, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in order, in batches of at most `rows`; memory does not grow with the number of rows."""
        for path in self.paths:
            yield from read_batches(path, rows, columns)


def embedding_schema(encoder: str, fingerprint: str, dimensions: int, precision: str = "float16") -> pa.Schema:
    """Columns of a table of embeddings, with its encoder in the metadata."""
    fields = [
        pa.field("slide", pa.string(), nullable=False),  # path relative to the folder of slides; a patch's source
        pa.field("x", pa.int64(), nullable=False),  # level-0 pixels of the top-left corner
        pa.field("y", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # edge in level-0 pixels
        pa.field("mpp", pa.float64()),  # micrometers per pixel of the patch as the encoder saw it; null if unknown
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.from_numpy_dtype(np.dtype(precision)), dimensions), nullable=False),
    ]
    return pa.schema(fields, {ENCODER: encoder.encode(), FINGERPRINT: fingerprint.encode()})


def open_writer(path: Path, columns: pa.Schema) -> AbstractContextManager[pq.ParquetWriter]:
    """A writer of embeddings: names are compressed, vectors are not, as they do not become smaller."""
    plain = [field.name for field in columns if field.name != "vector"]
    how = {**dict.fromkeys(plain, "zstd"), "vector.list.element": "none"}
    return parquet_writer(path, columns, use_dictionary=["slide", "case_id", "size", "mpp"], compression=how)


def vectors_of(batch: pa.RecordBatch | pa.Table, name: str = "vector") -> Float[np.ndarray, "n d"]:
    """The column of vectors as an array, in its stored precision."""
    column: Any = batch.column(name)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def open_table(folder: Path | str) -> Table:
    """The embeddings in a folder of `histoloom discover embed`; raises InputError for none or for several encoders."""
    folder = Path(folder)
    paths = sorted((folder / EMBEDDINGS).glob("*.parquet"))
    if not paths:
        raise InputError(f"{folder}: has no embeddings; make them with `histoloom discover embed`")
    return _table_of(paths, "`histoloom discover embed`")


def open_chosen(folder: Path | str) -> Table:
    """The chosen patches in a folder of `histoloom discover choose`; raises InputError where there are none."""
    folder = Path(folder)
    if not (folder / CHOSEN).is_file():
        raise InputError(f"{folder}: has no {CHOSEN}; make it with `histoloom discover choose`")
    return _table_of([folder / CHOSEN], "`histoloom discover choose`")


def _table_of(paths: list[Path], command: str) -> Table:
    first, rows = None, 0
    for path in paths:
        try:
            with open_parquet(path) as file:
                columns, count = file.schema_arrow, file.metadata.num_rows
            metadata = columns.metadata or {}
            names = metadata[ENCODER].decode(), metadata[FINGERPRINT].decode()
            dimensions = columns.field("vector").type.list_size
            for name, kind in COLUMNS.items():
                if columns.field(name).type != kind:
                    raise InputError(f"column {name!r} holds {columns.field(name).type}, not {kind}")
        except (OSError, pa.ArrowException, KeyError, AttributeError, UnicodeDecodeError, InputError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: is not a table of embeddings ({reason}); remove it and run {command} again"
            ) from None
        first = first or (names, dimensions)
        check_dimension(dimensions, first[1], f"{path}: its vectors")
        if names != first[0]:
            raise InputError(
                f"{path}: was made by encoder {names[0]} ({names[1][:8]}), other files here by {first[0][0]} "
                f"({first[0][1][:8]}); remove those of one encoder and run {command} again"
            )
        rows += count
    assert first is not None
    return Table(tuple(paths), first[0][0], first[0][1], first[1], rows)
