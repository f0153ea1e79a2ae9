"""A whole patch dataset, written aside and renamed: shards, tissue table, record and card, or nothing at all."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histoloom.errors import OutputError


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` when the block ends, and vanishes when it fails.

    Raises OutputError when `folder` exists and is not empty, and for a disk that is full or refuses.
    """
    folder = folder.absolute()
    aside = folder.with_name(folder.name + ".partial")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: exists already; name another folder, or move it away")
    if aside.exists() and not (aside / ".histoloom").is_file():
        raise OutputError(f"{aside}: is in the way and was not left by an import; move it away")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        (aside / ".histoloom").touch()  # marks what a killed run leaves behind as ours to remove
        yield aside
        (aside / ".histoloom").unlink()
        os.replace(aside, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "check the path and its permissions"
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); {cure} and run again") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_record(folder: Path) -> dict | None:
    """What `dataset.json` says of a finished dataset; none where `folder` is no dataset."""
    try:
        return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def content_hash(folder: Path) -> str:
    """SHA-256 over the bytes of all shards, in order of name."""
    digest = hashlib.sha256()
    for shard in sorted((folder / "data").glob("*.parquet")):
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
