import contextlib
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import histoloom
from histoloom.errors import InputError
from histoloom.parquet import open_parquet, parquet_writer, read_batches, read_rows

SOURCE = Path(histoloom.__file__).parent

COLUMNS = {"name": pa.string(), "value": pa.int64(), "list": pa.list_(pa.float32())}


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"name": [f"n{i}" for i in range(500)], "value": list(range(500)), "list": rng.random((500, 8)).tolist()}
    pq.write_table(pa.table(rows, pa.schema(list(COLUMNS.items()))), tmp_path / "a.parquet", row_group_size=100)
    return tmp_path / "a.parquet"


def test_rows_come_back_in_batches(path):
    batches = list(read_batches(path, 64, ["value"], COLUMNS))
    assert max(len(batch) for batch in batches) <= 64
    assert [value for batch in batches for value in batch["value"].to_pylist()] == list(range(500))


def test_wider_types_of_other_writers_are_read(path):
    rows = pa.table({"name": pa.array(["a"], pa.large_string()), "value": pa.array([1], pa.int32()),
                     "list": pa.array([[1.0]], pa.large_list(pa.float64()))})  # fmt: skip
    pq.write_table(rows, path)
    assert next(read_batches(path, types=COLUMNS)).num_rows == 1


def test_a_column_that_is_missing_or_of_another_kind_is_named(path):
    for columns, reason in (
        ({"image": pa.binary()}, "has no column 'image'"),
        ({"name": pa.int64()}, "column 'name' holds string, not int64"),
    ):
        with pytest.raises(InputError, match=rf"a\.parquet: {reason}"), open_parquet(path, columns):
            pass


@pytest.mark.parametrize("length", [0, 3, 200, 5000])
def test_a_file_that_is_cut_short_is_one_line(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"a\.parquet: is not a readable Parquet file") as error:
        list(read_batches(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("foreign", [b"\x80\x04\x95", b"PK\x03\x04", b"<html>", b"PAR1" * 100])
def test_a_file_of_another_kind_is_one_line(path, foreign):
    path.write_bytes(foreign)
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        list(read_batches(path))


def test_any_flipped_byte_is_one_line_or_harmless(path):
    whole = path.read_bytes()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        with contextlib.suppress(InputError):
            list(read_batches(path, types=COLUMNS))


def test_rows_go_through_a_file_whose_name_is_not_utf_8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/rows-\xff.parquet"))
    rows = pa.table({"x": [1, 2], "name": ["a", "b"]})
    with parquet_writer(path, rows.schema, compression="zstd") as writer:
        writer.write_table(rows)
    assert read_rows(path) == rows
    assert read_rows(path, ["x"]).column_names == ["x"]


def test_pyarrow_opens_no_path_itself():
    """It refuses names that are not UTF-8: files are opened by Python, in one module."""
    opened = re.compile(r"pq\.(ParquetWriter|ParquetFile|read_table|read_schema|read_metadata)\(")
    modules = [path for path in SOURCE.rglob("*.py") if path.name != "parquet.py"]
    assert not [path for path in modules if opened.search(path.read_text(encoding="utf-8"))]
