"""Chosen patches become nested tissue types: k-means for the finest, and groups of those for every coarser level.

Only a sample is held in memory; all chosen patches are read once more, in blocks, to be given their type.

    FOLDER/
      types.parquet, types.json   the types, see `histoloom.discovery.tree`
      assignments.parquet         slide, x, y, size, type: the finest type of each chosen patch
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from histoloom.discovery.embeddings import PLACE, Table, open_chosen, vectors_of
from histoloom.discovery.kmeans import SAMPLES, KMeansConfig, find_clusters, nest
from histoloom.discovery.tree import TypeTree, nearest, unit
from histoloom.errors import ConfigError, InputError, OutputError

ASSIGNMENTS = "assignments.parquet"
FEWEST = 10  # distinct patches per type; fewer make no type


@dataclass(frozen=True)
class ClusterConfig:
    """Which types are looked for."""

    levels: tuple[int, ...] = (5, 10, 20, 50, 100)  # types at each level, coarse to fine
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)

    def __post_init__(self):
        if not self.levels or min(self.levels) < 2 or any(a >= b for a, b in pairwise(self.levels)):
            raise ConfigError(f"levels {self.levels} must be numbers of types from 2 up, coarse to fine, as in 5,10,20")


def cluster(
    folder: Path, config: ClusterConfig, advance: Callable[[int], None] = lambda rows: None
) -> tuple[TypeTree, list[str]]:
    """Find types among the chosen patches in `folder` and write them there; a note where levels had to be left out.

    `advance(rows)` is told of patches as they are given their type. The same patches and seed give the same bytes.
    Raises InputError where there are too few patches for the coarsest level.
    """
    table = open_chosen(folder)
    sample = draw_sample(table, SAMPLES[-1] * config.levels[-1], config.kmeans.seed)
    tree, notes = grow_tree(sample, config, table.encoder, table.fingerprint)
    try:
        sizes, variances = _assign_all(table, tree, folder / ASSIGNMENTS, advance)
        made = tree.made | {"patches": table.rows, "inertia": float(sizes @ variances / table.rows)}
        tree = dataclasses.replace(tree, sizes=sizes, variances=variances, made=made)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); free some space") from None
    tree.save(folder)
    return tree, notes


def grow_tree(
    vectors: Float[np.ndarray, "n d"], config: ClusterConfig, encoder: str, fingerprint: str
) -> tuple[TypeTree, list[str]]:
    """The tree of types of unit vectors, with a note where levels had to be left out for want of vectors.

    Ids are in order of the tree, so that neighbours are kin. Raises InputError where no level is left.
    """
    distinct = len({row.tobytes() for row in vectors})
    levels = tuple(level for level in config.levels if level * FEWEST <= distinct)
    if not levels:
        raise InputError(
            f"{distinct} different patches are too few for {config.levels[0]} types, which need {FEWEST} each; embed "
            "more slides, or ask for fewer with --levels"
        )
    left_out = [str(level) for level in config.levels if level not in levels]
    found = find_clusters(vectors, levels[-1], config.kmeans)
    rows = nest(found.centroids, found.sizes, levels, config.kmeans.seed)
    order = np.lexsort((-found.sizes, *rows[-2::-1]))
    ancestors = np.concatenate([rows[:-1, order], np.arange(len(order))[None]])
    made = {"config": dataclasses.asdict(config), "normalisation": "unit length", "sample": len(vectors)}
    names = (found.sizes[order], found.variances[order], made)
    tree = TypeTree(levels, found.centroids[order], ancestors, encoder, fingerprint, *names)
    if not left_out:
        return tree, []
    return tree, [
        f"{distinct} different patches are too few for levels {', '.join(left_out)}; embed more slides for them"
    ]


def draw_sample(table: Table, most: int, seed: int) -> Float[np.ndarray, "n d"]:
    """At most `most` unit vectors of a table, every row with the same chance, read in blocks.

    Raises InputError that names the file for a vector that is not finite.
    """
    rng = np.random.default_rng(seed)
    chosen = np.arange(table.rows) if table.rows <= most else np.sort(rng.choice(table.rows, most, replace=False))
    sample, seen, filled = np.empty((len(chosen), table.dimensions), np.float32), 0, 0
    for batch in table.batches(columns=["vector"]):
        stop = np.searchsorted(chosen, seen + len(batch))
        sample[filled:stop] = _unit(vectors_of(batch)[chosen[filled:stop] - seen], table, seen)
        seen, filled = seen + len(batch), stop
    return sample


def _assign_all(
    table: Table, tree: TypeTree, path: Path, advance: Callable[[int], None]
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Write the type of every patch; returns sizes and variances of the types."""
    count = len(tree.centroids)
    sizes, sums, seen = np.zeros(count, np.int64), np.zeros(count), 0
    names = {"histoloom.types": hashlib.sha256(tree.centroids.tobytes()).hexdigest()}
    fields = [("slide", pa.string()), *((name, pa.int64()) for name in PLACE[1:]), ("type", pa.int32())]
    half = path.with_suffix(".partial")
    with pq.ParquetWriter(half, pa.schema(fields, names), compression="zstd") as writer:
        for batch in table.batches(columns=[*PLACE, "vector"]):
            types, distances = nearest(_unit(vectors_of(batch), table, seen), tree.centroids)
            sizes += np.bincount(types, minlength=count)
            sums += np.bincount(types, distances, count)
            seen += len(batch)
            columns = [*(batch.column(name) for name in PLACE), pa.array(types.astype(np.int32))]
            writer.write_table(pa.table(columns, schema=writer.schema))
            advance(len(batch))
    os.replace(half, path)
    return sizes, sums / np.maximum(sizes, 1)


def _unit(vectors: Float[np.ndarray, "n d"], table: Table, seen: int) -> Float[np.ndarray, "n d"]:
    try:
        return unit(vectors)
    except InputError as error:
        raise InputError(f"{table.paths[0]}, from row {seen}: {error}") from None
