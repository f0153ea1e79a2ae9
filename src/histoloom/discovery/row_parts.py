"""Rows of a patch dataset as a part of the input: its patches, or windows in them."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from histoloom.discovery.cutting import Batch, Cutting, Read, chunks
from histoloom.errors import InputError
from histoloom.parquet import guarded, open_parquet, read_batches
from histoloom.patches.dataset import read_description
from histoloom.patches.from_slides import COMMAND
from histoloom.patches.places import PlaceReader
from histoloom.patches.store import shards_of, splits
from histoloom.pictures import read_image
from histoloom.records import fingerprint

ROWS_PER_PART = 1024  # patches of a dataset, or more where they are of one slide
_SOURCE = {"source": pa.string()}


@dataclass(frozen=True)
class RowsPart:
    """Rows `start` to `stop` of one split of a patch dataset, not counting those of damaged shards."""

    dataset: Path
    split: str
    start: int
    stop: int
    damaged: tuple[str, ...] = ()  # names of shards

    @property
    def source(self) -> str:
        """The name of the input in the record."""
        return f"split {self.split}"

    def fingerprint(self) -> str:
        """Which rows the split holds; raises InputError where a shard cannot be read."""
        shards = shards_of(self.dataset, self.split)
        marks = [f"{path.name} {fingerprint(path, whole=False, dated=False)}" for path in shards]
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    @property
    def name(self) -> str:
        """File name of the finished part."""
        return f"{self.split}-{self.start:010d}.parquet"

    def __str__(self) -> str:
        return f"{self.dataset}: {self.split}, rows {self.start} to {self.stop}"

    @contextmanager
    def opened(self, cutting: Cutting, batch_size: int, notes: list[str]) -> Iterator[Iterator[Read]]:
        """Its patches, or the windows of `cutting.size` in them."""
        read_place = _place_reader(self.dataset)
        yield (partial(self._read, chunk, cutting, read_place) for chunk in chunks(_rows_between(self), batch_size))

    def _read(self, rows: list[dict], cutting: Cutting, read_place: Callable[[dict], np.ndarray]) -> list[Batch]:
        cut = [piece for row in rows for piece in _windows(row, _pixels(row, read_place), cutting)]
        batches = []
        for _, same in groupby(cut, key=lambda piece: piece[2].shape):
            of, where, images = zip(*same, strict=True)
            names = [row["source"] for row in of], [row["case"] for row in of]
            mpp = [row["mpp"] for row in of]
            batches.append(Batch(*names, np.array(where, np.int64), mpp, np.stack(images)))
        return batches


@dataclass(frozen=True)
class DamagedShard:
    """A shard that cannot be read, as a part that is skipped and named like any other."""

    shard: Path
    split: str
    reason: str

    @property
    def source(self) -> str:
        """The name of the input in the record."""
        return f"split {self.split}"

    def fingerprint(self) -> str:
        """Which rows the split holds."""
        return RowsPart(self.shard.parents[1], self.split, 0, 0).fingerprint()

    @property
    def name(self) -> str:
        """File name of a part that is never written."""
        return f"{self.shard.stem}-damaged.parquet"

    def __str__(self) -> str:
        return str(self.shard)

    @contextmanager
    def opened(self, cutting: Cutting, batch_size: int, notes: list[str]) -> Iterator[Iterator[Read]]:
        """Raises InputError."""
        raise InputError(self.reason)
        yield


def dataset_parts(dataset: Path, split: str) -> list[RowsPart | DamagedShard]:
    """Parts of whole slides: consecutive rows of one source stay together."""
    if split not in splits(dataset):
        raise InputError(f"{dataset}: no split {split!r}; known: {', '.join(splits(dataset)) or 'none'}")
    borders, row, last, damaged = [0], 0, None, []
    for shard in shards_of(dataset, split):
        try:
            batches = list(read_batches(shard, 4096, ["source"], _SOURCE))
        except InputError as error:
            damaged.append(DamagedShard(shard, split, str(error)))
            continue
        for source in (source for batch in batches for source in batch["source"].to_pylist()):
            if source != last and row - borders[-1] >= ROWS_PER_PART:
                borders.append(row)
            row, last = row + 1, source
    names = tuple(part.shard.name for part in damaged)
    ends = zip(borders, [*borders[1:], row], strict=True) if row else ()
    return [*(RowsPart(dataset, split, start, stop, names) for start, stop in ends), *damaged]


def _rows_between(part: RowsPart) -> Iterator[dict]:
    columns = ["image", "source", "x", "y", "size", "mpp", "case"]
    seen = 0
    for shard in shards_of(part.dataset, part.split):
        if shard.name in part.damaged:
            continue
        with open_parquet(shard) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if seen + count > part.start and seen < part.stop:
                    with guarded(shard):
                        rows = file.read_row_group(group, columns).to_pylist()
                    yield from rows[max(part.start - seen, 0) : part.stop - seen]
                seen += count


def _place_reader(dataset: Path) -> Callable[[dict], np.ndarray]:
    """Reads pixels of an index of places, one patch at a time: a PlaceReader closes slides that other threads read."""
    record = read_description(dataset)
    if record is None or record.get("command") != COMMAND:
        return _no_pixels
    reader, lock = PlaceReader(dataset), threading.Lock()

    def read(row: dict) -> np.ndarray:
        with lock:
            return reader.read(row)[0]

    return read


def _no_pixels(row: dict) -> NoReturn:
    raise InputError(f"{row['source']}: has neither pixels nor a slide to read them from; make the dataset again")


def _pixels(row: dict, read_place: Callable[[dict], np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    return read_image(row["image"]["bytes"] or b"", row["source"]) if row["image"] is not None else read_place(row)


def _windows(row: dict, image: np.ndarray, cutting: Cutting) -> Iterator[tuple[dict, tuple[int, int, int], np.ndarray]]:
    """The row with each window of its image and the place of the window; windows that do not fit are left out."""
    height, width = image.shape[:2]
    if cutting.size is None:
        yield row, (row["x"], row["y"], row["size"]), image
        return
    size, stride, scale = cutting.size, cutting.stride or cutting.size, row["size"] / width
    if size > min(height, width):
        raise InputError(f"{row['source']}: a patch of {width} x {height} px has no window of {size} px; lower --size")
    for top in range(0, height - size + 1, stride):
        for left in range(0, width - size + 1, stride):
            place = row["x"] + round(left * scale), row["y"] + round(top * scale), round(size * scale)
            yield row, place, image[top : top + size, left : left + size]
