"""All figures of a report: each with its floor, its interval over cases, and the number of images behind it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from histoloom.encoders.encoder import Encoder
from histoloom.errors import InputError
from histoloom.evaluation.comparison import Comparison, spread_over_cases
from histoloom.metrics.features import too_few
from histoloom.metrics.frechet import draw_keys, extrapolate, frechet_distance, needed_at_infinity
from histoloom.metrics.intervals import (
    mean_interval,
    mean_spread,
    median_interval,
    positive_interval,
    statistic_spread,
    t_interval,
)
from histoloom.metrics.kernel import kid, median_distance, mmd_rbf
from histoloom.metrics.memorization import Authenticity, authenticity
from histoloom.metrics.prdc import prdc
from histoloom.metrics.sliced import mind
from histoloom.metrics.two_sample import TwoSample, c2st

SIZES = 15  # of the draws that are extrapolated
NEIGHBORS = 5  # as Naeem et al. 2020 advise
FRECHET, AT_INFINITY, MIND = "Fréchet distance", "Fréchet, n to infinity", "MIND"
KID, MMD = "KID x 1000", "MMD (RBF) x 1000"
Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Figure:
    """One measured number: `value` with its 95 % interval, and `floor`, the same of real against real, which is what a
    perfect model would score. `n` images a side.

    A distance also has its `difference` from the floor with an interval, since the ratio to an unbiased estimate means
    nothing. A figure that cannot be given has no value, and `note` says why; without an interval both ends are None.
    """

    name: str
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    note: str = ""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None

    def __post_init__(self):
        for name in ("low", "high", "difference_low", "difference_high"):
            value = getattr(self, name)
            if value is not None and np.isnan(value):
                object.__setattr__(self, name, None)

    @property
    def measured(self) -> float:
        """The value of a figure that has one."""
        assert self.value is not None, self.name
        return self.value

    @property
    def at_best(self) -> float:
        """The floor of a figure that has one."""
        assert self.floor is not None, self.name
        return self.floor


@dataclass(frozen=True, eq=False)
class FeatureSets:
    """Features of the four sets of a comparison, by one encoder."""

    reference: Float[np.ndarray, "r d"]
    control: Float[np.ndarray, "m d"]
    fake: Float[np.ndarray, "m d"]
    train: Float[np.ndarray, "t d"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderFigures:
    """What one encoder says: overall, per tissue type, and image by image for the plots."""

    encoder: str
    small: bool  # one of ours, whose figures compare with each other only
    dimensions: int
    overall: list[Figure]
    of_type: dict[str, list[Figure]]
    two_sample: TwoSample | None
    copies: Authenticity
    realism: Float[np.ndarray, " m"]  # share of real neighborhoods that hold each fake (density)
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
    overall = _distances(sets, features, seed) + prdc_figures(sets, features)
    overall += [_two_sample_figure(tests, len(features.fake))]
    overall.append(_authentic(copies, real_copies, sets))
    overall.append(_nearest(copies, real_copies, sets.fake.cases, seed))
    of_type = {
        name: _of_type(sets, features, {side: np.flatnonzero(of == i) for side, of in labels.items()}, seed)
        for i, name in enumerate(types)
        if labels and any((of == i).any() for of in labels.values())
    }
    test = tests["fake"]
    return EncoderFigures(
        encoder=encoder.name,
        small=encoder.small,
        dimensions=features.fake.shape[1],
        overall=overall,
        of_type=of_type,
        two_sample=test if isinstance(test, TwoSample) else None,
        copies=copies,
        realism=prdc(features.reference, features.fake, _k(features)).density,
        features=features,
    )


def distance_figure(name: str, distance: Distance, sets: Comparison, features: FeatureSets, seed: int) -> Figure:
    """A distance of synthetic from real features, its floor, and the difference of both, with intervals over cases."""

    def of_fake(real: np.ndarray, fake: np.ndarray) -> float:
        return distance(features.reference[real], features.fake[fake])

    def of_control(real: np.ndarray, control: np.ndarray) -> float:
        return distance(features.reference[real], features.control[control])

    return _figure_of(name, of_fake, of_control, sets, features, seed)


def frechet_figures(sets: Comparison, features: FeatureSets, seed: int, at_infinity: bool = True) -> list[Figure]:
    """The Fréchet distance, and its extrapolation to any number of images; a note where images are too few."""
    n, dimensions = min(len(features.reference), len(features.fake)), features.fake.shape[1]
    if reason := too_few(n, dimensions):
        return [Figure(name, n, note=reason) for name in (FRECHET, AT_INFINITY)[: 1 + at_infinity]]
    figures = [distance_figure(FRECHET, frechet_distance, sets, features, seed)]
    if not at_infinity:
        return figures
    needed = needed_at_infinity(dimensions)
    if n < needed:
        reason = f"not given: needs {needed} images per side for {dimensions} dimensions, got {n}"
        return [*figures, Figure(AT_INFINITY, n, note=reason)]
    keys = {
        side: draw_keys(len(getattr(features, side)), SIZES, seed + i)
        for i, side in enumerate(("reference", "fake", "control"))
    }

    def at(real: np.ndarray, side: str, other: np.ndarray) -> float:
        pair = features.reference[real], getattr(features, side)[other]
        return extrapolate(*pair, keys["reference"][:, real], keys[side][:, other]).distance

    return [
        *figures,
        _figure_of(AT_INFINITY, lambda r, f: at(r, "fake", f), lambda r, c: at(r, "control", c), sets, features, seed),
    ]


def prdc_figures(sets: Comparison, features: FeatureSets) -> list[Figure]:
    """Precision, recall, density and coverage, each with its interval over cases and its floor."""
    k = _k(features)
    found, floor = (prdc(features.reference, x, k) for x in (features.fake, features.control))
    figures = []
    for name, value in found.means().items():
        cases = sets.fake.cases if name in ("precision", "density") else sets.reference.cases
        values = getattr(found, name)
        if name == "density":  # counts, never negative and skewed
            low, high = positive_interval(value, mean_spread(values, cases))
        else:
            low, high = mean_interval(values, cases)
        figures.append(Figure(name, len(features.fake), value, low, high, floor.means()[name]))
    return figures


def _figure_of(
    name: str, of_fake: Distance, of_control: Distance, sets: Comparison, features: FeatureSets, seed: int
) -> Figure:
    """A figure from its statistics of indices of reference and fake, and of reference and control."""
    sides = (sets.reference.cases, sets.fake.cases, sets.control.cases)
    every = [np.arange(len(cases)) for cases in sides]
    value, floor = of_fake(every[0], every[1]), of_control(every[0], every[2])

    def gap(real: np.ndarray, fake: np.ndarray, control: np.ndarray) -> float:
        # What is whole need not be measured again.
        mine = value if len(real) == len(every[0]) and len(fake) == len(every[1]) else of_fake(real, fake)
        theirs = floor if len(real) == len(every[0]) and len(control) == len(every[2]) else of_control(real, control)
        return mine - theirs

    spread = statistic_spread(of_fake, *sides[:2], seed=seed)
    difference = t_interval(value - floor, statistic_spread(gap, *sides, seed=seed))
    n = min(len(features.reference), len(features.fake))
    return Figure(name, n, value, *t_interval(value, spread), floor, "", value - floor, *difference)


def _distances(sets: Comparison, features: FeatureSets, seed: int) -> list[Figure]:
    width = median_distance(features.reference)
    return [
        *frechet_figures(sets, features, seed),
        distance_figure(MIND, mind, sets, features, seed),
        distance_figure(KID, lambda a, b: 1000 * kid(a, b), sets, features, seed),
        distance_figure(MMD, lambda a, b: 1000 * mmd_rbf(a, b, width), sets, features, seed),
    ]


def num_neighbors(reference: int, fake: int) -> int:
    """How many nearest neighbors of an image count for sets of so many images: fewer where a set has no more."""
    return min(NEIGHBORS, reference - 1, fake - 1)


def _k(features: FeatureSets) -> int:
    return num_neighbors(len(features.reference), len(features.fake))


def _c2st(sets: Comparison, features: FeatureSets, other: str, seed: int) -> TwoSample | str:
    try:
        return c2st(
            features.reference, getattr(features, other), sets.reference.cases, getattr(sets, other).cases, seed=seed
        )
    except InputError as error:
        return f"not given: {error}"


def _two_sample_figure(tests: dict[str, TwoSample | str], n: int) -> Figure:
    fake, control = tests["fake"], tests["control"]
    if isinstance(fake, str):
        return Figure("C2ST accuracy", n, note=fake)
    if isinstance(control, str):
        return Figure("C2ST accuracy", n, fake.accuracy, fake.low, fake.high, note=f"no floor: {control}")
    return Figure("C2ST accuracy", n, fake.accuracy, fake.low, fake.high, control.accuracy)


def _authentic(copies: Authenticity, real_copies: Authenticity, sets: Comparison) -> Figure:
    """AuthPct, and its difference from that of unseen real images with an interval from those of both (MOVER;
    Zou and Donner 2008)."""
    unseen = getattr(sets, sets.unseen)
    low, high = mean_interval(copies.authentic.astype(float), sets.fake.cases)
    floor_low, floor_high = mean_interval(real_copies.authentic.astype(float), unseen.cases)
    value, floor = copies.percent / 100, real_copies.percent / 100
    least = value - floor - float(np.hypot(value - low, floor_high - floor))
    most = value - floor + float(np.hypot(high - value, floor - floor_low))
    return Figure(
        "AuthPct", len(copies.authentic), copies.percent, 100 * low, 100 * high, real_copies.percent,
        difference=100 * (value - floor), difference_low=100 * least, difference_high=100 * most,
    )  # fmt: skip


def _nearest(copies: Authenticity, real_copies: Authenticity, cases: list[str], seed: int) -> Figure:
    low, high = median_interval(copies.distance, cases, seed=seed)
    values = copies.median_distance, low, high, real_copies.median_distance
    return Figure("nearest training image", len(copies.distance), *values)


def _of_type(sets: Comparison, features: FeatureSets, at: dict[str, np.ndarray], seed: int) -> list[Figure]:
    number = min(len(at[side]) for side in ("reference", "control", "fake"))
    if number < 10:
        counts = ", ".join(f"{len(of)} {side}" for side, of in at.items())
        return [Figure("all figures", len(at["fake"]), note=f"not given: too few patches of this type ({counts})")]
    equal, rng = min(len(at["control"]), len(at["fake"])), np.random.default_rng(seed)
    for side in ("control", "fake"):  # as many images of both, of as many cases as there are
        cases = getattr(sets, side).cases
        at = at | {side: at[side][spread_over_cases([cases[i] for i in at[side].tolist()], equal, rng)]}
    chosen = {side: getattr(sets, side).select(of) for side, of in at.items()}
    part = replace(sets, **chosen, notes=())
    own = FeatureSets(*(getattr(features, side)[of] for side, of in at.items()), train=features.train)
    return [f for f in _distances(part, own, seed) if f.name != AT_INFINITY] + prdc_figures(part, own)
