"""The one way to open Parquet files, which others may have written, cut short or changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.disk import open_input
from histoloom.errors import InputError
from histoloom.text import one_line

_BROKEN = (OSError, pa.ArrowException, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError)
_MOST_GROUP_BYTES = 4 * 2**30  # that one group of rows claims when it is unpacked


@contextmanager
def open_parquet(path: Path | str, columns: Mapping[str, pa.DataType] | None = None) -> Iterator[pq.ParquetFile]:
    """A Parquet file to be read group by group: what was read is freed, where pyarrow's default keeps it all.

    `columns` maps names of columns that the file must have to their types. Raises InputError naming the file.
    """
    with guarded(path):
        source = open_input(path)  # pyarrow refuses names that are not UTF-8
    with source:
        with guarded(path):
            file = pq.ParquetFile(source, pre_buffer=False)
            groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if max(groups, default=0) > _MOST_GROUP_BYTES:
                raise InputError(f"{path}: a group of its rows claims more than 4 GB; write it with smaller groups")
            schema = file.schema_arrow
        for name, kind in (columns or {}).items():
            if name not in schema.names:
                raise InputError(
                    f"{path}: has no column {name!r}; it is not a file of this kind, or of another version"
                )
            if _family(schema.field(name).type) != _family(kind):
                raise InputError(
                    f"{path}: column {name!r} holds {schema.field(name).type}, not {kind}; make the file again"
                )
        yield file


@contextmanager
def parquet_writer(path: Path | str, columns: pa.Schema, **how: Any) -> Iterator[pq.ParquetWriter]:
    """A writer of rows. Python opens the file, since pyarrow refuses names that are not UTF-8."""
    with Path(path).open("wb") as file, pq.ParquetWriter(file, columns, **how) as writer:
        yield writer


def read_rows(path: Path | str, columns: list[str] | None = None, **how: Any) -> pa.Table:
    """All rows of a Parquet file of ours; raises InputError naming the file."""
    with guarded(path), open_input(path) as file:
        return pq.read_table(file, columns=columns, **how)


def schema_of(path: Path | str) -> pa.Schema:
    """The columns of a Parquet file, with their metadata; raises InputError naming the file."""
    with open_parquet(path) as file:
        return file.schema_arrow


def count_rows(path: Path | str) -> int:
    """The rows of a Parquet file; raises InputError naming the file."""
    with open_parquet(path) as file:
        return file.metadata.num_rows


def read_batches(
    path: Path | str,
    rows: int = 64,
    columns: list[str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file in batches of at most `rows`; `types` are those of columns that it must have.

    Raises InputError naming the file, also where it turns out to be damaged half-way.
    """
    with open_parquet(path, types) as file:
        batches = file.iter_batches(rows, columns=columns)
        while True:
            with guarded(path):
                batch = next(batches, None)
                if batch is not None:
                    batch.validate(full=True)  # such as text that is not UTF-8
            if batch is None:
                return
            yield batch


@contextmanager
def guarded(path: Path | str) -> Iterator[None]:
    """Turn whatever pyarrow raises while it reads `path` into one InputError."""
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        reason = one_line(str(error), 200) or type(error).__name__
        raise InputError(f"{path}: is not a readable Parquet file ({reason}); copy or make it again") from None


def _family(kind: pa.DataType) -> object:
    """What a type holds, whatever its width: others write large strings, or 64 bits for 32."""
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind):
        return "real"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return ["list", _family(kind.value_type)]
    if types.is_struct(kind):
        return {kind.field(i).name: _family(kind.field(i).type) for i in range(kind.num_fields)}
    return str(kind)
