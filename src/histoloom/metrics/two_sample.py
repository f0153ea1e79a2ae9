"""Can a classifier tell synthetic from real? The classifier two-sample test, C2ST (Lopez-Paz & Oquab 2017)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError, MissingExtraError
from histoloom.metrics.features import check_features
from histoloom.metrics.intervals import case_counts

DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class TwoSample:
    """Balanced held-out accuracy (0.5: cannot tell, 1: always), its interval over cases, and the images judged.

    `real_scores` and `fake_scores` are the held-out probabilities of being fake.
    """

    accuracy: float
    low: float
    high: float
    n: int
    real_scores: Float[np.ndarray, " n"]
    fake_scores: Float[np.ndarray, " m"]


def c2st(
    real_features: Float[np.ndarray, "n d"],
    fake_features: Float[np.ndarray, "m d"],
    real_cases: Sequence[str],
    fake_cases: Sequence[str],
    folds: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> TwoSample:
    """Held-out accuracy of a logistic regression on standardised features, cross-validated so that no case stands on
    both sides of a fold (the C2ST of Lopez-Paz & Oquab 2017).

    Sides weigh equally, whatever their sizes. Fakes woven from a case share its name, and so its fold. Raises
    InputError for fewer than `folds` cases on a side.
    """
    check_features(real_features, fake_features)
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingExtraError("scikit-learn", "evaluate") from None
    for name, cases, features in (("real", real_cases, real_features), ("fake", fake_cases, fake_features)):
        if len(cases) != len(features):
            raise InputError(f"{len(cases)} cases for {len(features)} {name} images; give one case per image")
        if len(set(cases)) < folds:
            raise InputError(
                f"{len(set(cases))} {name} cases are too few for {folds} folds by case; give {folds} or more"
            )
    features = np.concatenate([real_features, fake_features])
    is_fake = np.repeat([0, 1], [len(real_features), len(fake_features)])
    cases = [*real_cases, *fake_cases]
    scores = np.empty(len(features))
    for learn, judge in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, is_fake, cases):
        if len(set(is_fake[learn])) < 2:
            raise InputError("a fold by case leaves one side empty; give more cases, of more equal size")
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a side that is told apart perfectly never converges
            scores[judge] = classifier.fit(features[learn], is_fake[learn]).predict_proba(features[judge])[:, 1]
    correct = (scores > 0.5) == is_fake
    counts = np.concatenate([np.ones((1, len(cases)), int), case_counts(cases, DRAWS, seed)])
    sides = [counts[:, is_fake == side] for side in (0, 1)]
    hits = [side @ correct[is_fake == i] / np.maximum(side.sum(axis=1), 1) for i, side in enumerate(sides)]
    whole, *drawn = np.mean(hits, axis=0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return TwoSample(float(whole), float(low), float(high), len(features), scores[is_fake == 0], scores[is_fake == 1])
