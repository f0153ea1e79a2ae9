"""Shares of right answers, with exact intervals: accuracy, sensitivity, specificity."""

from dataclasses import dataclass
from math import nan

import numpy as np
from jaxtyping import Bool
from scipy.stats import binomtest


@dataclass(frozen=True)
class Share:
    """`count` of `n`, with the exact interval of Clopper and Pearson (1934); nan for none."""

    count: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, nan for none."""
        return self.count / self.n if self.n else nan


def exact_share(hits: Bool[np.ndarray, " n"], level: float = 0.95) -> Share:
    """The share of true values. The interval counts values as independent."""
    count, n = int(hits.sum()), len(hits)
    if not n:
        return Share(0, 0, nan, nan)
    interval = binomtest(count, n).proportion_ci(confidence_level=level, method="exact")
    return Share(count, n, float(interval.low), float(interval.high))


def reader_shares(called: Bool[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> dict[str, Share]:
    """Accuracy, sensitivity (positive cases that are called positive) and specificity of one reader."""
    return {
        "accuracy": exact_share(called == positive),
        "sensitivity": exact_share(called[positive]),
        "specificity": exact_share(~called[~positive]),
    }
