"""A patch dataset whose maps were drawn by discovered types: the same images, cases and splits, ready to be trained on.

Each shard of the dataset gives one of the new one, written aside and renamed; a killed run goes on with the next shard.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.discovery.classifier import NamesWindows
from histoloom.discovery.levels import write_levels
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.pseudo_maps import MapConfig, draw_patch
from histoloom.errors import InputError, OutputError
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import content_hash, read_record
from histoloom.patches.heterogeneity import class_fractions, entropy, is_heterogeneous
from histoloom.patches.places import PlaceReader
from histoloom.patches.schema import schema
from histoloom.patches.store import decode, encode_png, has_pixels, splits, write_record
from histoloom.tissue import UNLABELLED

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


def draw_patches(
    dataset: Path,
    names: NamesWindows,
    names_print: str,
    named: NamedTypes,
    level: int,
    config: MapConfig,
    kept: Kept,
    out: Path,
    license_name: str = "unknown",
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
    record = read_record(out)
    if record is not None and all(record.get(key) == value for key, value in recipe.items()):
        return record
    try:
        aside = _resume(out, recipe)
        (aside / "tissue.toml").write_text(named.tables[level].to_toml(), encoding="utf-8")
        write_levels(named.levels.up_to(level), aside)
        for split in splits(dataset):
            read = None if has_pixels(dataset, split) else PlaceReader(dataset).read
            for shard in sorted((dataset / "data").glob(f"{split}-*.parquet")):
                if (aside / "data" / shard.name).is_file():
                    advance(pq.ParquetFile(shard).metadata.num_rows)
                    continue
                rows = _drawn(shard, read, names, named, level, config, kept, advance)
                _write_shard(aside / "data" / shard.name, rows, schema(named.tables[level]))
        return _finish(aside, out, recipe, license_name)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror or error}); free some space, or check the path"
        ) from None


def _drawn(
    shard: Path,
    read: Callable | None,
    names: NamesWindows,
    named: NamedTypes,
    level: int,
    config: MapConfig,
    kept: Kept,
    advance: Callable[[int], None],
) -> Iterator[dict]:
    lookup = np.full(256, UNLABELLED, np.uint8)
    lookup[: named.levels.of.shape[1]] = named.levels.of[level]
    for batch in pq.ParquetFile(shard).iter_batches(ROWS):
        for row in batch.to_pylist():
            image = decode(row["image"]["bytes"], row["source"]) if read is None else read(row)[0]
            _check_mpp(row, names)
            semantic_map = lookup[draw_patch(image, names, config)]
            fractions = class_fractions(semantic_map, named.tables[level].num_ids)
            advance(1)
            if not kept.allows(fractions):
                continue
            yield row | {
                "image": row["image"] or encode_png(image),
                "semantic_map": encode_png(semantic_map),
                "fractions": fractions.tolist(),
                "entropy": float(entropy(fractions[None])[0]),
            }


def _check_mpp(row: dict, names: NamesWindows) -> None:
    mpp, wanted = row["mpp"], names.window.mpp
    if mpp is not None and wanted is not None and abs(mpp / wanted - 1) > 0.05:
        raise InputError(
            f"{row['source']}: is of {mpp:g} um/px, the types were found at {wanted:g}; cut patches at that"
        )


def _write_shard(path: Path, rows: Iterator[dict], columns: pa.Schema) -> None:
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".partial")
    with pq.ParquetWriter(aside, columns, compression="zstd") as writer:
        batch: list[dict] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS:
                writer.write_table(pa.Table.from_pylist(batch, columns))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, columns))
    os.replace(aside, path)


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
    return aside


def _finish(aside: Path, out: Path, recipe: dict, license_name: str) -> dict:
    summaries = summarize(aside)
    if not sum(summary.patches for summary in summaries):
        shutil.rmtree(aside)
        raise InputError(f"{out}: no patch was kept by its new map; lower low, or raise high")
    record = recipe | {
        "name": out.resolve().name,
        "version": version("histoloom"),
        "maps": "pseudo maps of discovered tissue types, drawn by a classifier and by nobody else",
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "sha256": content_hash(aside),
    }
    write_record(aside, record)
    write_card(aside, summaries, record, license_name)
    (aside / "recipe.json").unlink()
    os.replace(aside, out)
    return record
