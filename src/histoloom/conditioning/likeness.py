"""The copy limit of a model: the highest copy score that a generated patch may have with one of its own crops.

`histoloom.metrics.copy_score` computes the score. The limit is a quantile of the scores of unrelated real pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.errors import ConfigError, InputError
from histoloom.metrics.copy_score import best_match
from histoloom.patches.store import Patches


@dataclass(frozen=True)
class CopyLimitConfig:
    """Where the likeness of a woven patch and its crops ends to be harmless."""

    pairs: int = 500  # unrelated pairs that are looked at; 0: no limit
    quantile: float = 0.98  # of their scores; copies are counted above 0.99, and that one is only an estimate

    def __post_init__(self):
        if not 0 < self.quantile < 1 or self.pairs < 0 or (self.pairs and not self.is_told_by(self.pairs)):
            raise ConfigError("quantile must lie between 0 and 1; pairs be 0, or enough for it: 1 / (1 - quantile)")

    def is_told_by(self, scores: int) -> bool:
        """Whether one score lies above the quantile; with fewer it is the largest, which one odd pair decides."""
        return scores * (1 - self.quantile) > 1 - 1e-9  # 10 * (1 - 0.9) is less than 1


def copy_limit(
    patches: Patches,
    config: CopyLimitConfig,
    crops: CropConfig | None = None,
    on_pair: Callable[[int], None] = lambda count: None,
) -> float | None:
    """The score that no woven patch should reach with a crop of its own: a quantile of `unrelated_scores`.

    None where it cannot be told: all patches are of one case, or too few get crops with texture.
    """
    if not config.pairs or len(set(patches.cases)) < 2:
        return None
    scores = unrelated_scores(patches, config.pairs, 0, crops, on_pair)
    judged = scores[~np.isnan(scores)]
    return float(np.quantile(judged, config.quantile)) if config.is_told_by(judged.size) else None


def unrelated_scores(
    patches: Patches,
    pairs: int,
    seed: int = 0,
    config: CropConfig | None = None,
    on_pair: Callable[[int], None] = lambda count: None,
) -> Float[np.ndarray, " n"]:
    """What `best_match` says of crops drawn for random patches, each against a random patch of another case.

    nan where a crop is too flat; patches that get no crop are passed over, so that up to `pairs` scores come back.
    `on_pair(1)` follows each. Raises InputError where all patches are of one case.
    """
    cases = np.asarray(patches.cases)
    if (cases == cases[0]).all():
        raise InputError(f"all {len(cases)} patches are of case {cases[0]!r}; unrelated pairs need two cases")
    references = ReferenceCrops(patches, config)
    nowhere = np.zeros(patches.semantic_maps.shape[1:], bool)  # no crop from the patch itself
    rng = np.random.default_rng((seed, 4))
    scores = []
    for _ in range(pairs):
        index = int(rng.integers(len(patches)))
        crops = references.draw(index, nowhere, patches.semantic_maps[index], None, rng)
        if crops:
            other = int(rng.choice(np.flatnonzero(cases != cases[index])))
            scores.append(best_match(crops[rng.integers(len(crops))].pixels, patches.images[other]))
        on_pair(1)
    return np.asarray(scores)
