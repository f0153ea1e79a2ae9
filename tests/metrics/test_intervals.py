import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.intervals import (
    case_counts,
    halves_by_case,
    mean_interval,
    median_interval,
    statistic_interval,
)


def test_images_of_one_case_are_drawn_together():
    counts = case_counts(["a", "b", "a", "c"], 50, seed=0)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    np.testing.assert_array_equal(counts[:, 0] + counts[:, 1] + counts[:, 3], 3)


def test_with_one_image_a_case_the_interval_is_that_of_the_central_limit():
    values = np.random.default_rng(0).standard_normal(400)
    low, high = mean_interval(values, [str(i) for i in range(400)], draws=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_the_interval_of_a_median_of_normal_draws_is_a_quarter_wider_than_that_of_their_mean():
    values = np.random.default_rng(0).standard_normal(1600)
    low, high = median_interval(values, [str(i) for i in range(1600)], draws=2000)
    assert low < np.median(values) < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(np.pi / 2) / 40, rel=0.2)
    twice = median_interval(np.repeat(values[:40], 3), np.repeat(np.arange(40).astype(str), 3).tolist())
    assert twice == median_interval(values[:40], np.arange(40).astype(str).tolist())


def test_copies_of_an_image_in_one_case_make_nobody_surer():
    values, cases = np.random.default_rng(0).standard_normal(40), [str(i) for i in range(40)]
    once = mean_interval(values, cases, seed=1)
    assert mean_interval(np.repeat(values, 5), np.repeat(cases, 5).tolist(), seed=1) == pytest.approx(once)
    with pytest.raises(InputError, match="3 cases for 40 images"):
        mean_interval(values, ["a", "b", "c"])


def test_the_interval_of_a_statistic_of_two_sides_is_as_wide_as_both_scatter():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal(300), rng.standard_normal(300) + 1
    names = [str(i) for i in range(300)]
    low, high = statistic_interval(lambda r, f: float(fake[f].mean() - real[r].mean()), names, names, draws=400)
    gap, error = fake.mean() - real.mean(), np.sqrt(real.var() / 300 + fake.var() / 300)
    assert (low, high) == pytest.approx((gap - 1.96 * error, gap + 1.96 * error), abs=0.2 * error)


def test_halves_share_no_case_and_are_about_equal():
    cases = [f"case {i % 17}" for i in range(200)]
    left, right = halves_by_case(cases, seed=3)
    assert sorted([*left, *right]) == list(range(200))
    assert {cases[i] for i in left}.isdisjoint(cases[i] for i in right)
    assert abs(len(left) - len(right)) <= 12
    with pytest.raises(InputError, match="of one case"):
        halves_by_case(["a", "a"])
