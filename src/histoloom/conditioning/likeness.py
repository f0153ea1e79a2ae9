"""The copy limit of a model: the highest copy score that a generated patch may have with one of its own crops.

`histoloom.metrics.copy_score` computes the score. The limit is a quantile of the scores of unrelated real pairs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.config import check_numbers
from histoloom.errors import ConfigError, InputError
from histoloom.metrics.copy_score import best_match
from histoloom.patches.store import Patches
from histoloom.progress import SILENT, Bar


@dataclass(frozen=True)
class CopyLimitConfig:
    """From which score on a patch counts as a copy of its crop."""

    pairs: int = 500  # unrelated pairs that are scored; 0: no limit
    quantile: float = 0.98  # of their scores; below the 0.99 from which copies are counted, since it is an estimate

    def __post_init__(self):
        check_numbers(self)
        if not 0 < self.quantile < 1 or self.pairs < 0 or (self.pairs and not self.is_estimated_by(self.pairs)):
            raise ConfigError(
                f"the copy limit needs a quantile between 0 and 1, and pairs of 0 or at least 1 / (1 - quantile); got "
                f"quantile {self.quantile} and pairs {self.pairs}"
            )

    def is_estimated_by(self, scores: int) -> bool:
        """Whether at least one of so many scores exceeds the quantile; else a single odd pair would decide it."""
        return scores * (1 - self.quantile) > 1 - 1e-9  # 10 * (1 - 0.9) is less than 1


def copy_limit(
    patches: Patches,
    config: CopyLimitConfig,
    crops: CropConfig | None = None,
    bar: Bar = SILENT,
) -> float | None:
    """The score that no woven patch may exceed with a crop of its own: a quantile of `unrelated_scores`.

    None where it cannot be estimated: all patches are of one case, or too few get crops with texture. `bar` counts
    pairs.
    """
    if not config.pairs or len(set(patches.cases)) < 2:
        return None
    scores = unrelated_scores(patches, config.pairs, 0, crops, bar)
    judged = scores[~np.isnan(scores)]
    return float(np.quantile(judged, config.quantile)) if config.is_estimated_by(judged.size) else None


def unrelated_scores(
    patches: Patches,
    pairs: int,
    seed: int = 0,
    config: CropConfig | None = None,
    bar: Bar = SILENT,
) -> Float[np.ndarray, " n"]:
    """Copy scores of crops drawn for random patches, each against a random patch of another case.

    nan where a crop is too flat. Patches that get no crop are skipped, so there are at most `pairs` scores. `bar`
    counts pairs. Raises InputError where all patches are of one case.
    """
    cases = np.asarray(patches.cases)
    if (cases == cases[0]).all():
        raise InputError(f"all {len(cases)} patches are of case {cases[0]!r}; unrelated pairs need at least two cases")
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
        bar.advance()
    return np.asarray(scores)
