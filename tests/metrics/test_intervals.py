"""Intervals over cases: closed forms, what they cover, and an answer that others have computed."""

import csv
import json
import math
from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import t

from histoloom.errors import InputError
from histoloom.metrics.copying import wilson_interval
from histoloom.metrics.intervals import (
    MIN_CASES,
    Spread,
    bounded_interval,
    case_counts,
    case_groups,
    mean_interval,
    median_interval,
    positive_interval,
    share_interval,
    statistic_interval,
    statistic_spread,
    t_interval,
    two_factor_spread,
)


def names(number: int, times: int = 1) -> list[str]:
    return np.repeat([f"case {i}" for i in range(number)], times).tolist()


def test_images_of_one_case_are_drawn_together():
    counts = case_counts(["a", "b", "a", "c"], 50, seed=0)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    np.testing.assert_array_equal(counts[:, 0] + counts[:, 1] + counts[:, 3], 3)


@pytest.mark.parametrize("number", [5, 12, 400])
def test_with_equally_many_images_per_case_the_interval_of_a_mean_is_students(number):
    of_case = np.random.default_rng(0).standard_normal(number)
    half = t.ppf(0.975, number - 1) * of_case.std(ddof=1) / number**0.5
    expected = (of_case.mean() - half, of_case.mean() + half)
    assert mean_interval(of_case, names(number)) == pytest.approx(expected)
    assert mean_interval(np.repeat(of_case, 3), names(number, 3)) == pytest.approx(expected)  # copies add nothing


def test_a_share_of_independent_images_has_wilsons_interval_but_for_students_quantile():
    hits = np.repeat([1.0, 0.0], [160, 40])
    low, high = mean_interval(hits, names(200))
    assert (low, high) == pytest.approx(wilson_interval(160, 200), abs=0.002)


def test_a_share_of_all_or_nothing_still_has_a_width():
    low, high = mean_interval(np.ones(60), names(6, 10))
    assert 0.8 < low < 0.95
    assert high == 1
    assert mean_interval(np.zeros(60), names(6, 10)) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize("number", [1, 2, 4])
def test_fewer_than_five_cases_give_no_interval(number):
    cases = names(number, 10)
    values = np.random.default_rng(0).random(len(cases))
    other = names(20)
    for low, high in (
        mean_interval(values, cases),
        median_interval(values, cases),
        statistic_interval(lambda a, b: values[a].mean() - b.mean(), cases, other),
        statistic_interval(lambda a, b: a.mean() - values[b].mean(), other, cases),
    ):
        assert np.isnan(low) and np.isnan(high)  # noqa: PT018 (one statement)


def coverage(draw, interval, truth: float, times: int = 1200) -> float:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(times):
        low, high = interval(*draw(rng))
        covered += low <= truth <= high
    return covered / times


def draw_cases(rng: np.random.Generator, number: int) -> np.ndarray:
    return np.repeat(np.arange(number), rng.integers(2, 18, number))


@pytest.mark.parametrize("number", [5, 10, 20, 50])
def test_95_percent_intervals_cover_the_truth_at_5_to_50_cases_of_uneven_size(number):
    def normal(rng):
        cases = draw_cases(rng, number)
        return rng.standard_normal(number)[cases] + rng.standard_normal(len(cases)), cases

    def hits(rng):
        cases = draw_cases(rng, number)
        return (rng.random(len(cases)) < rng.beta(3.2, 0.8, number)[cases]).astype(float), cases

    assert 0.93 <= coverage(normal, mean_interval, 0.0) <= 0.97
    assert 0.93 <= coverage(hits, mean_interval, 0.8) <= (0.97 if number > 5 else 0.99)

    def many(rng):  # images per case, and few misses: cases look more alike than they are
        cases = np.repeat(np.arange(number), 100)
        return (rng.random(len(cases)) < rng.beta(3.92, 0.08, number)[cases]).astype(float), cases

    assert coverage(many, mean_interval, 0.98, 500) >= 0.85

    def shift(values, cases):
        half = number // 2
        real, fake = values[cases < half], values[cases >= half]
        sides = cases[cases < half], cases[cases >= half]
        return statistic_interval(lambda r, f: fake[f].mean() - real[r].mean(), *sides)

    if number >= 10:
        assert 0.93 <= coverage(normal, shift, 0.0, 500) <= 0.975


def test_skewed_values_that_are_never_negative_have_an_interval_on_their_logarithm():
    def counts(rng):
        cases = draw_cases(rng, 10)
        return rng.poisson(5 * rng.gamma(4, 1 / 4, 10)[cases]) / 5, cases

    def interval(values, cases):
        spread = statistic_spread(lambda at: values[at].mean(), cases)
        low, high = positive_interval(values.mean(), spread)
        assert low * high == pytest.approx(values.mean() ** 2)
        return low, high

    assert 0.925 <= coverage(counts, interval, 1.0) <= 0.97


def test_intervals_of_bounded_figures_stay_in_their_bounds():
    for interval in (bounded_interval(0.97, Spread(0.04, 4.0)), share_interval(0.97, Spread(0.04, 4.0), 100)):
        assert 0 < interval[0] < 0.97 < interval[1] < 1
    assert bounded_interval(0.5, Spread(0.01, 400.0)) == pytest.approx(t_interval(0.5, Spread(0.01, 400.0)), abs=1e-3)
    assert bounded_interval(0.6, Spread(0.0, 4.0)) == pytest.approx((0.6, 0.6))
    assert bounded_interval(1e-9, Spread(0.5, 4.0))[1] == pytest.approx(1)


def test_the_interval_of_a_median_of_normal_draws_is_a_quarter_wider_than_that_of_their_mean():
    values = np.random.default_rng(0).standard_normal(1600)
    low, high = median_interval(values, [str(i) for i in range(1600)], draws=2000)
    assert low < np.median(values) < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 2) / 40, rel=0.2)
    twice = median_interval(np.repeat(values[:40], 3), np.repeat(np.arange(40).astype(str), 3).tolist())
    assert twice == median_interval(values[:40], np.arange(40).astype(str).tolist())


def test_one_case_per_value_is_asked_for():
    with pytest.raises(InputError, match="need one case per image; got 3 cases for 40 images"):
        mean_interval(np.zeros(40), ["a", "b", "c"])


def test_the_interval_of_a_statistic_of_two_sides_is_as_wide_as_both_scatter():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal(300), rng.standard_normal(300) + 1
    low, high = statistic_interval(lambda r, f: float(fake[f].mean() - real[r].mean()), names(300), names(300))
    gap, error = fake.mean() - real.mean(), np.sqrt(real.var() / 300 + fake.var() / 300)
    assert (low, high) == pytest.approx((gap - 1.96 * error, gap + 1.96 * error), abs=0.6 * error)


def test_a_spread_of_which_a_part_is_unknown_is_unknown():
    """Without one of its cases, a statistic of the first side has no value: the other side says nothing of that."""
    cases = [str(i) for i in range(8)]
    low, high = statistic_interval(lambda a, b: float(b.mean()) if 3 in a else math.nan, cases, cases)
    assert math.isnan(low)
    assert math.isnan(high)
    assert Spread(3.0, 4.0).plus(Spread(4.0, 9.0)).error == 5.0
    assert math.isnan(Spread(3.0, 4.0).plus(Spread(math.nan, 0.0)).error)


def test_many_cases_are_left_out_in_groups_of_about_equal_size():
    cases = draw_cases(np.random.default_rng(0), 200)
    groups = case_groups(cases, 25)
    sizes = np.bincount(groups)
    assert len(sizes) == 25
    assert np.ptp(sizes) <= 2
    assert all(len(set(groups[cases == case])) == 1 for case in range(200))
    assert case_groups(["b", "a", "b"]).tolist() == [1, 0, 1]


def test_readers_and_cases_vary_as_the_fdas_imrmc_finds(shared_data):
    """Five readers, 40 + 40 cases, two modalities: AUC of each, and their difference."""
    with open(shared_data / "mrmc" / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = {row["case"]: float(row["score"]) for row in rows if row["reader"] == "truth"}
    scores = defaultdict(dict)
    for row in rows:
        if row["reader"] != "truth":
            scores[row["modality"], row["reader"]][row["case"]] = float(row["score"])
    cases = sorted(truth)
    ill = np.array([truth[case] == 1 for case in cases])

    def auc(of: np.ndarray, at: np.ndarray) -> float:
        gaps = of[at & ill][:, None] - of[at & ~ill]
        return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())

    everyone = np.ones(len(cases), bool)
    without = [everyone & (np.arange(len(cases)) != i) for i in range(len(cases))]
    found = {}
    for modality in ("testA", "testB"):
        read = [np.array([scores[modality, f"reader{r}"][case] for case in cases]) for r in range(1, 6)]
        left_out = np.array([[auc(of, at) for at in without] for of in read])
        found[modality] = np.array([auc(of, everyone) for of in read]), left_out
    found["difference"] = tuple(a - b for a, b in zip(found["testA"], found["testB"], strict=True))
    expected = json.loads((shared_data / "mrmc" / "expected.json").read_text())["Ustat"]
    for (estimates, left_out), known in zip(found.values(), expected, strict=True):
        mean = known["AUCA"] if known["AUCAminusAUCB"] is None else known["AUCAminusAUCB"]
        variance = known["varAUCA"] if known["AUCAminusAUCB"] is None else known["varAUCAminusAUCB"]
        spread = two_factor_spread(estimates, left_out)
        assert estimates.mean() == pytest.approx(mean)
        assert variance < spread.error**2 < 1.13 * variance
        interval = t_interval(mean, spread)
        assert interval == pytest.approx((known["botCIHillis"], known["topCIHillis"]), abs=0.01)


def test_one_reader_alone_adds_nothing_to_the_spread_of_cases():
    values = np.random.default_rng(0).standard_normal(12)
    without = (values.sum() - values) / 11
    spread = two_factor_spread(np.array([values.mean()]), without[None])
    assert t_interval(values.mean(), spread) == pytest.approx(mean_interval(values, names(12)))
    assert spread.freedom == 11 >= MIN_CASES
