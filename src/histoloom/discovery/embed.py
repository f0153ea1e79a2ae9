"""Every patch becomes a vector: part by part, while the pixels of the next batches are read beside the encoder.

    FOLDER/
      discover.json         what was embedded, and how
      embeddings/*.parquet  a file per slide, or per thousand patches of a dataset

A part is written aside and renamed, so that a killed run repeats no part that was done.
"""

import dataclasses
import errno
import json
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.config import build
from histoloom.discovery.embeddings import EMBEDDINGS, ROWS_PER_GROUP, open_writer, schema
from histoloom.discovery.parts import Batch, Cutting, Part, Read
from histoloom.distributed import ALONE, Workers, run_made
from histoloom.encoders.encoder import SMALL, open_encoder
from histoloom.errors import ConfigError, InputError, ModelError, OutputError

RECORD = "discover.json"


@dataclass(frozen=True)
class EmbedConfig:
    """How patches become vectors."""

    encoder: str = SMALL
    cutting: Cutting = field(default_factory=Cutting)
    batch_size: int = 32  # patches at a time
    readers: int = 2  # threads that read pixels beside the encoder
    precision: Literal["float16", "float32"] = "float16"  # of what is stored

    def __post_init__(self):
        if self.batch_size < 1 or self.readers < 1:
            raise ConfigError(f"batch_size {self.batch_size} and readers {self.readers} must be at least 1")


@dataclass(frozen=True)
class Embedded:
    """What a run left: patches and parts in the folder, and a line for each part that was skipped."""

    patches: int
    parts: int
    failures: list[str]


class Embedder:
    """Embeds parts into a folder. The encoder is loaded here, once per worker, onto a GPU where the worker has one."""

    def __init__(self, config: EmbedConfig, folder: Path):
        self.config, self.folder = config, folder
        self.encoder = open_encoder(config.encoder)

    def __call__(self, part: Part) -> int:
        """Write the part, whole or not at all; returns its number of patches. Raises InputError where it is broken."""
        aside = self.folder / EMBEDDINGS / f"{part.name}.{uuid.uuid4().hex}.partial"  # a lost worker may still write
        try:
            count = self._write(part, aside)
            os.replace(aside, self.folder / EMBEDDINGS / part.name)
        except OSError as error:
            raise _cannot_write(self.folder, error) from None
        finally:
            aside.unlink(missing_ok=True)
        return count

    def _write(self, part: Part, path: Path) -> int:
        config, writer, waiting, count = self.config, None, [], 0
        # Threads must have stopped before the slide is closed: it is a handle of a C library.
        with (
            part.opened(config.cutting, config.batch_size) as reads,
            closing(read_ahead(reads, config.readers)) as batches,
            ExitStack() as stack,
        ):
            for batch in batches:
                if len(batch.slides) == 0:
                    continue
                vectors = self._encode(batch, part)
                columns = schema(self.encoder.name, self.encoder.fingerprint, vectors.shape[1], config.precision)
                writer = writer or stack.enter_context(open_writer(path, columns))
                waiting.append(_rows(batch, vectors, columns))
                count += len(batch.slides)
                if sum(map(len, waiting)) >= ROWS_PER_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if writer is None:
                raise InputError(f"{part}: every patch is out of focus; lower --min-focus, or leave it out")
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        return count

    def _encode(self, batch: Batch, part: Part) -> np.ndarray:
        # Filled up: how a small batch is rounded depends on how many threads share it, and workers have fewer.
        count, images = len(batch.images), np.asarray(batch.images)
        filled = np.concatenate([images, np.repeat(images[-1:], max(self.config.batch_size - count, 0), axis=0)])
        with np.errstate(over="ignore"):
            vectors = self.encoder(filled)[:count].astype(self.config.precision)
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"encoder {self.encoder.name}: gives features of {part} that are not finite in "
                f"{self.config.precision}; store them as float32, or replace its damaged weights"
            )
        return vectors


def embed(
    parts: list[Part],
    config: EmbedConfig,
    folder: Path,
    source: Path,
    workers: Workers = ALONE,
    advance: Callable[[int, str], None] = lambda count, note: None,
) -> Embedded:
    """Embed all `parts` of `source` into `folder`, going on where a run of the same settings stopped.

    A broken part is left out and named in the result. `advance(count, note)` is told of parts as they are done. `ray`
    is the address of a cluster that sees source and folder under the same paths. Raises OutputError where `folder` is
    of another run or cannot be written, InputError when nothing was embedded.
    """
    try:
        _begin(folder, source, config)
        done = {path.name: pq.ParquetFile(path).metadata.num_rows for path in (folder / EMBEDDINGS).glob("*.parquet")}
    except OSError as error:
        raise _cannot_write(folder, error) from None
    known = [part for part in parts if part.name in done]
    patches, failures = sum(done[part.name] for part in known), []
    advance(len(known), f"{patches:,} patches")
    todo = [part for part in parts if part.name not in done]
    make = partial(Embedder, config, folder.absolute())
    for outcome in run_made(make, todo, workers, gpu=True) if todo else ():
        patches += outcome.result or 0
        if outcome.error is not None:
            failures.append(_named(outcome.item, outcome.error))
        advance(1, f"{patches:,} patches")
    if not patches:
        raise InputError(
            f"no patch of {len(parts)} slides was embedded: {failures[0] if failures else 'none is there'}"
        )
    return Embedded(patches, len(parts) - len(failures), failures)


def read_ahead(reads: Iterable[Read], readers: int) -> Iterator[Batch]:
    """Batches in order, read by threads while the ones before are used; memory holds two per thread.

    Decoders of slides and images leave Python's lock while they work.
    """
    waiting: deque[Future[list[Batch]]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        try:
            for read in reads:
                waiting.append(pool.submit(read))
                if len(waiting) > 2 * readers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def read_record(folder: Path | str) -> tuple[Path, EmbedConfig]:
    """What was embedded in `folder`, and how; raises InputError where there is nothing."""
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        return Path(record["source"]), build(EmbedConfig, record["config"], f"{folder}/{RECORD}")
    except FileNotFoundError:
        raise InputError(f"{folder}: nothing was embedded there; run `histoloom discover embed` first") from None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}/{RECORD}: cannot be read ({error}); embed into another folder") from None


def _rows(batch: Batch, vectors: np.ndarray, columns: pa.Schema) -> pa.Table:
    x, y, size = batch.places.T
    numbers = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    return pa.table([batch.slides, x, y, size, batch.mpp, batch.cases, numbers], schema=columns)


def _begin(folder: Path, source: Path, config: EmbedConfig) -> None:
    """Write the record, or find the same one; what a killed run wrote half is removed."""
    recipe = {"source": str(source.absolute()), "config": dataclasses.asdict(config)}
    path = folder / RECORD
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != recipe:
            raise OutputError(f"{folder}: was begun with other settings or slides; name another folder, or remove it")
    else:
        if folder.exists() and (not folder.is_dir() or any(p.suffix != ".partial" for p in folder.iterdir())):
            raise OutputError(f"{folder}: exists already; name another folder, or move it away")
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        aside.write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(aside, path)
    (folder / EMBEDDINGS).mkdir(exist_ok=True)
    for half in (folder / EMBEDDINGS).glob("*.partial"):
        half.unlink(missing_ok=True)


def _named(part: Part, error: InputError) -> str:
    line = " ".join(str(error).split())
    return line if str(part) in line else f"{part}: {line}"


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    cure = "free some space" if full else "check the path and its permissions"
    return OutputError(f"{folder}: cannot be written ({error.strerror or error}); {cure} and run again")
