"""Draw the maps of a patch dataset by discovered types: the same images, cases and splits, ready for training.

Each shard of the dataset gives one shard of the new one, whole or not at all; a killed run continues with the next.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from histoloom.discovery.classifier import TypePredictor
from histoloom.discovery.levels import write_levels
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.pseudo_maps import MapConfig, draw_patch
from histoloom.distributed import ALONE, Workers, run_made
from histoloom.errors import ConfigError, InputError
from histoloom.files import is_finished, resumable_folder, whole_file, write_text
from histoloom.license import UNKNOWN, License
from histoloom.parquet import count_rows, parquet_writer, read_batches
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import check_license, content_hash, read_description, write_description
from histoloom.patches.heterogeneity import class_fractions, entropy, is_heterogeneous
from histoloom.patches.places import PlaceReader
from histoloom.patches.schema import COLUMNS, arrow_schema
from histoloom.patches.store import encode_png, shards_of, splits
from histoloom.pictures import read_image
from histoloom.progress import SILENT, Bar
from histoloom.records import Record
from histoloom.text import counted
from histoloom.tissue import UNLABELLED
from histoloom.version import VERSION

COMMAND, FORMAT = "discover maps of patches", 3
ROWS = 64  # patches in memory


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which patches are kept, by their new maps; the rule of the paper is low 0.2, high 0.8."""

    low: float = 0.0  # minimum share of the most common type
    high: float = 1.0  # maximum share of it

    def __post_init__(self):
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigError(f"low {self.low} and high {self.high} must be in [0, 1], low at most high")

    def allows(self, fractions: np.ndarray) -> bool:
        """True where a patch with these fractions is kept."""
        return bool(is_heterogeneous(fractions[None], self.low, self.high)[0])


class ShardDrawer:
    """Draws shards into a folder; each worker loads the classifier once by `open_predictor`. `bar` counts patches."""

    def __init__(
        self,
        open_predictor: Callable[[], TypePredictor],
        named: NamedTypes,
        level: int,
        config: MapConfig,
        kept: Kept,
        folder: Path,
        bar: Bar = SILENT,
    ):
        self.predict = open_predictor()
        self.config, self.kept, self.folder, self.bar = config, kept, folder, bar
        self.table = named.tables[level]
        self.lookup = np.full(256, UNLABELLED, np.uint8)
        self.lookup[: named.levels.of.shape[1]] = named.levels.of[level]

    def __call__(self, shard: Path) -> int:
        """Write the shard with its new maps and return the number of patches it had."""
        path = self.folder / "data" / shard.name
        with whole_file(path) as aside:
            _write_shard(aside, self._rows(shard), arrow_schema(self.table))
        return _count(shard)

    def _rows(self, shard: Path) -> Iterator[dict]:
        read = None  # from slides, for an index of places
        for batch in read_batches(shard, ROWS, types=dict(zip(COLUMNS.names, COLUMNS.types, strict=True))):
            for row in batch.to_pylist():
                if row["image"] is None:
                    read = read or PlaceReader(shard.parents[1]).read
                    image = read(row)[0]
                else:
                    image = read_image(row["image"]["bytes"] or b"", row["source"])
                _check_mpp(row, self.predict)
                semantic_map = self.lookup[draw_patch(image, self.predict, self.config)]
                fractions = class_fractions(semantic_map, self.table.num_ids)
                self.bar.advance()
                if not self.kept.allows(fractions):
                    continue
                yield row | {
                    "image": row["image"] or encode_png(image),
                    "semantic_map": encode_png(semantic_map),
                    "fractions": fractions.tolist(),
                    "entropy": float(entropy(fractions[None])[0]),
                }


def draw_patches(
    dataset: Path,
    open_predictor: Callable[[], TypePredictor],
    fingerprint: str,
    named: NamedTypes,
    level: int,
    config: MapConfig,
    kept: Kept,
    out: Path,
    license: License = UNKNOWN,
    workers: Workers = ALONE,
    bar: Bar = SILENT,
) -> dict:
    """Write `dataset` with maps of the level at index `level` to `out`, and return its description.

    `fingerprint` is the fingerprint of the classifier. What `license` does not say is that of
    `dataset`. Where `out` is finished, nothing is done. A damaged shard is skipped and named under `failures` in the
    description. Raises OutputError where `out` holds something else, InputError where no shard can be drawn, such as
    for patches of another mpp than the windows.
    """
    record = _record(dataset, fingerprint, named, level, config, kept)
    shards = [path for split in splits(dataset) for path in shards_of(dataset.absolute(), split)]
    if is_finished(out, record):
        bar.advance(sum(_count(path) for path in shards))
        found = read_description(out)
        assert found is not None
        check_license(found, license, out)
        return found
    with resumable_folder(out, record) as aside:
        write_text(aside / "tissue.toml", named.tables[level].to_toml())
        write_levels(named.levels.up_to(level), aside)
        todo = [path for path in shards if not (aside / "data" / path.name).is_file()]
        bar.advance(sum(_count(path) for path in shards if path not in todo))
        make = partial(ShardDrawer, open_predictor, named, level, config, kept, aside)
        # A single process counts every patch, workers count whole shards.
        make = partial(make, bar) if workers.alone else make
        failures = []
        for outcome in run_made(make, todo, workers, gpu=True) if todo else ():
            if outcome.error is not None:
                failures.append(outcome.failure().replace(f"{dataset.absolute()}/", ""))
            bar.advance(0 if workers.alone else _count(outcome.item))
        if len(failures) == len(shards):
            raise InputError(f"{dataset}: no map of {counted(len(shards), 'shard')} was drawn: {failures[0]}")
        inherited = license.filled(License.of(read_description(dataset) or {}))
        return _describe(aside, out, record, inherited, failures)


def _record(dataset: Path, fingerprint: str, named: NamedTypes, level: int, config: MapConfig, kept: Kept) -> Record:
    settings = {
        "config": dataclasses.asdict(config) | dataclasses.asdict(kept) | {"types": named.levels.counts[level]},
        "tissue": named.tables[level].to_rows(),
        "levels": hashlib.sha256(named.levels.of[: level + 1].tobytes()).hexdigest(),
    }
    inputs = {"dataset": content_hash(dataset), "classifier": fingerprint}
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def count_patches(dataset: Path) -> int:
    """The number of patches in the shards of a dataset that can be read."""
    return sum(_count(shard) for split in splits(dataset) for shard in shards_of(dataset, split))


def _count(shard: Path) -> int:
    with suppress(InputError):  # a damaged shard is named when it is drawn
        return count_rows(shard)
    return 0


def _check_mpp(row: dict, predict: TypePredictor) -> None:
    mpp, wanted = row["mpp"], predict.window.mpp
    if mpp is not None and wanted is not None and abs(mpp / wanted - 1) > 0.05:
        raise InputError(
            f"{row['source']}: has {mpp:g} um/px, the types were found at {wanted:g}; cut patches at that mpp"
        )


def _write_shard(path: Path, rows: Iterator[dict], columns: pa.Schema) -> None:
    with parquet_writer(path, columns, compression="zstd") as writer:
        batch: list[dict] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS:
                writer.write_table(pa.Table.from_pylist(batch, columns))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, columns))


def _describe(aside: Path, out: Path, record: Record, license: License, failures: list[str]) -> dict:
    """Write description and card of the finished dataset in `aside`; returns the description."""
    summaries = summarize(aside)
    if not sum(summary.patches for summary in summaries):
        shutil.rmtree(aside)  # there is nothing to resume
        raise InputError(f"{out}: no patch was kept by its new map; lower --low, or raise --high")
    described = {
        "command": "discover maps",
        "config": record.settings["config"],
        "name": out.resolve().name,
        "version": VERSION,
        "maps": "pseudo maps of discovered tissue types, predicted by a classifier and not reviewed by anybody",
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "failures": failures,
        **license.said(),
        "sha256": content_hash(aside),
    }
    write_description(aside, described)
    write_card(aside, summaries, described)
    return described
