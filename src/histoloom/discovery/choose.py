"""Choose the patches of each slide that differ most, so that common tissue does not outvote rare tissue.

Farthest-point choice (Gonzalez 1985): the next patch is always the one that is least similar to those chosen so far. No
patch is then farther from the nearest chosen one than twice the optimum for that number; random choice guarantees
nothing and misses rare tissue. There is no seed: the first patch is the one nearest to the mean of the slide.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from histoloom.discovery.embeddings import CHOSEN, Table, open_table, open_writer, vectors_of
from histoloom.discovery.made_by import record_in, with_record
from histoloom.discovery.tree import unit
from histoloom.disk import one_clear_line
from histoloom.distributed import ALONE, Workers, run_items
from histoloom.errors import ConfigError, InputError
from histoloom.files import remove_partials, run_folder, whole_file
from histoloom.locks import locked
from histoloom.parquet import count_rows, read_rows, schema_of
from histoloom.progress import SILENT, Bar
from histoloom.records import Record, fingerprint, refuse_other_run

COMMAND, FORMAT = "discover choose", 1
ASIDE = "choosing"  # folder of finished parts, until all are there


@dataclass(frozen=True)
class ChooseConfig:
    """How many patches are chosen."""

    per_slide: int = 1000  # at most

    def __post_init__(self):
        if not 1 <= self.per_slide < 2**31:
            raise ConfigError(f"per_slide {self.per_slide} must be at least 1 and below 2^31")


def diverse(vectors: Float[np.ndarray, "n d"], count: int) -> Int[np.ndarray, " m"]:
    """Indices, in order of choice, of at most `count` unit vectors by farthest-point choice; duplicates count once.

    Takes time `n` times `count`. Of equal distances the first one wins. Vectors of zeros are duplicates of each other.
    """
    chosen = [int((vectors @ vectors.mean(0)).argmax())]
    half = np.einsum("nd,nd->n", vectors, vectors).round() / 2  # of the squared length, which is 1, or 0 for zeros
    # Half the squared distance to the nearest chosen vector.
    near = half + half[chosen[0]] - vectors @ vectors[chosen[0]]
    while len(chosen) < min(count, len(vectors)):
        farthest = int(near.argmax())
        if near[farthest] <= 1e-6:  # in single precision, only duplicates are left
            break
        chosen.append(farthest)
        np.minimum(near, half + half[farthest] - vectors @ vectors[farthest], out=near)
    return np.array(chosen)


def coverage(vectors: Float[np.ndarray, "n d"], chosen: Int[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Distance of each unit vector to the nearest chosen one; the maximum is the covering radius."""
    closest = np.full(len(vectors), -1, np.float32)
    for start in range(0, len(chosen), 256):
        np.maximum(closest, (vectors @ vectors[chosen[start : start + 256]].T).max(1), out=closest)
    return np.sqrt(np.maximum(2 - 2 * closest, 0))


def choose(folder: Path, config: ChooseConfig, workers: Workers = ALONE, bar: Bar = SILENT) -> int:
    """Write `chosen.parquet` next to the embeddings and return its number of patches.

    Continues an interrupted run, and does nothing where the file is finished. Raises InputError for embeddings of
    several encoders or that are not finite; OutputError where the file was made from other embeddings or with other
    settings, or cannot be written.
    """
    table = open_table(folder)
    record = _record(table, config)
    path, aside = folder / CHOSEN, folder / ASIDE
    with locked(folder), one_clear_line(folder):
        remove_partials(folder)
        if path.is_file():
            refuse_other_run(path, record_in(path), record, cure="remove it to choose again, or use another folder")
            with locked(aside):  # of a run that was killed after it had written the file
                shutil.rmtree(aside, ignore_errors=True)
            bar.advance(len(table.paths))
            return count_rows(path)
        with run_folder(aside, record):
            # Absolute, because workers on other machines run in other folders.
            todo = [part.absolute() for part in table.paths if not (aside / part.name).is_file()]
            bar.advance(len(table.paths) - len(todo))
            for outcome in run_items(partial(_choose_part, config.per_slide, aside.absolute()), todo, workers):
                if outcome.error is not None:
                    raise outcome.error
                bar.advance()
            count = _join([aside / part.name for part in table.paths], path, record)
        shutil.rmtree(aside)
    return count


def _record(table: Table, config: ChooseConfig) -> Record:
    """What decides the choice: the number, and the embeddings by content, wherever they are."""
    inputs = {path.name: fingerprint(path, whole=False, dated=False) for path in table.paths}
    settings = dataclasses.asdict(config) | {"encoder": table.fingerprint}
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def _choose_part(per_slide: int, aside: Path, path: Path) -> None:
    rows = read_rows(path)
    try:
        vectors = unit(vectors_of(rows))
    except InputError as error:
        raise InputError(f"{path}: {error}, or remove the file and run `histoloom discover embed` again") from None
    kept, start = [], 0
    for _, slide in groupby(rows["slide"].to_pylist()):
        stop = start + sum(1 for _ in slide)
        kept += (start + np.sort(diverse(vectors[start:stop], per_slide))).tolist()
        start = stop
    with whole_file(aside / path.name) as part, open_writer(part, rows.schema) as writer:
        writer.write_table(rows.take(pa.array(kept)))


def _join(parts: list[Path], path: Path, record: Record) -> int:
    count = 0
    columns = with_record(schema_of(parts[0]), record)
    with whole_file(path) as aside, open_writer(aside, columns) as writer:
        for part in parts:
            rows = read_rows(part)
            writer.write_table(rows.replace_schema_metadata(writer.schema.metadata))
            count += len(rows)
    return count
