"""All figures of a report: each with its floor, its interval over cases, and the number of images behind it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from histoloom.encoders.encoder import Encoder
from histoloom.errors import InputError
from histoloom.evaluation.comparison import Comparison
from histoloom.metrics.features import too_few
from histoloom.metrics.frechet import frechet_at_infinity, frechet_distance
from histoloom.metrics.intervals import mean_interval, median_interval, statistic_interval
from histoloom.metrics.kernel import kid, median_distance, mmd_rbf
from histoloom.metrics.memorization import Authenticity, authenticity
from histoloom.metrics.prdc import prdc
from histoloom.metrics.two_sample import TwoSample, c2st

DRAWS = 50  # of the bootstrap, where each draw is a distance of its own


@dataclass(frozen=True)
class Figure:
    """One measured number: `value` with its 95 % interval, and `floor`, the same of real against real, which is what a
    perfect model would score. `n` images a side.

    A figure that cannot be given has no value, and `note` says why.
    """

    name: str
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    note: str = ""


@dataclass(frozen=True)
class FeatureSets:
    """Features of the four sets of a comparison, by one encoder."""

    reference: Float[np.ndarray, "r d"]
    control: Float[np.ndarray, "m d"]
    fake: Float[np.ndarray, "m d"]
    train: Float[np.ndarray, "t d"]


@dataclass(frozen=True)
class EncoderFigures:
    """What one encoder says: overall, per tissue type, and image by image for the plots."""

    encoder: str
    small: bool  # one of ours, whose figures compare with each other only
    dimensions: int
    overall: list[Figure]
    of_type: dict[str, list[Figure]]
    two_sample: TwoSample | None
    control_two_sample: TwoSample | None
    copies: Authenticity
    realism: Float[np.ndarray, " m"]  # real neighbourhoods that each fake lies in (density)
    features: FeatureSets = field(repr=False)


def measure_features(
    sets: Comparison,
    features: FeatureSets,
    encoder: Encoder,
    labels: dict[str, np.ndarray],
    types: list[str],
    seed: int = 0,
) -> EncoderFigures:
    """All figures of one encoder; `labels` are tissue types per image of `reference`, `control`, `fake`, or empty."""
    copies, real_copies = (authenticity(features.train, f) for f in (features.fake, getattr(features, sets.unseen)))
    tests = {name: _c2st(sets, features, name, seed) for name in ("fake", "control")}
    overall = _distances(sets, features, seed) + prdc_figures(sets, features, seed)
    overall += [_two_sample_figure(tests, len(features.fake))]
    low, high = mean_interval(100.0 * copies.authentic, sets.fake.cases, seed=seed)
    overall.append(Figure("AuthPct", len(features.fake), copies.percent, low, high, real_copies.percent))
    overall.append(_nearest(copies, real_copies, sets.fake.cases, seed))
    of_type = {
        name: _of_type(sets, features, {side: np.flatnonzero(of == i) for side, of in labels.items()}, seed)
        for i, name in enumerate(types)
        if labels and any((of == i).any() for of in labels.values())
    }
    realism = prdc(features.reference, features.fake, _k(features)).density
    judged = [test if isinstance(test, TwoSample) else None for test in tests.values()]
    name, dimensions = encoder.name, features.fake.shape[1]
    return EncoderFigures(name, encoder.small, dimensions, overall, of_type, *judged, copies, realism, features)


def _distances(sets: Comparison, features: FeatureSets, seed: int) -> list[Figure]:
    reference, control, fake = features.reference, features.control, features.fake
    n = min(len(reference), len(fake))
    figures = []
    if reason := too_few(n, fake.shape[1]):
        figures += [Figure(name, n, note=reason) for name in ("Fréchet distance", "Fréchet, n to infinity")]
    else:
        figures.append(distance_figure("Fréchet distance", frechet_distance, sets, features, seed))
        try:
            ends = [frechet_at_infinity(reference, x, seed=seed).distance for x in (fake, control)]
            figures.append(Figure("Fréchet, n to infinity", n, ends[0], floor=ends[1]))
        except InputError as error:
            figures.append(Figure("Fréchet, n to infinity", n, note=str(error)))
    width = median_distance(reference)
    figures.append(distance_figure("KID x 1000", lambda a, b: 1000 * kid(a, b), sets, features, seed))
    figures.append(distance_figure("MMD (RBF) x 1000", lambda a, b: 1000 * mmd_rbf(a, b, width), sets, features, seed))
    return figures


def distance_figure(
    name: str, distance: Callable[[np.ndarray, np.ndarray], float], sets: Comparison, features: FeatureSets, seed: int
) -> Figure:
    """A distance of synthetic from real features, with its interval over cases and its floor."""

    def of_draw(real: np.ndarray, fake: np.ndarray) -> float:
        return distance(features.reference[real], features.fake[fake])

    low, high = statistic_interval(of_draw, sets.reference.cases, sets.fake.cases, draws=DRAWS, seed=seed)
    value, floor = (distance(features.reference, x) for x in (features.fake, features.control))
    return Figure(name, min(len(features.reference), len(features.fake)), value, low, high, floor)


def prdc_figures(sets: Comparison, features: FeatureSets, seed: int) -> list[Figure]:
    """Precision, recall, density and coverage, each with its interval over cases and its floor."""
    k = _k(features)
    found, floor = (prdc(features.reference, x, k) for x in (features.fake, features.control))
    figures = []
    for name, value in found.means().items():
        cases = sets.fake.cases if name in ("precision", "density") else sets.reference.cases
        low, high = mean_interval(getattr(found, name), cases, seed=seed)
        figures.append(Figure(name, len(features.fake), value, low, high, floor.means()[name]))
    return figures


def _k(features: FeatureSets) -> int:
    """Five neighbours, as Naeem et al. 2020 advise, or as many as a small set has."""
    return min(5, len(features.reference) - 1, len(features.fake) - 1)


def _c2st(sets: Comparison, features: FeatureSets, other: str, seed: int) -> TwoSample | str:
    try:
        return c2st(
            features.reference, getattr(features, other), sets.reference.cases, getattr(sets, other).cases, seed=seed
        )
    except InputError as error:
        return str(error)


def _two_sample_figure(tests: dict[str, TwoSample | str], n: int) -> Figure:
    fake, control = tests["fake"], tests["control"]
    if isinstance(fake, str):
        return Figure("C2ST accuracy", n, note=fake)
    floor = None if isinstance(control, str) else control.accuracy
    return Figure("C2ST accuracy", n, fake.accuracy, fake.low, fake.high, floor)


def _nearest(copies: Authenticity, real_copies: Authenticity, cases: list[str], seed: int) -> Figure:
    low, high = median_interval(copies.distance, cases, seed=seed)
    values = copies.median_distance, low, high, real_copies.median_distance
    return Figure("nearest training image", len(copies.distance), *values)


def _of_type(sets: Comparison, features: FeatureSets, at: dict[str, np.ndarray], seed: int) -> list[Figure]:
    number = min(len(at[side]) for side in ("reference", "control", "fake"))
    if number < 10:
        counts = ", ".join(f"{len(of)} {side}" for side, of in at.items())
        return [Figure("all figures", len(at["fake"]), note=f"not given: too few patches of this type ({counts})")]
    equal = min(len(at["control"]), len(at["fake"]))
    at = {"reference": at["reference"], "control": at["control"][:equal], "fake": at["fake"][:equal]}
    part = Comparison(
        sets.reference.select(at["reference"]), sets.control.select(at["control"]), sets.fake.select(at["fake"]),
        sets.train, (),
    )  # fmt: skip
    chosen = FeatureSets(
        *(getattr(features, side)[at[side]] for side in ("reference", "control", "fake")), features.train
    )
    return [f for f in _distances(part, chosen, seed) if "infinity" not in f.name] + prdc_figures(part, chosen, seed)
