"""From coarse to fine: at first a map tells few types apart, later all of them (arXiv 2509.17847).

At step t the map may tell k'(t) = k_min + (k_max - k_min) * min(1, t / T_warmup) types apart, and shows the finest
nested level that has no more than that. The network has one embedding for each finest type and none for coarser ones: a
coarse type is spoken by the id of one of its members, drawn for each sample. So every embedding learns what its
coarse type looks like before it learns what sets it apart, no embedding begins untrained when a finer level opens, and
a trained model reads finest ids only, as any other does.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from histoloom.discovery.levels import Levels
from histoloom.errors import ConfigError
from histoloom.tissue import UNLABELLED


@dataclass(frozen=True)
class Curriculum:
    """How the number of types rises in training."""

    warmup_steps: int = 3000  # T_warmup: from this step on all types are told apart
    fewest: int | None = None  # k_min; none: the types of the coarsest level
    levels: str = ""  # levels.toml that says how types are nested; "" takes the dataset's own

    def __post_init__(self):
        if self.warmup_steps < 1 or (self.fewest is not None and self.fewest < 1):
            raise ConfigError("warmup_steps and fewest must be 1 or more")


def types_at(step: int, counts: tuple[int, ...], config: Curriculum) -> int:
    """k'(t), rounded down; k_max is the number of the finest types."""
    fewest = counts[0] if config.fewest is None else config.fewest
    return int(fewest + (counts[-1] - fewest) * min(1.0, step / config.warmup_steps))


def level_at(step: int, counts: tuple[int, ...], config: Curriculum) -> int:
    """The finest level that tells no more than k'(t) types apart, or the coarsest where all tell more."""
    allowed = types_at(step, counts, config)
    return max((i for i, count in enumerate(counts) if count <= allowed), default=0)


def spoken_as(levels: Levels, level: int, rng: np.random.Generator) -> UInt8[np.ndarray, " 256"]:
    """The id that stands for each finest id at a level: that of one member of its coarse type, drawn by `rng`."""
    spoken = np.arange(UNLABELLED + 1, dtype=np.uint8)
    types, members = levels.of[level], np.unique(levels.of[-1])
    for coarse in np.unique(types[members]):
        mine = members[types[members] == coarse]
        spoken[mine] = rng.choice(mine)
    return spoken
