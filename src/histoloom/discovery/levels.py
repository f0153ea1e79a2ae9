"""Which coarser type each tissue type belongs to, level by level: the file `levels.toml` beside a `tissue.toml`.

[[level]]
types = 5                    # number of types at this level
of = [0, 0, 3, 1, ...]       # the type at this level of each id, by position; the last level is the ids themselves
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import InputError

LEVELS = "levels.toml"


@dataclass(frozen=True, eq=False)
class Levels:
    """Nested levels, coarse to fine: `counts` types each, and row by row the type `of` each id."""

    counts: tuple[int, ...]
    of: UInt8[np.ndarray, "l k"]

    def __post_init__(self):
        if self.of.shape[0] != len(self.counts) or not self.counts or list(self.counts) != sorted(self.counts):
            raise InputError(f"levels {self.counts} must rise from coarse to fine, one row of ids each")
        for coarse, fine in zip(self.of[:-1], self.of[1:], strict=True):
            if len(np.unique(np.stack([coarse, fine]), axis=1).T) > len(np.unique(fine)):
                raise InputError("levels are not nested: a type belongs to two coarser ones; write them anew")

    def up_to(self, level: int) -> "Levels":
        """The levels from the coarsest to `level`, by the ids of that one; ids that it lacks stand for its first."""
        ids, first = np.unique(self.of[level], return_index=True)
        of = np.repeat(self.of[: level + 1, first[:1]], int(ids[-1]) + 1, axis=1)
        of[:, ids] = self.of[: level + 1, first]
        return Levels(self.counts[: level + 1], of)


def write_levels(levels: Levels, folder: Path) -> None:
    """Write `levels.toml` into `folder`."""
    head = "# The type at each level of each id, by position; written by histoloom discover.\n"
    rows = [f"[[level]]\ntypes = {n}\nof = {row.tolist()}\n" for n, row in zip(levels.counts, levels.of, strict=True)]
    (folder / LEVELS).write_text(head + "\n" + "\n".join(rows), encoding="utf-8")


def read_levels(path: Path) -> Levels:
    """Read what `write_levels` wrote; raises InputError with file and cure."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["level"]
        return Levels(tuple(int(row["types"]) for row in rows), np.array([row["of"] for row in rows], np.uint8))
    except FileNotFoundError:
        raise InputError(
            f"{path}: not there; a curriculum needs it: `histoloom discover maps` writes it beside tissue.toml"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, InputError) as error:
        raise InputError(f"{path}: not a table of nested levels ({error}); write it anew") from None
