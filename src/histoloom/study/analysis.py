"""Every figure of a reader study, from its readings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest

from histoloom.errors import InputError
from histoloom.readers.accuracy import Share, exact_share, reader_shares
from histoloom.readers.agreement import fleiss_kappa, krippendorff_alpha
from histoloom.readers.anova import obuchowski_rockette
from histoloom.readers.equivalence import Answer, answer
from histoloom.readers.u_statistics import Estimate, one_shot, reader_estimates, successes
from histoloom.study.answers import BEST, RATINGS, STEPS
from histoloom.study.plan import CONTROL, DECODED, REAL, SYNTHETIC
from histoloom.study.readings import Readings, num_missing, repeated
from histoloom.text import counted

MIDDLE = (STEPS + 1) / 2  # scores above it call an item synthetic, or a side right
NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Figure:
    """A figure of one reader, or of all, with its 95 % interval; nan where the answers do not show it."""

    scope: str  # all, or a tissue
    name: str
    reader: str  # a reader, or `mean of readers`
    value: float
    low: float
    high: float
    n: int  # items
    p: float = float("nan")  # of the hypothesis of chance
    variance: float = float("nan")  # with readers and items random; of one reader, with items random


@dataclass(frozen=True)
class Analysis:
    """The figures of a study, and its answer by the margin."""

    margin: float
    answer: Answer
    auc: Figure  # what decides
    figures: list[Figure]
    kappa: float
    alpha: float
    notes: list[str]


def analyze(readings: Readings, margin: float) -> Analysis:
    """All figures; readers who have answered no main item are left out and noted.

    Raises InputError where no reader has answered a real and a synthetic item.
    """
    used = readings.where(SYNTHETIC) if readings.is_pairs else readings.where(REAL, SYNTHETIC)
    began = np.asarray((~np.isnan(readings.scores[:, used])).any(axis=1))
    if not began.any():
        raise InputError("no reader has answered an item yet; report when they have")
    absent = [reader for reader, has in zip(readings.readers, began, strict=True) if not has]
    here = readings.select(began)
    auc = _auc(here, SYNTHETIC, "AUC")
    figures = [auc, *_by_variance_analysis(here), *_per_reader(here), *_controls(here), *_repeats(here)]
    figures += [] if here.is_pairs else _ratings(here)
    tissues = sorted({tissue for tissue, at in zip(here.tissues, used, strict=True) if at})
    figures += [_auc(here, SYNTHETIC, "AUC", tissue) for tissue in tissues] if len(tissues) > 1 else []
    called, agreed = here.scores[:, used], ~np.isnan(here.scores[:, used]).any(axis=0)
    kappa = fleiss_kappa(called[:, agreed] > MIDDLE)
    verdict = answer((auc.low, auc.high), margin)
    return Analysis(margin, verdict, auc, figures, kappa, krippendorff_alpha(called), _notes(here, absent, used))


def success_of(readings: Readings, kind: str, tissue: str | None = None) -> Float[np.ndarray, "r *cases"]:
    """Successes of readers in telling `kind` from real images: by pairs of items, or by items that are pairs."""
    if readings.is_pairs:
        scores = readings.scores[:, readings.where(kind, tissue=tissue)]
        return np.where(np.isnan(scores), np.nan, scores > MIDDLE)
    at = readings.where(REAL, kind, tissue=tissue)
    positive = np.array(readings.kinds)[at] == kind
    return successes(readings.scores[:, at], positive)


def _auc(readings: Readings, kind: str, name: str, tissue: str | None = None) -> Figure:
    at = readings.where(kind, tissue=tissue) if readings.is_pairs else readings.where(REAL, kind, tissue=tissue)
    scope = "all" if tissue is None else tissue
    try:
        success = success_of(readings, kind, tissue)
        estimate = _estimate(success)
    except InputError:  # too few items
        success, estimate = np.empty((0, 0)), NOTHING
    return _figure(scope, name, "mean of readers", estimate, success, int(at.sum()))


def _estimate(success: Float[np.ndarray, "r *cases"]) -> Estimate:
    """With readers random where there are several."""
    return reader_estimates(success)[0] if len(success) == 1 else one_shot(success)


def _by_variance_analysis(readings: Readings) -> list[Figure]:
    """The AUC by Obuchowski-Rockette, on the items that every reader has answered."""
    if readings.is_pairs or len(readings.readers) < 2:
        return []
    at = readings.where(REAL, SYNTHETIC) & ~np.isnan(readings.scores).any(axis=0)
    is_synthetic = np.array(readings.kinds)[at] == SYNTHETIC
    if min(is_synthetic.sum(), (~is_synthetic).sum()) < 2:
        return []
    success = successes(readings.scores[:, at], is_synthetic)
    estimate = obuchowski_rockette(success).estimate
    return [_figure("all", "AUC by Obuchowski-Rockette", "mean of readers", estimate, success, int(at.sum()))]


def _per_reader(readings: Readings) -> list[Figure]:
    success, figures = success_of(readings, SYNTHETIC), []
    at = readings.where(SYNTHETIC) if readings.is_pairs else readings.where(REAL, SYNTHETIC)
    is_synthetic = np.array(readings.kinds)[at] == SYNTHETIC
    estimates = reader_estimates(success)
    for r, (reader, scores, estimate) in enumerate(
        zip(readings.readers, readings.scores[:, at], estimates, strict=True)
    ):
        given = ~np.isnan(scores)
        figures.append(_figure("all", "AUC", reader, estimate, success[r : r + 1], int(given.sum())))
        called = scores[given] > MIDDLE
        if readings.is_pairs:
            figures.append(_share("accuracy", reader, exact_share(called)))
        else:
            shares = reader_shares(called, is_synthetic[given]).items()
            figures += [_share(name, reader, share) for name, share in shares]
    right = np.where(np.isnan(readings.scores[:, at]), np.nan, (readings.scores[:, at] > MIDDLE) == is_synthetic)
    if not readings.is_pairs:
        figures.append(_mean("accuracy", right))
        figures.append(_mean("sensitivity", right[:, is_synthetic]))
        figures.append(_mean("specificity", right[:, ~is_synthetic]))
    return figures


def _controls(readings: Readings) -> list[Figure]:
    control = "left side chosen of two real images" if readings.is_pairs else "AUC of real images against real images"
    names = {CONTROL: control, DECODED: "AUC of decoded real images"}
    return [_auc(readings, kind, name) for kind, name in names.items() if readings.where(kind).any()]


def _repeats(readings: Readings) -> list[Figure]:
    """The share of repeated items of which a reader said the same, real or synthetic."""
    first, second = repeated(readings)
    both = ~np.isnan(first + second)
    same = (first > MIDDLE) == (second > MIDDLE)
    if not both.any():
        return []
    name, rows = "repeats judged alike", zip(readings.readers, same, both, strict=True)
    figures = [_share(name, reader, exact_share(alike[given])) for reader, alike, given in rows]
    return [*figures, _mean(name, np.where(both, same, np.nan))]


def _ratings(readings: Readings) -> list[Figure]:
    """For each rating the chance that a real item is rated above a synthetic one, ties as half: the rank test of Mann
    and Whitney with readers and items random; and the mean ratings of both."""
    at = readings.where(REAL, SYNTHETIC)
    is_real = np.array(readings.kinds)[at] == REAL
    figures = []
    for number, name in enumerate(RATINGS):
        given = readings.ratings[:, at, number]
        title = f"{name}: real rated above synthetic"
        figures.append(_figure("all", title, "mean of readers", *_try(given, is_real), len(is_real)))
        figures.append(_mean(f"{name}: mean of real", given[:, is_real], (1.0, float(BEST))))
        figures.append(_mean(f"{name}: mean of synthetic", given[:, ~is_real], (1.0, float(BEST))))
    return figures


def _try(scores: Float[np.ndarray, "r n"], positive: Bool[np.ndarray, " n"]) -> tuple[Estimate, np.ndarray]:
    """The estimate and the successes that it is of."""
    try:
        success = successes(scores, positive)
        return _estimate(success), success
    except InputError:
        return NOTHING, np.empty((0, 0))


def _mean(name: str, values: Float[np.ndarray, "r n"], ends: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """A mean over readers and items, both random, of values between `ends`."""
    enough = min(values.shape) > (0 if len(values) == 1 else 1)
    estimate = _estimate(values) if enough and not np.isnan(values).all() else NOTHING
    unanimous = _unanimous(values) if ends == (0.0, 1.0) else None
    low, high = (unanimous.low, unanimous.high) if unanimous else _within(estimate.interval(), ends)
    return Figure(
        "all", name, "mean of readers", estimate.value, low, high, values.shape[1], variance=estimate.variance
    )


def _figure(
    scope: str, name: str, reader: str, estimate: Estimate, success: Float[np.ndarray, "r *cases"], n: int
) -> Figure:
    if (share := _unanimous(success)) is not None:
        p = float(binomtest(share.count, share.n).pvalue)
        return Figure(scope, name, reader, estimate.value, share.low, share.high, n, p, estimate.variance)
    low, high = _within(estimate.interval(), (0.0, 1.0))
    return Figure(scope, name, reader, estimate.value, low, high, n, estimate.p_value(0.5), estimate.variance)


def _unanimous(success: Float[np.ndarray, "r *cases"]) -> Share | None:
    """Where every success is 1, or every one 0, the variance is 0 and has no interval: the exact one over as many
    comparisons as share no case."""
    given = ~np.isnan(success)
    values = np.unique(success[given])
    if len(values) != 1 or values[0] not in (0, 1):
        return None
    apart = min(len(np.unique(places)) for places in np.nonzero(given)[1:])
    return exact_share(np.full(apart, values[0] == 1))


def _within(interval: tuple[float, float], ends: tuple[float, float]) -> tuple[float, float]:
    low, high = np.clip(interval, *ends).tolist()  # nan stays nan
    return low, high


def _share(name: str, reader: str, share: Share) -> Figure:
    return Figure("all", name, reader, share.value, share.low, share.high, share.n)


def _notes(readings: Readings, absent: list[str], used: Bool[np.ndarray, " n"]) -> list[str]:
    missing = {reader: number for reader, number in num_missing(readings).items() if number}
    notes = [f"{reader} has answered no item that counts, and is left out" for reader in absent]
    notes += [f"{reader} has not answered {counted(number, 'item')}" for reader, number in missing.items()]
    if len(readings.readers) < 2:
        notes.append("one reader: intervals are over items, and say nothing of other readers")
    cases = {case for case, at in zip(readings.cases, used, strict=True) if at}
    if len(cases) < int(used.sum()):
        notes.append(
            f"{int(used.sum())} items show {counted(len(cases), 'case')}; intervals count items as independent"
        )
    return notes
