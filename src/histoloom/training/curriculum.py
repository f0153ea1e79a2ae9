"""Train from coarse to fine types: maps show few types first, and all of them later (arXiv 2509.17847).

At step t a map shows at most k'(t) = k_min + (k_max - k_min) * min(1, t / T_warmup) types: those of the finest nested
level that fits. The network has one embedding per finest type, none for coarser types. For each sample, a coarse type
is represented by the id of one random member. So every embedding learns first what its coarse type looks like and then
what distinguishes it, no embedding is untrained when a finer level starts, and a trained model reads finest ids only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from histoloom.config import check_numbers
from histoloom.discovery.levels import Levels
from histoloom.errors import ConfigError
from histoloom.tissue import UNLABELLED


@dataclass(frozen=True)
class Curriculum:
    """How the number of types rises during training."""

    warmup_steps: int = 3000  # T_warmup: from this step on, maps show all types
    fewest: int | None = None  # k_min; None: the number of types of the coarsest level
    levels: str = ""  # levels.toml with the nesting of the types; "": the dataset's own

    def __post_init__(self):
        check_numbers(self)
        if self.warmup_steps < 1 or (self.fewest is not None and self.fewest < 1):
            raise ConfigError("warmup_steps and fewest must be 1 or more")


def types_at(step: int, counts: tuple[int, ...], config: Curriculum) -> int:
    """k'(t), rounded down; k_max is the number of the finest types."""
    fewest = counts[0] if config.fewest is None else config.fewest
    return int(fewest + (counts[-1] - fewest) * min(1.0, step / config.warmup_steps))


def level_at(step: int, counts: tuple[int, ...], config: Curriculum) -> int:
    """The finest level with at most k'(t) types, or the coarsest if all have more."""
    allowed = types_at(step, counts, config)
    return max((i for i, count in enumerate(counts) if count <= allowed), default=0)


def coarse_ids(levels: Levels, level: int, rng: np.random.Generator) -> UInt8[np.ndarray, " 256"]:
    """The id that represents each finest id at a level: that of one member of its coarse type, drawn by `rng`."""
    ids = np.arange(UNLABELLED + 1, dtype=np.uint8)
    types, members = levels.of[level], np.unique(levels.of[-1])
    for coarse in np.unique(types[members]):
        mine = members[types[members] == coarse]
        ids[mine] = rng.choice(mine)
    return ids
