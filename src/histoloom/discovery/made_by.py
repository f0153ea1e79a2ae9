"""The record of a run in the metadata of the one Parquet file that it writes, where there is no folder for it."""

import json
from pathlib import Path

import pyarrow as pa

from histoloom.errors import InputError
from histoloom.parquet import schema_of
from histoloom.records import Record
from histoloom.version import VERSION

KEY = b"histoloom.record"


def with_record(columns: pa.Schema, record: Record) -> pa.Schema:
    """The schema of a file that `record` describes."""
    text = json.dumps(record.to_json() | {"version": VERSION}, sort_keys=True)
    return columns.with_metadata({**(columns.metadata or {}), KEY: text.encode()})


def record_in(path: Path) -> dict:
    """The record in a file, empty where it has none; raises InputError for a damaged file."""
    try:
        found = json.loads((schema_of(path).metadata or {}).get(KEY, b"{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its record cannot be read ({error}); remove it and run the command again") from None
    return found if isinstance(found, dict) else {}
