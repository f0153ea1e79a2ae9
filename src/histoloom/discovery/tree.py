"""Tissue types without names, nested: every coarse type is a union of finer ones.

The finest types are centroids among unit vectors; a coarser level only says which of them belong together, so that no
two levels can contradict each other.

    FOLDER/
      types.parquet   a row per finest type: id, its type at each level (type_5, type_10, ...), size, variance, centroid
      types.json      levels, encoder, fingerprint, how the types were made
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from histoloom.errors import ConfigError, InputError, OutputError

TABLE, RECORD = "types.parquet", "types.json"
BLOCK = 8192  # vectors compared with all centroids at a time


@dataclass(frozen=True, eq=False)
class TypeTree:
    """Nested tissue types.

    `levels` holds the number of types of each level, coarse to fine; `ancestors` the type, at each level, of each
    finest type (its last row counts 0, 1, 2, ...); `centroids` are of the finest level, among the encoder's vectors at
    unit length. `sizes` and `variances` (mean squared distance from the centroid) are of the vectors that made them.
    """

    levels: tuple[int, ...]
    centroids: Float[np.ndarray, "k d"]
    ancestors: Int[np.ndarray, "l k"]
    encoder: str
    fingerprint: str
    sizes: Int[np.ndarray, " k"] | None = None
    variances: Float[np.ndarray, " k"] | None = None
    made: dict = field(default_factory=dict)  # how, as JSON

    def __post_init__(self):
        if self.ancestors.shape != (len(self.levels), len(self.centroids)):
            raise InputError(
                f"{len(self.levels)} levels of {len(self.centroids)} types need ancestors of that shape, "
                f"not {self.ancestors.shape}"
            )
        for level, row in zip(self.levels, self.ancestors, strict=True):
            if not np.array_equal(np.unique(row), np.arange(level)):
                raise InputError(f"the level of {level} types must use all ids from 0 to {level - 1}, and no other")
        if not np.array_equal(self.ancestors[-1], np.arange(len(self.centroids))):
            raise InputError("the finest level must be the types themselves, in order")
        for coarse, fine in pairwise(self.ancestors):
            if len(np.unique(np.stack([coarse, fine]), axis=1).T) != fine.max() + 1:
                raise InputError("levels are not nested: a finer type lies in two coarser ones")

    def at(self, level: int) -> Int[np.ndarray, " k"]:
        """The type of each finest type at the level of `level` types; raises ConfigError where there is none."""
        if level not in self.levels:
            raise ConfigError(f"no level of {level} types; known: {', '.join(map(str, self.levels))}")
        return self.ancestors[self.levels.index(level)]

    def assign(self, vectors: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
        """The finest type of each vector, as the encoder gave it: the nearest centroid, in blocks.

        Raises InputError for vectors of another dimension or that are not finite.
        """
        check_dimension(vectors.shape[1], self.centroids.shape[1], "these vectors")
        found = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), BLOCK):
            found[start : start + BLOCK] = nearest(unit(vectors[start : start + BLOCK]), self.centroids)[0]
        return found

    def save(self, folder: Path | str) -> None:
        """Write `types.parquet` and `types.json`; raises OutputError for a disk that is full or refuses."""
        folder, count = Path(folder), len(self.centroids)
        sizes = np.zeros(count, np.int64) if self.sizes is None else self.sizes
        variances = np.zeros(count) if self.variances is None else self.variances
        columns = {
            "id": pa.array(np.arange(count)),
            **{f"type_{level}": pa.array(row) for level, row in zip(self.levels, self.ancestors, strict=True)},
            "size": pa.array(sizes.astype(np.int64)),
            "variance": pa.array(variances.astype(np.float64)),
            "centroid": pa.FixedSizeListArray.from_arrays(self.centroids.ravel(), self.centroids.shape[1]),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside = folder / f"{TABLE}.partial"
            pq.write_table(pa.table(columns), aside)
            os.replace(aside, folder / TABLE)
            # The record names its table by content, so that one of an older run is not taken for it.
            names = {"encoder": self.encoder, "fingerprint": self.fingerprint, "made": self.made}
            record = {"levels": self.levels, **names, "sha256": _sha256(folder / TABLE)}
            aside = folder / f"{RECORD}.partial"
            aside.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(aside, folder / RECORD)
        except OSError as error:
            raise OutputError(
                f"{folder}: types cannot be written ({error.strerror or error}); free some space"
            ) from None

    @classmethod
    def load(cls, folder: Path | str) -> "TypeTree":
        """Read what `save` wrote; raises InputError with the cure for what is missing, half written or no tree."""
        folder = Path(folder)
        if not (folder / RECORD).is_file() or not (folder / TABLE).is_file():
            raise InputError(f"{folder}: no tissue types there; make them with `histoloom discover cluster`")
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if record["sha256"] != _sha256(folder / TABLE):
                raise ValueError(f"{TABLE} is of another run than {RECORD}")
            levels, table = tuple(record["levels"]), pq.read_table(folder / TABLE)
            centroids = table["centroid"].combine_chunks()
            return cls(
                levels,
                centroids.flatten().to_numpy().reshape(len(centroids), -1),
                np.stack([table[f"type_{level}"].to_numpy() for level in levels]),
                record["encoder"],
                record["fingerprint"],
                table["size"].to_numpy(),
                table["variance"].to_numpy(),
                record["made"],
            )
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, InputError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{folder}: tissue types cannot be read ({reason}); run `histoloom discover cluster` again"
            ) from None


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Vectors at length 1 in single precision, in which types are found; a vector of zeros stays.

    Length is mostly how much tissue and stain a patch shows, direction which. Raises InputError for what is not finite.
    """
    single = vectors.astype(np.float32)
    lengths = np.linalg.norm(single, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        row = int(np.flatnonzero(~np.isfinite(lengths[:, 0]))[0])
        raise InputError(f"vector {row} of {len(vectors)} is not finite; embed its patch anew")
    single /= np.maximum(lengths, 1e-12)
    return single


def nearest(
    vectors: Float[np.ndarray, "n d"], centroids: Float[np.ndarray, "k d"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nearest centroid of each vector, and the squared distance to it, block by block."""
    types, distances = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    half = (centroids**2).sum(1) / 2
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        closeness = block @ centroids.T - half  # (|v|^2 - |v - c|^2) / 2
        best = closeness.argmax(1)
        types[start : start + BLOCK] = best
        largest = closeness[np.arange(len(block)), best]
        distances[start : start + BLOCK] = np.einsum("nd,nd->n", block, block) - 2 * largest
    return types, np.maximum(distances, 0)


def check_dimension(found: int, wanted: int, where: str) -> None:
    """Raise InputError where vectors are of another dimension than types or other vectors."""
    if found != wanted:
        raise InputError(f"{where} have {found} dimensions, not {wanted}: another encoder; embed all with the same one")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
