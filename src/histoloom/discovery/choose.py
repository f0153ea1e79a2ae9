"""A thousand patches of each slide that differ as much as they can, so that rare tissue is not outvoted by common one.

Farthest-point choice (Gonzalez 1985): next comes always the patch that is least like any chosen so far. No patch is
then farther from the nearest chosen one than twice what the best choice of as many could reach; a random choice
promises nothing, and misses what is rare. No seed: the first is the patch nearest to the slide's mean.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from histoloom.discovery.embeddings import CHOSEN, Table, open_table, open_writer, vectors_of
from histoloom.discovery.tree import unit
from histoloom.distributed import ALONE, Workers, run_items
from histoloom.errors import ConfigError, InputError, OutputError

MADE = b"histoloom.choice"
ASIDE = "choosing"  # folder of finished parts, until all are there


@dataclass(frozen=True)
class ChooseConfig:
    """How many patches are chosen."""

    per_slide: int = 1000  # at most

    def __post_init__(self):
        if self.per_slide < 1:
            raise ConfigError(f"per_slide {self.per_slide} must be at least 1")


def diverse(vectors: Float[np.ndarray, "n d"], count: int) -> Int[np.ndarray, " m"]:
    """Indices, in order of choice, of at most `count` unit vectors by farthest-point choice; equals are chosen once.

    Time is `n` times `count`. Equal distances are decided for the first.
    """
    chosen = [int((vectors @ vectors.mean(0)).argmax())]
    near = 1 - vectors @ vectors[chosen[0]]  # half the squared distance to the nearest chosen
    while len(chosen) < min(count, len(vectors)):
        farthest = int(near.argmax())
        if near[farthest] <= 1e-6:  # single precision: all that is left was chosen already
            break
        chosen.append(farthest)
        np.minimum(near, 1 - vectors @ vectors[farthest], out=near)
    return np.array(chosen)


def coverage(vectors: Float[np.ndarray, "n d"], chosen: Int[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Distance of each unit vector to the nearest chosen one: its maximum is the covering radius."""
    closest = np.full(len(vectors), -1, np.float32)
    for start in range(0, len(chosen), 256):
        np.maximum(closest, (vectors @ vectors[chosen[start : start + 256]].T).max(1), out=closest)
    return np.sqrt(np.maximum(2 - 2 * closest, 0))


def choose(
    folder: Path,
    config: ChooseConfig,
    workers: Workers = ALONE,
    advance: Callable[[int, str], None] = lambda count, note: None,
) -> int:
    """Write `chosen.parquet` beside the embeddings; returns its number of patches.

    Goes on where a run of the same settings stopped, and does nothing where it is done. Raises InputError for
    embeddings of several encoders, or that are not finite; OutputError where the folder cannot be written.
    """
    table = open_table(folder)
    made = _made(table, config)
    if (folder / CHOSEN).is_file() and (pq.read_schema(folder / CHOSEN).metadata or {}).get(MADE) == made:
        advance(len(table.paths), "")
        return pq.ParquetFile(folder / CHOSEN).metadata.num_rows
    aside = folder / ASIDE / hashlib.sha256(made).hexdigest()[:16]
    try:
        aside.mkdir(parents=True, exist_ok=True)
        # Absolute, as workers on other machines stand in other folders.
        todo = [path.absolute() for path in table.paths if not (aside / path.name).is_file()]
        advance(len(table.paths) - len(todo), "")
        for outcome in run_items(partial(_choose_part, config.per_slide, aside.absolute()), todo, workers):
            if outcome.error is not None:
                raise outcome.error
            advance(1, "")
        count = _join([aside / path.name for path in table.paths], folder / CHOSEN, made)
        shutil.rmtree(folder / ASIDE)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); free some space") from None
    return count


def _made(table: Table, config: ChooseConfig) -> bytes:
    """What the choice was made from: it is done anew when parts were added or the number changed."""
    parts = [(path.name, path.stat().st_size) for path in table.paths]
    return json.dumps({"per_slide": config.per_slide, "fingerprint": table.fingerprint, "parts": parts}).encode()


def _choose_part(per_slide: int, aside: Path, path: Path) -> None:
    rows = pq.read_table(path)
    try:
        vectors = unit(vectors_of(rows))
    except InputError as error:
        raise InputError(f"{path}: {error}, or remove the file and run `histoloom discover embed` again") from None
    kept, start = [], 0
    for _, slide in groupby(rows["slide"].to_pylist()):
        stop = start + sum(1 for _ in slide)
        kept += (start + np.sort(diverse(vectors[start:stop], per_slide))).tolist()
        start = stop
    half = aside / f"{path.name}.{uuid.uuid4().hex}.partial"
    with open_writer(half, rows.schema) as writer:
        writer.write_table(rows.take(pa.array(kept)))
    os.replace(half, aside / path.name)


def _join(parts: list[Path], path: Path, made: bytes) -> int:
    half, count = path.with_suffix(".partial"), 0
    first = pq.read_schema(parts[0])
    with open_writer(half, first.with_metadata({**first.metadata, MADE: made})) as writer:
        for part in parts:
            rows = pq.read_table(part)
            writer.write_table(rows.replace_schema_metadata(writer.schema.metadata))
            count += len(rows)
    os.replace(half, path)
    return count
