import numpy as np
import pytest

from histoloom.errors import ConfigError, InputError
from histoloom.patches.split import check_split, hold_out, split_by_case

CASES = [f"case-{index % 37}" for index in range(1000)] + ["large"] * 150


def test_a_case_is_on_one_side_only():
    check_split(CASES, split_by_case(CASES, 0.15, seed=0))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_share_held_out_is_the_share_asked_for_to_within_half_a_case(share, seed):
    assert hold_out(CASES, share, seed).mean() == pytest.approx(share, abs=15 / len(CASES))


def test_the_same_seed_gives_the_same_split_in_any_order_of_rows():
    order = np.random.default_rng(0).permutation(len(CASES))
    held = hold_out(CASES, 0.2, seed=3)
    np.testing.assert_array_equal(hold_out([CASES[i] for i in order], 0.2, seed=3), held[order])
    assert (hold_out(CASES, 0.2, seed=4) != held).any()


def test_the_draw_is_fixed_for_good():
    cases = [f"p{index}" for index in range(10)]
    assert [case for case, held in zip(cases, hold_out(cases, 0.3, seed=0), strict=True) if held] == ["p2", "p4", "p7"]


def test_weights_count_a_row_as_several_patches():
    cases, weights = ["a", "b", "c", "d"], [50, 10, 20, 20]
    rows = [case for case, weight in zip(cases, weights, strict=True) for _ in range(weight)]
    for seed in range(5):
        weighted = hold_out(cases, 0.3, seed, weights)
        assert {c for c, held in zip(cases, weighted, strict=True) if held} == {
            c for c, held in zip(rows, hold_out(rows, 0.3, seed), strict=True) if held
        }


def test_a_case_without_patches_is_not_what_is_held_out():
    for seed in range(8):
        assert not hold_out(["a", "b", "c"], 0.4, seed, [0, 5, 5])[0]
    assert not hold_out(["a", "b"], 0.4, 0, [0, 5]).any()


def test_both_sides_hold_at_least_one_case():
    for share in (0.01, 0.99):
        assert 0 < hold_out(["a", "a", "a", "b", "b"], share, seed=0).sum() < 5


def test_a_share_of_zero_holds_nothing_out_even_of_one_case():
    assert not hold_out(["a", "a"], 0.0, seed=0).any()


def test_a_single_case_cannot_be_split():
    with pytest.raises(InputError, match=r"one case \('a'\).*--case-pattern"):
        split_by_case(["a", "a"], 0.5, seed=0)


def test_a_share_outside_zero_to_one_is_refused():
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        hold_out(["a", "b"], 1.5, seed=0)


def test_a_case_on_two_sides_is_named():
    with pytest.raises(InputError, match=r"case 'b' is in 'train' and in 'val'"):
        check_split(["a", "b", "b"], ["train", "train", "val"])
