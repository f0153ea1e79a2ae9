import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.two_sample import c2st


def cloud(seed: int, n: int = 150, shift: float = 0.0) -> tuple[np.ndarray, list[str]]:
    features = np.random.default_rng(seed).standard_normal((n, 4))
    features[:, 0] += shift
    return features, [f"{seed}-{i // 3}" for i in range(n)]


def test_what_cannot_be_told_apart_scores_half_within_its_interval():
    (real, real_cases), (fake, fake_cases) = cloud(0), cloud(1)
    test = c2st(real, fake, real_cases, fake_cases)
    assert test.low < 0.5 < test.high
    assert test.n == 300


def test_two_gaussians_are_told_apart_as_well_as_the_best_rule_does():
    (real, real_cases), (fake, fake_cases) = cloud(0, 1500), cloud(1, 1500, shift=2.0)
    best = 0.8413  # the normal distribution function at half the shift
    test = c2st(real, fake, real_cases, fake_cases)
    assert test.accuracy == pytest.approx(best, abs=0.02)
    assert test.low < best < test.high
    assert test.fake_scores.mean() > test.real_scores.mean()


def test_a_small_side_weighs_as_much_as_a_large_one():
    (real, real_cases), (fake, fake_cases) = cloud(0, 600), cloud(1, 60)
    assert c2st(real, fake, real_cases, fake_cases).accuracy == pytest.approx(0.5, abs=0.12)


def test_the_mark_of_a_case_is_no_proof_of_being_fake():
    rng = np.random.default_rng(0)
    marks = {f"case {i}": 6 * rng.standard_normal(4) for i in range(40)}
    cases = [f"case {i % 40}" for i in range(400)]
    real, fake = (np.stack([marks[c] for c in cases]) + rng.standard_normal((400, 4)) for _ in range(2))
    test = c2st(real[:200], fake[200:], cases[:200], cases[200:])
    assert test.low < 0.5 < test.high


def test_too_few_cases_for_the_folds_are_refused():
    (real, real_cases), (fake, _) = cloud(0), cloud(1)
    with pytest.raises(InputError, match="need at least 5 fake cases for 5 folds by case; got 1"):
        c2st(real, fake, real_cases, ["one"] * len(fake))
    with pytest.raises(InputError, match="need one case per image; got 2 cases for 150 real images"):
        c2st(real, fake, ["a", "b"], ["one"] * len(fake))
