"""A patch dataset whose maps were drawn by discovered types: the same images, cases and splits, ready to be trained on.

Each shard of the dataset gives one of the new one, written aside and renamed; a killed run goes on with the next shard.
"""

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.discovery.classifier import NamesWindows
from histoloom.discovery.levels import write_levels
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.pseudo_maps import MapConfig, draw_patch
from histoloom.distributed import ALONE, Workers, run_made
from histoloom.errors import InputError, OutputError
from histoloom.parquet import open_parquet
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import content_hash, read_description, write_description
from histoloom.patches.heterogeneity import class_fractions, entropy, is_heterogeneous
from histoloom.patches.places import PlaceReader
from histoloom.patches.schema import arrow_schema
from histoloom.patches.store import encode_png, has_pixels, splits
from histoloom.pictures import decode_image
from histoloom.tissue import UNLABELLED
from histoloom.version import VERSION

COMMAND = "discover maps"
ROWS = 64  # patches in memory


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which patches are kept, by their new maps: the paper's rule is low 0.2, high 0.8."""

    low: float = 0.0  # the most common type covers at least this share
    high: float = 1.0  # and at most this

    def allows(self, fractions: np.ndarray) -> bool:
        """Whether a patch of these fractions is kept."""
        return bool(is_heterogeneous(fractions[None], self.low, self.high)[0])


class ShardDrawer:
    """Draws shards into a folder; `open_names` loads the classifier, once per worker. `advance` is told of patches."""

    def __init__(
        self,
        open_names: Callable[[], NamesWindows],
        named: NamedTypes,
        level: int,
        config: MapConfig,
        kept: Kept,
        folder: Path,
        advance: Callable[[int], None] = lambda count: None,
    ):
        self.names = open_names()
        self.config, self.kept, self.folder, self.advance = config, kept, folder, advance
        self.table = named.tables[level]
        self.lookup = np.full(256, UNLABELLED, np.uint8)
        self.lookup[: named.levels.of.shape[1]] = named.levels.of[level]

    def __call__(self, shard: Path) -> int:
        """Write the shard with its new maps, whole or not at all; returns the patches that it had."""
        path = self.folder / "data" / shard.name
        dataset, split = shard.parents[1], shard.name.rsplit("-", 1)[0]
        read = None if has_pixels(dataset, split) else PlaceReader(dataset).read
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # a lost worker may still write
        try:
            _write_shard(aside, self._rows(shard, read), arrow_schema(self.table))
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        return pq.ParquetFile(shard).metadata.num_rows

    def _rows(self, shard: Path, read: Callable | None) -> Iterator[dict]:
        for batch in open_parquet(shard).iter_batches(ROWS):
            for row in batch.to_pylist():
                image = decode_image(row["image"]["bytes"], row["source"]) if read is None else read(row)[0]
                _check_mpp(row, self.names)
                semantic_map = self.lookup[draw_patch(image, self.names, self.config)]
                fractions = class_fractions(semantic_map, self.table.num_ids)
                self.advance(1)
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
    open_names: Callable[[], NamesWindows],
    names_print: str,
    named: NamedTypes,
    level: int,
    config: MapConfig,
    kept: Kept,
    out: Path,
    license_name: str = "unknown",
    workers: Workers = ALONE,
    advance: Callable[[int], None] = lambda count: None,
) -> dict:
    """Write `dataset` with maps of the level at index `level` to `out`, and return the record; `names_print` says by
    whom.

    The same command again does nothing. Raises OutputError where `out` holds something else, InputError for windows
    of another mpp than the patches'.
    """
    recipe = {
        "command": COMMAND,
        "config": dataclasses.asdict(config) | dataclasses.asdict(kept) | {"types": named.levels.counts[level]},
        "dataset": content_hash(dataset),
        "classifier": names_print,
        "tissue": named.tables[level].to_rows(),
        "levels": named.levels.of[: level + 1].tolist(),
    }
    record = read_description(out)
    if record is not None and all(record.get(key) == value for key, value in recipe.items()):
        return record
    try:
        aside = _resume(out, recipe)
        (aside / "tissue.toml").write_text(named.tables[level].to_toml(), encoding="utf-8")
        write_levels(named.levels.up_to(level), aside)
        shards = [path for split in splits(dataset) for path in _shards(dataset.absolute(), split)]
        todo = [path for path in shards if not (aside / "data" / path.name).is_file()]
        advance(sum(pq.ParquetFile(path).metadata.num_rows for path in shards if path not in todo))
        make = partial(ShardDrawer, open_names, named, level, config, kept, aside)
        # One process tells of every patch, workers of every shard.
        make = partial(make, advance) if workers.alone else make
        for outcome in run_made(make, todo, workers, gpu=True) if todo else ():
            if outcome.error is not None:
                raise outcome.error
            advance(0 if workers.alone else outcome.result)
        return _finish(aside, out, recipe, license_name)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror or error}); free some space, or check the path"
        ) from None


def _shards(dataset: Path, split: str) -> list[Path]:
    return sorted((dataset / "data").glob(f"{split}-*.parquet"))


def _check_mpp(row: dict, names: NamesWindows) -> None:
    mpp, wanted = row["mpp"], names.window.mpp
    if mpp is not None and wanted is not None and abs(mpp / wanted - 1) > 0.05:
        raise InputError(
            f"{row['source']}: is of {mpp:g} um/px, the types were found at {wanted:g}; cut patches at that"
        )


def _write_shard(path: Path, rows: Iterator[dict], columns: pa.Schema) -> None:
    with pq.ParquetWriter(path, columns, compression="zstd") as writer:
        batch: list[dict] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS:
                writer.write_table(pa.Table.from_pylist(batch, columns))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, columns))


def _resume(out: Path, recipe: dict) -> Path:
    """The folder written aside, with its shards where it was begun with this recipe, else new."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists already; name another folder, or move it away")
    aside = out.absolute().with_name(out.name + ".partial")
    begun, text = aside / "recipe.json", json.dumps(recipe, indent=2, sort_keys=True)
    if aside.exists() and not begun.is_file() and any(aside.iterdir()):
        raise OutputError(f"{aside}: is in the way and was not left by this command; move it away")
    if not begun.is_file() or begun.read_text(encoding="utf-8") != text:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        half = aside.with_name(f"{out.name}.recipe.partial")
        half.write_text(text, encoding="utf-8")
        os.replace(half, begun)
    (aside / "data").mkdir(exist_ok=True)
    for half in (aside / "data").glob("*.partial"):
        half.unlink(missing_ok=True)
    return aside


def _finish(aside: Path, out: Path, recipe: dict, license_name: str) -> dict:
    summaries = summarize(aside)
    if not sum(summary.patches for summary in summaries):
        shutil.rmtree(aside)
        raise InputError(f"{out}: no patch was kept by its new map; lower low, or raise high")
    record = recipe | {
        "name": out.resolve().name,
        "version": VERSION,
        "maps": "pseudo maps of discovered tissue types, drawn by a classifier and by nobody else",
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "sha256": content_hash(aside),
    }
    write_description(aside, record)
    write_card(aside, summaries, record, license_name)
    (aside / "recipe.json").unlink()
    os.replace(aside, out)
    return record
