"""Agreement of readers with each other."""

from math import nan

import krippendorff
import numpy as np
from jaxtyping import Bool, Float
from statsmodels.stats import inter_rater


def fleiss_kappa(called: Bool[np.ndarray, "r n"]) -> float:
    """Fleiss' kappa of decisions of two kinds; nan for fewer than 2 readers, no case, or a single kind."""
    if len(called) < 2 or not called.size or called.all() or not called.any():
        return nan
    return float(inter_rater.fleiss_kappa(inter_rater.aggregate_raters(called.T.astype(int), n_cat=2)[0]))


def krippendorff_alpha(scores: Float[np.ndarray, "r n"]) -> float:
    """Krippendorff's alpha of ordered scores, nan where one is missing; nan where all scores are the same."""
    compared = scores[:, (~np.isnan(scores)).sum(axis=0) > 1]
    if len(np.unique(compared[~np.isnan(compared)])) < 2:
        return nan
    return float(krippendorff.alpha(reliability_data=scores, level_of_measurement="ordinal"))
