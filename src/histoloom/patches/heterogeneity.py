"""Pick patches that show more than one tissue type.

A patch is heterogeneous when its most common type covers 20-80 % of the labeled pixels (arXiv 2509.17847, section 3).
Entropy ranks those that pass.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from histoloom.tissue import UNLABELLED


def class_fractions(semantic_map: UInt8[np.ndarray, "h w"], num_types: int) -> Float[np.ndarray, " k"]:
    """Share of each type among the labeled pixels; all zeros when no pixel is labeled."""
    counts = np.bincount(semantic_map.ravel(), minlength=UNLABELLED + 1)
    counts[UNLABELLED] = 0
    return counts[:num_types] / max(counts.sum(), 1)


def is_heterogeneous(
    fractions: Float[np.ndarray, "n k"], low: float = 0.2, high: float = 0.8
) -> Bool[np.ndarray, " n"]:
    """True where the most common type covers between `low` and `high` of the labeled pixels."""
    largest = fractions.max(axis=1)
    return (low <= largest) & (largest <= high)


def entropy(fractions: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """H(r) = -sum_i p_i log p_i in nats, with 0 log 0 = 0 (arXiv 2509.17847, section 3)."""
    return -np.where(fractions > 0, fractions * np.log(np.where(fractions > 0, fractions, 1.0)), 0.0).sum(axis=1)
