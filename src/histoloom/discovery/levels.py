"""Which coarser type each tissue type belongs to, level by level: the file `levels.toml` next to a `tissue.toml`.

[[level]]
types = 5                    # number of types at this level
of = [0, 0, 3, 1, ...]       # the type at this level of each id, by position; the last level is the ids themselves
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
from jaxtyping import UInt8

from histoloom.errors import InputError
from histoloom.files import write_text
from histoloom.text import load_toml

LEVELS = "levels.toml"


@dataclass(frozen=True, eq=False)
class Levels:
    """Nested levels, coarse to fine: the number of types of each in `counts`, the type of each id in the rows `of`."""

    counts: tuple[int, ...]
    of: UInt8[np.ndarray, "l k"]

    def __post_init__(self):
        if self.of.shape[0] != len(self.counts) or not self.counts or list(self.counts) != sorted(self.counts):
            raise InputError(f"levels {self.counts} must ascend from coarse to fine, with one row of ids each")
        for coarse, fine in zip(self.of[:-1], self.of[1:], strict=True):
            if len(np.unique(np.stack([coarse, fine]), axis=1).T) > len(np.unique(fine)):
                raise InputError("levels are not nested: a type belongs to two coarser ones; write the file again")

    def up_to(self, level: int) -> "Levels":
        """The levels from the coarsest to `level`, by its ids; an id that it lacks stands for its first."""
        ids, first = np.unique(self.of[level], return_index=True)
        of = np.repeat(self.of[: level + 1, first[:1]], int(ids[-1]) + 1, axis=1)
        of[:, ids] = self.of[: level + 1, first]
        return Levels(self.counts[: level + 1], of)


def write_levels(levels: Levels, folder: Path) -> None:
    """Write `levels.toml` into `folder`."""
    head = "# The type at each level of each id, by position; written by histoloom discover.\n\n"
    rows = [{"types": n, "of": row.tolist()} for n, row in zip(levels.counts, levels.of, strict=True)]
    write_text(folder / LEVELS, head + "\n".join("[[level]]\n" + tomli_w.dumps(row) for row in rows))


def read_levels(path: Path) -> Levels:
    """Read what `write_levels` wrote; raises InputError with the file and the cure."""
    try:
        rows = load_toml(path)["level"]
        return Levels(tuple(int(row["types"]) for row in rows), np.array([row["of"] for row in rows], np.uint8))
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; a curriculum needs it: `histoloom discover maps` writes it next to tissue.toml"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, InputError) as error:
        raise InputError(f"{path}: is not a table of nested levels ({error}); write it again") from None
