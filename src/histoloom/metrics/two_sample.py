"""Can a classifier tell synthetic from real? The classifier two-sample test, C2ST (Lopez-Paz & Oquab 2017)."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError, MissingExtraError
from histoloom.metrics.features import check_features
from histoloom.metrics.intervals import Cases, Spread, share_interval, two_factor_spread


@dataclass(frozen=True, eq=False)
class TwoSample:
    """Balanced held-out accuracy (0.5: guessing, 1: always right), its interval over cases, and the images judged.

    The interval is that of these classifiers on other cases; it leaves out how classifiers vary that learn from other
    images. `real_scores` and `fake_scores` are the held-out probabilities of being fake.
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
    real_cases: Cases,
    fake_cases: Cases,
    folds: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> TwoSample:
    """Held-out accuracy of a logistic regression on standardized features, cross-validated so that no case is on both
    sides of a fold (the C2ST of Lopez-Paz & Oquab 2017).

    Sides weigh equally, whatever their sizes. Fakes generated from a case share its name, and so its fold. Raises
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
            raise InputError(f"need one case per image; got {len(cases)} cases for {len(features)} {name} images")
        if len(set(cases)) < folds:
            raise InputError(f"need at least {folds} {name} cases for {folds} folds by case; got {len(set(cases))}")
    features = np.concatenate([real_features, fake_features])
    is_fake = np.repeat([0, 1], [len(real_features), len(fake_features)])
    cases = [*real_cases, *fake_cases]
    scores = np.empty(len(features))
    for learn, judge in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, is_fake, cases):
        if len(set(is_fake[learn])) < 2:
            raise InputError("one case holds a whole side of a fold; give more cases, of more equal size")
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sides that can be separated perfectly never converge
            scores[judge] = classifier.fit(features[learn], is_fake[learn]).predict_proba(features[judge])[:, 1]
    correct = ((scores > 0.5) == is_fake).astype(np.float64)
    accuracy, spread = _balanced(correct, is_fake, cases)
    low, high = share_interval(accuracy, spread, len(features), level)
    return TwoSample(accuracy, low, high, len(features), scores[is_fake == 0], scores[is_fake == 1])


def _balanced(correct: np.ndarray, is_fake: np.ndarray, cases: Cases) -> tuple[float, Spread]:
    """Mean of the accuracies of both sides, and its spread over cases, which both sides may share."""
    of_case = np.unique(np.asarray(cases), return_inverse=True)[1]
    number = of_case.max() + 1
    whole, without = 0.0, np.zeros(number)
    for side in (0, 1):
        mine = is_fake == side
        hits, images = np.bincount(of_case[mine], correct[mine], number), np.bincount(of_case[mine], minlength=number)
        whole += float(hits.sum() / images.sum() / 2)
        without += (hits.sum() - hits) / (images.sum() - images) / 2
    return whole, two_factor_spread(np.array([whole]), without[None], np.bincount(of_case))
