"""Nested tissue types without names: every coarse type is a union of finer ones.

The finest types are centroids of unit vectors; a coarser level only groups them, so two levels cannot contradict each
other.

    FOLDER/
      types.parquet   a row per finest type: id, its type at each level (type_5, type_10, ...), size, variance, centroid
      types.json      levels, encoder, fingerprint, and how the types were made; written last
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from histoloom.errors import ConfigError, InputError
from histoloom.files import whole_file, write_json
from histoloom.parquet import open_parquet, parquet_writer
from histoloom.records import fingerprint, read_json

TABLE, DESCRIPTION = "types.parquet", "types.json"
BLOCK = 8192  # vectors that are compared with all centroids at once


@dataclass(frozen=True, eq=False)
class TypeTree:
    """Nested tissue types.

    `levels` holds the number of types per level, coarse to fine; `ancestors` the type of each finest type at each level
    (its last row is 0, 1, 2, ...); `centroids` those of the finest level, in the space of the encoder's unit vectors.
    `sizes` and `variances` (mean squared distance from the centroid) describe the vectors that the types were found in.
    """

    levels: tuple[int, ...]
    centroids: Float[np.ndarray, "k d"]
    ancestors: Int[np.ndarray, "l k"]
    encoder: str
    fingerprint: str
    sizes: Int[np.ndarray, " k"] | None = None
    variances: Float[np.ndarray, " k"] | None = None
    made: dict = field(default_factory=dict)  # how the types were found, as JSON

    def __post_init__(self):
        if self.ancestors.shape != (len(self.levels), len(self.centroids)):
            raise InputError(
                f"{len(self.levels)} levels of {len(self.centroids)} types need ancestors of that shape, got "
                f"{self.ancestors.shape}"
            )
        for level, row in zip(self.levels, self.ancestors, strict=True):
            if not np.array_equal(np.unique(row), np.arange(level)):
                raise InputError(f"the level of {level} types must use exactly the ids 0 to {level - 1}")
        if not np.array_equal(self.ancestors[-1], np.arange(len(self.centroids))):
            raise InputError("the finest level must be the ids of the types, in order")
        for coarse, fine in pairwise(self.ancestors):
            if len(np.unique(np.stack([coarse, fine]), axis=1).T) != fine.max() + 1:
                raise InputError("levels are not nested: a finer type belongs to two coarser ones")

    def at(self, level: int) -> Int[np.ndarray, " k"]:
        """The type of each finest type at the level of `level` types; raises ConfigError for an unknown level."""
        if level not in self.levels:
            raise ConfigError(f"there is no level of {level} types; known: {', '.join(map(str, self.levels))}")
        return self.ancestors[self.levels.index(level)]

    def assign(self, vectors: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
        """The finest type (nearest centroid) of each vector of the encoder, of any length.

        Raises InputError for vectors of another dimension, or that are not finite.
        """
        check_dimension(vectors.shape[1], self.centroids.shape[1], "the vectors")
        found = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), BLOCK):
            found[start : start + BLOCK] = nearest(unit(vectors[start : start + BLOCK]), self.centroids)[0]
        return found

    def save(self, folder: Path | str) -> None:
        """Write `types.parquet` and `types.json` into `folder`; raises OutputError where that fails."""
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
        with whole_file(folder / TABLE) as aside:
            rows = pa.table(columns)
            with parquet_writer(aside, rows.schema) as writer:
                writer.write_table(rows)
        # The description names its table by content, so that a table of another run does not pass for it.
        names = {"encoder": self.encoder, "fingerprint": self.fingerprint, "made": self.made}
        write_json(folder / DESCRIPTION, {"levels": self.levels, **names, "sha256": fingerprint(folder / TABLE)})

    @classmethod
    def load(cls, folder: Path | str) -> "TypeTree":
        """Read what `save` wrote; raises InputError, with the cure, where it is missing or damaged."""
        folder = Path(folder)
        if not (folder / DESCRIPTION).is_file() or not (folder / TABLE).is_file():
            raise InputError(f"{folder}: has no tissue types; make them with `histoloom discover cluster`")
        try:
            described = read_json(folder / DESCRIPTION)
            if described["sha256"] != fingerprint(folder / TABLE):
                raise ValueError(f"{TABLE} belongs to another run than {DESCRIPTION}")
            with open_parquet(folder / TABLE) as file:
                table = file.read()
            counts = {"sizes": table["size"].to_numpy(), "variances": table["variance"].to_numpy()}
            return cls(*_columns(table, described["levels"]), **_about(described), **counts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException, InputError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{folder}: tissue types cannot be read ({reason}); run `histoloom discover cluster` again"
            ) from None


def _columns(table: pa.Table, levels: object) -> tuple:
    """Levels, centroids and ancestors of a table; raises ValueError where they are not usable."""
    if not isinstance(levels, list) or not all(type(level) is int for level in levels) or not levels:
        raise ValueError("levels must be a list of numbers of types")
    column = table["centroid"].combine_chunks()
    centroids = column.flatten().to_numpy().astype(np.float32, copy=False).reshape(len(column), -1)
    if not np.isfinite(centroids).all():
        raise ValueError("a centroid is not finite")
    ancestors = np.stack([table[f"type_{level}"].to_numpy().astype(np.int64) for level in levels])
    return tuple(levels), centroids, ancestors


def _about(described: dict) -> dict:
    names = {key: described[key] for key in ("encoder", "fingerprint", "made")}
    if [type(value) for value in names.values()] != [str, str, dict]:
        raise ValueError("encoder and fingerprint must be text, made a table")
    return names


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Vectors scaled to length 1, in single precision; a vector of zeros stays.

    The length mostly measures how much tissue and stain a patch shows; the direction, which. Raises InputError for
    vectors that are not finite.
    """
    single = vectors.astype(np.float32)
    lengths = np.linalg.norm(single, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        row = int(np.flatnonzero(~np.isfinite(lengths[:, 0]))[0])
        raise InputError(f"vector {row} of {len(vectors)} is not finite; embed its patch again")
    single /= np.maximum(lengths, 1e-12)
    return single


def nearest(
    vectors: Float[np.ndarray, "n d"], centroids: Float[np.ndarray, "k d"]
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The nearest centroid of each vector and the squared distance to it."""
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
    """Raise InputError where vectors have another dimension than the types or other vectors."""
    if found != wanted:
        raise InputError(f"{where} have {found} dimensions, not {wanted}: another encoder made them; use one for all")
