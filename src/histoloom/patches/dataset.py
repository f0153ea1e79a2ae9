"""The description of a patch dataset, `dataset.json`: what it holds, for people and for later steps.

The record of the run that made it, which decides whether that run is repeated or resumed, is `record.json`
(`histoloom.files`). Neither names a folder of this machine.
"""

import hashlib
from pathlib import Path

from histoloom.errors import OutputError
from histoloom.files import is_finished, write_json
from histoloom.license import UNKNOWN, License
from histoloom.records import Record, read_json

DESCRIPTION = "dataset.json"


def read_description(folder: Path | str) -> dict | None:
    """The description of a dataset; None where `folder` has none. Raises InputError for one that is damaged."""
    path = Path(folder) / DESCRIPTION
    return read_json(path) if path.is_file() else None


def write_description(folder: Path, description: dict) -> None:
    """Write `dataset.json`; raises OutputError."""
    write_json(folder / DESCRIPTION, description)


def finished_dataset(folder: Path, record: Record) -> dict | None:
    """The description of the dataset that this run has made in `folder`; None where there is none yet.

    Raises OutputError where `folder` holds anything else, or where its shards were changed since.
    """
    if not is_finished(folder, record):
        return None
    description = read_description(folder)
    if description is None or description.get("sha256") != content_hash(folder):
        raise OutputError(f"{folder}: its files are not those that were written; remove the folder and run again")
    return description


def check_license(description: dict, asked: License, folder: Path) -> None:
    """Raise OutputError where a finished dataset says something else than was asked for: its card stays as it is."""
    made, wanted = License.of(description).said(), asked.said()
    for what, was in made.items():
        if wanted[what] not in (UNKNOWN.said()[what], was):
            raise OutputError(
                f"{folder}: was made with {what} {was!r}, not {wanted[what]!r}; remove the folder and run again"
            )


def content_hash(folder: Path) -> str:
    """SHA-256 over the bytes of all shards, in order of name."""
    digest = hashlib.sha256()
    for shard in sorted((folder / "data").glob("*.parquet")):
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
