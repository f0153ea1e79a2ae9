"""Reader studies by simulation (Roe and Metz 1997): how many readers and cases does a margin need?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.readers.equivalence import Answer, answer
from histoloom.readers.u_statistics import one_shot, successes


@dataclass(frozen=True, kw_only=True)
class RoeMetz:
    """Latent scores of readers: normal, with one variance for what a case shows to all of them and one for the rest."""

    auc: float = 0.5  # of the mean reader, 0.5 to 1
    reader: float = 0.01  # variance of the separation of readers, per kind of case
    case: float = 0.4  # share of the variance of scores that readers have in common, 0 to 1
    levels: int = 6  # steps of the scale of confidence, equally often used; 0 for scores without steps

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 < self.auc < 1:
            raise ConfigError(f"auc must be between 0 and 1; got {self.auc}")
        if not 0 <= self.case <= 1:
            raise ConfigError(f"case must be between 0 and 1; got {self.case}")
        if self.reader < 0:
            raise ConfigError(f"reader must be at least 0; got {self.reader}")

    @property
    def separation(self) -> float:
        """Mean score of positive cases; that of negative cases is 0."""
        return float(norm.ppf(self.auc)) * (2 * (1 + self.reader)) ** 0.5


def simulate(
    model: RoeMetz, readers: int, per_kind: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "r n"], Bool[np.ndarray, " n"]]:
    """Scores of one study with `per_kind` negative and as many positive cases, and which cases are positive."""
    positive = np.arange(2 * per_kind) >= per_kind
    of_reader = model.reader**0.5 * rng.standard_normal((readers, 2))
    of_case = model.case**0.5 * rng.standard_normal(2 * per_kind)
    rest = (1 - model.case) ** 0.5 * rng.standard_normal((readers, 2 * per_kind))
    scores = model.separation * positive + of_reader[:, positive.astype(int)] + of_case + rest
    if model.levels:
        middle, width = model.separation / 2, (1 + model.reader + model.separation**2 / 4) ** 0.5
        steps = middle + width * norm.ppf(np.arange(1, model.levels) / model.levels)
        scores = np.searchsorted(steps, scores).astype(np.float64)
    return scores, positive


def power(model: RoeMetz, readers: int, per_kind: int, margin: float, studies: int = 400, seed: int = 0) -> float:
    """Share of simulated studies that find that readers cannot tell."""
    rng = np.random.default_rng((seed, readers, per_kind))
    found = 0
    for _ in range(studies):
        estimate = one_shot(successes(*simulate(model, readers, per_kind, rng)))
        found += answer(estimate.interval(), margin) is Answer.CANNOT
    return found / studies
