"""Turn every patch into a vector, part by part; threads read the pixels of the next batches while the encoder works.

    FOLDER/
      record.json           what was embedded, and how
      embeddings/*.parquet  one file per slide, or per thousand patches of a dataset

A part is written whole or not at all, so a killed run repeats no finished part.
"""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from histoloom.discovery.cutting import Batch, Read
from histoloom.discovery.embedding_run import EmbedConfig, embedding_record, with_absolute_paths, write_paths
from histoloom.discovery.embeddings import EMBEDDINGS, ROWS_PER_GROUP, embedding_schema, open_writer
from histoloom.discovery.parts import Part
from histoloom.distributed import ALONE, Workers, run_made
from histoloom.encoders.encoder import open_encoder
from histoloom.errors import InputError, ModelError
from histoloom.files import run_folder, whole_file
from histoloom.parquet import count_rows
from histoloom.progress import SILENT, Bar
from histoloom.text import counted


@dataclass(frozen=True)
class Embedded:
    """What a run leaves: patches and parts in the folder, one line for each part that was skipped, and notes on slides
    that were embedded now."""

    patches: int
    parts: int
    failures: list[str]
    notes: list[str]


class Embedder:
    """Embeds parts into a folder. Each worker loads the encoder once, onto its GPU if it has one."""

    def __init__(self, config: EmbedConfig, folder: Path):
        self.config, self.folder = config, folder
        self.encoder = open_encoder(config.encoder, allow_remote_code=config.allow_remote_code)

    def __call__(self, part: Part) -> tuple[int, list[str]]:
        """Write the part, whole or not at all; returns its number of patches and notes. Raises InputError if it is
        broken."""
        notes: list[str] = []
        with whole_file(self.folder / EMBEDDINGS / part.name) as aside:
            return self._write(part, aside, notes), notes

    def _write(self, part: Part, path: Path, notes: list[str]) -> int:
        config, writer, waiting, count = self.config, None, [], 0
        # The threads must stop before the slide is closed: it is a handle of a C library.
        with (
            part.opened(config.cutting, config.batch_size, notes) as reads,
            closing(read_ahead(reads, config.readers)) as batches,
            ExitStack() as stack,
        ):
            for batch in batches:
                if len(batch.slides) == 0:
                    continue
                vectors = self._encode(batch, part)
                columns = embedding_schema(
                    self.encoder.name, self.encoder.fingerprint, vectors.shape[1], config.precision
                )
                writer = writer or stack.enter_context(open_writer(path, columns))
                waiting.append(_rows(batch, vectors, columns))
                count += len(batch.slides)
                if sum(map(len, waiting)) >= ROWS_PER_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if writer is None:
                raise InputError(f"{part}: every patch is out of focus; lower --min-focus, or leave the slide out")
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        return count

    def _encode(self, batch: Batch, part: Part) -> Float[np.ndarray, "n d"]:
        # Batches are filled up: the rounding of a small batch depends on the number of threads, and workers have fewer.
        count, images = len(batch.images), np.asarray(batch.images)
        filled = np.concatenate([images, np.repeat(images[-1:], max(self.config.batch_size - count, 0), axis=0)])
        with np.errstate(over="ignore"):
            vectors = self.encoder(filled)[:count].astype(self.config.precision)
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"encoder {self.encoder.name}: features of {part} are not finite in {self.config.precision}; store "
                "them as float32, or replace the damaged weights"
            )
        return vectors


def embed(
    parts: list[Part],
    config: EmbedConfig,
    folder: Path,
    source: Path,
    workers: Workers = ALONE,
    bar: Bar = SILENT,
) -> Embedded:
    """Embed all `parts` of `source` into `folder`; continues a run of the same settings and slides.

    A broken part is skipped and named in the result; the next run tries it again. A cluster must see source and folder
    under the same paths. Raises OutputError where `folder` holds another run or cannot be written, InputError when
    nothing was embedded.
    """
    config = with_absolute_paths(config)
    with run_folder(folder, embedding_record(parts, config), grows=True):
        write_paths(folder, source, config)
        done = {path.name: count_rows(path) for path in (folder / EMBEDDINGS).glob("*.parquet")}
        finished = [part for part in parts if part.name in done]
        patches, failures, notes = sum(done[part.name] for part in finished), [], []
        bar.advance(len(finished), counted(patches, "patch"))
        todo = [part for part in parts if part.name not in done]
        make = partial(Embedder, config, folder.absolute())
        for outcome in run_made(make, todo, workers, gpu=True) if todo else ():
            if outcome.result is None:
                failures.append(outcome.failure())
            else:
                patches += outcome.result[0]
                notes += outcome.result[1]
            bar.advance(1, counted(patches, "patch"))
        if not patches:
            reason = failures[0] if failures else "there are no slides"
            raise InputError(f"no patch of {counted(len(parts), 'slide')} was embedded: {reason}")
    return Embedded(patches, len(parts) - len(failures), failures, notes)


def read_ahead(reads: Iterable[Read], readers: int) -> Generator[Batch]:
    """Batches in order, read by threads while earlier ones are used; memory holds two per thread.

    Decoders of slides and images release Python's lock while they work.
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


def _rows(batch: Batch, vectors: Float[np.ndarray, "n d"], columns: pa.Schema) -> pa.Table:
    x, y, size = batch.places.T
    numbers = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    return pa.table([batch.slides, x, y, size, batch.mpp, batch.cases, numbers], schema=columns)
