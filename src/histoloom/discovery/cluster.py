"""Cluster chosen patches into nested tissue types: k-means for the finest, groups of those for every coarser level.

Memory holds only a sample; all chosen patches are read once more, in blocks, to assign their types.

    FOLDER/
      types.parquet, types.json   the types, see `histoloom.discovery.tree`
      assignments.parquet         slide, x, y, size, type: the finest type of each chosen patch
"""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from histoloom.discovery.embeddings import CHOSEN, PLACE, Table, open_chosen, vectors_of
from histoloom.discovery.kmeans import SAMPLES, KMeansConfig, find_clusters, nest
from histoloom.discovery.made_by import record_in, with_record
from histoloom.discovery.tree import DESCRIPTION, TypeTree, nearest, unit
from histoloom.disk import one_clear_line
from histoloom.errors import ConfigError, InputError
from histoloom.files import remove_partials, whole_file
from histoloom.locks import locked
from histoloom.parquet import parquet_writer
from histoloom.progress import SILENT, Bar
from histoloom.records import Record, fingerprint, refuse_other_run

ASSIGNMENTS = "assignments.parquet"
FEWEST = 10  # distinct patches per type; with fewer, a level is left out
MOST = 4096  # types: a sample of 256 vectors for each must fit into memory
COMMAND, FORMAT = "discover cluster", 1


@dataclass(frozen=True)
class ClusterConfig:
    """How many types are sought, and how."""

    levels: tuple[int, ...] = (5, 10, 20, 50, 100)  # types at each level, coarse to fine
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)

    def __post_init__(self):
        if not self.levels or not 2 <= min(self.levels) <= max(self.levels) <= MOST or _falls(self.levels):
            raise ConfigError(
                f"levels {self.levels} must be numbers of types from 2 to {MOST}, coarse to fine, such as 5,10,20"
            )


def _falls(levels: tuple[int, ...]) -> bool:
    return any(a >= b for a, b in pairwise(levels))


def cluster(folder: Path, config: ClusterConfig, bar: Bar = SILENT) -> tuple[TypeTree, list[str]]:
    """Find types among the chosen patches in `folder` and write them there; returns them with a note on levels that
    were left out.

    The same patches and seed give the same bytes; where they are finished, nothing is done. Raises InputError where
    there are too few patches for the coarsest level, OutputError where the types were made from other patches or with
    other settings, or cannot be written.
    """
    table = open_chosen(folder)
    inputs = {CHOSEN: fingerprint(folder / CHOSEN, whole=False, dated=False)}
    record = Record(command=COMMAND, format=FORMAT, settings=dataclasses.asdict(config), inputs=inputs)
    path = folder / ASSIGNMENTS
    with locked(folder), one_clear_line(folder):
        remove_partials(folder)
        if path.is_file():
            cure = f"remove {ASSIGNMENTS} and {DESCRIPTION} to cluster again, or use another folder"
            refuse_other_run(path, record_in(path), record, cure=cure)
            if (folder / DESCRIPTION).is_file():  # written last
                bar.advance(table.rows)
                tree = TypeTree.load(folder)
                return tree, tree.made.get("notes", [])
        sample = draw_sample(table, SAMPLES[-1] * config.levels[-1], config.kmeans.seed)
        tree, notes = grow_tree(sample, config, table.encoder, table.fingerprint)
        (folder / DESCRIPTION).unlink(missing_ok=True)  # of a run without assignments
        sizes, variances = _assign_all(table, tree, path, record, bar)
        made = tree.made | {"patches": table.rows, "inertia": float(sizes @ variances / table.rows), "notes": notes}
        tree = dataclasses.replace(tree, sizes=sizes, variances=variances, made=made)
        tree.save(folder)
    return tree, notes


def grow_tree(
    vectors: Float[np.ndarray, "n d"], config: ClusterConfig, encoder: str, fingerprint: str
) -> tuple[TypeTree, list[str]]:
    """The tree of types of unit vectors, with a note on levels that were left out because there are too few vectors.

    Ids follow the order of the tree, so that related types have neighboring ids. Raises InputError where no level is
    left.
    """
    distinct = len({row.tobytes() for row in vectors})
    levels = tuple(level for level in config.levels if level * FEWEST <= distinct)
    if not levels:
        raise InputError(
            f"{distinct} different patches are too few for {config.levels[0]} types, which need {FEWEST} each; embed "
            "more slides, or ask for fewer types with --levels"
        )
    left_out = [str(level) for level in config.levels if level not in levels]
    found = find_clusters(vectors, levels[-1], config.kmeans)
    rows = nest(found.centroids, found.sizes, levels, config.kmeans.seed)
    order = np.lexsort((-found.sizes, *rows[-2::-1]))
    ancestors = np.concatenate([rows[:-1, order], np.arange(len(order))[None]])
    made = {"config": dataclasses.asdict(config), "normalization": "unit length", "sample": len(vectors)}
    names = (found.sizes[order], found.variances[order], made)
    tree = TypeTree(levels, found.centroids[order], ancestors, encoder, fingerprint, *names)
    if not left_out:
        return tree, []
    return tree, [
        f"{distinct} different patches are too few for levels {', '.join(left_out)}; embed more slides for them"
    ]


def draw_sample(table: Table, most: int, seed: int) -> Float[np.ndarray, "n d"]:
    """At most `most` unit vectors of a table, each row with the same probability, read in blocks.

    Raises InputError, naming the file, for a vector that is not finite.
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
    table: Table, tree: TypeTree, path: Path, record: Record, bar: Bar
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Write the type of every patch and return sizes and variances of the types."""
    count = len(tree.centroids)
    sizes, sums, seen = np.zeros(count, np.int64), np.zeros(count), 0
    names = {"histoloom.types": hashlib.sha256(tree.centroids.tobytes()).hexdigest()}
    fields = [("slide", pa.string()), *((name, pa.int64()) for name in PLACE[1:]), ("type", pa.int32())]
    columns = with_record(pa.schema(fields, names), record)
    with whole_file(path) as aside, parquet_writer(aside, columns, compression="zstd") as writer:
        for batch in table.batches(columns=[*PLACE, "vector"]):
            types, distances = nearest(_unit(vectors_of(batch), table, seen), tree.centroids)
            sizes += np.bincount(types, minlength=count)
            sums += np.bincount(types, distances, count)
            seen += len(batch)
            values = [*(batch.column(name) for name in PLACE), pa.array(types.astype(np.int32))]
            writer.write_table(pa.table(values, schema=writer.schema))
            bar.advance(len(batch))
    return sizes, sums / np.maximum(sizes, 1)


def _unit(vectors: Float[np.ndarray, "n d"], table: Table, seen: int) -> Float[np.ndarray, "n d"]:
    try:
        return unit(vectors)
    except InputError as error:
        raise InputError(f"{table.paths[0]}, from row {seen}: {error}") from None
