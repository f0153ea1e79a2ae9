"""Map fidelity: every figure against a closed form or a count made pixel by pixel."""

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.map_fidelity import (
    cases_of_types,
    confusion,
    dice,
    iou,
    mean_iou_interval,
    mean_over_present,
    mean_over_types,
    merge_types,
)
from histoloom.tissue import UNLABELLED


def random_maps(n: int = 6, types: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, types, (n, 12, 12), dtype=np.uint8)
    predicted = np.where(
        rng.random(reference.shape) < 0.6, reference, rng.integers(0, types, reference.shape, dtype=np.uint8)
    )
    return predicted.astype(np.uint8), reference


def test_iou_and_dice_equal_those_counted_on_sets_of_pixels():
    predicted, reference = random_maps()
    counts = confusion(predicted, reference, 4).sum(axis=0)
    for kind in range(4):
        said, asked = predicted == kind, reference == kind
        both = (said & asked).sum()
        assert iou(counts)[kind] == pytest.approx(both / (said | asked).sum())
        assert dice(counts)[kind] == pytest.approx(2 * both / (said.sum() + asked.sum()))


def test_dice_is_twice_iou_over_one_plus_iou():
    counts = confusion(*random_maps(seed=1), 4).sum(axis=0)
    assert np.allclose(dice(counts), 2 * iou(counts) / (1 + iou(counts)))


def test_a_perfect_reading_scores_one_and_a_permuted_one_zero():
    _, reference = random_maps()
    assert iou(confusion(reference, reference, 4).sum(axis=0)).tolist() == [1, 1, 1, 1]
    assert iou(confusion((reference + 1) % 4, reference, 4).sum(axis=0)).tolist() == [0, 0, 0, 0]


def test_unlabelled_pixels_of_the_reference_do_not_count():
    predicted, reference = random_maps()
    full = confusion(predicted, reference, 4)
    blanked = reference.copy()
    blanked[:, :3] = UNLABELLED
    assert confusion(predicted, blanked, 4).sum() == full.sum() * 9 / 12
    assert np.array_equal(confusion(predicted[:, 3:], reference[:, 3:], 4), confusion(predicted, blanked, 4))


def test_the_mean_is_over_the_types_that_the_reference_contains():
    reference = np.zeros((1, 4, 4), np.uint8)
    reference[:, 2:] = 1
    predicted = reference.copy()
    predicted[:, 3] = 2  # type 2 is not in the reference: it costs type 1 its pixels, and gets no row of its own
    values = iou(confusion(predicted, reference, 4).sum(axis=0))
    assert np.array_equal(values, [1, 0.5, np.nan, np.nan], equal_nan=True)
    assert mean_over_present(values) == 0.75
    assert np.isnan(mean_over_present(np.full(3, np.nan)))


def test_merging_types_equals_counting_on_merged_maps():
    predicted, reference = random_maps()
    merged = merge_types(confusion(predicted, reference, 4), [[0], [1, 2, 3]])
    assert np.array_equal(merged, confusion(predicted.clip(max=1), reference.clip(max=1), 2))


def test_a_type_in_two_groups_is_refused():
    with pytest.raises(InputError, match="twice"):
        merge_types(np.zeros((3, 3), np.int64), [[0, 1], [1, 2]])


def test_an_id_beyond_the_types_is_refused_by_name():
    predicted, reference = random_maps()
    with pytest.raises(InputError, match="predicted maps hold tissue id 3"):
        confusion(predicted, reference.clip(max=2), 3)
    with pytest.raises(InputError, match="reference maps hold tissue id 3"):
        confusion(predicted.clip(max=2), reference, 3)


def test_the_interval_holds_the_figure_and_has_no_width_when_every_case_reads_alike():
    predicted, reference = random_maps(n=24)
    counts = confusion(predicted, reference, 4)
    low, high = mean_iou_interval(counts, [f"case {i % 8}" for i in range(24)])
    assert low < mean_over_present(iou(counts.sum(axis=0))) < high
    same = np.repeat(counts[:1], 6, axis=0)
    assert np.ptp(mean_iou_interval(same, list("abcdef"))) == pytest.approx(0)


def test_drawing_cases_not_patches_widens_the_interval():
    predicted, reference = random_maps(n=8)
    counts = np.repeat(confusion(predicted, reference, 4), 6, axis=0)
    by_patch = mean_iou_interval(counts, [str(i) for i in range(48)])
    by_case = mean_iou_interval(counts, [str(i // 6) for i in range(48)])
    assert np.ptp(by_case) > 1.8 * np.ptp(by_patch)


def test_one_case_per_image_is_asked_for():
    with pytest.raises(InputError, match="one case per image"):
        mean_iou_interval(np.zeros((3, 2, 2), np.int64), ["a"])


def test_maps_without_a_label_and_too_few_cases_have_no_interval():
    nothing = np.zeros((6, 3, 3), np.int64)
    assert np.isnan(mean_iou_interval(nothing, list("abcdef"))).all()
    assert np.isnan(mean_iou_interval(nothing[:0], [])).all()
    counts = confusion(*random_maps(n=24), 4)
    assert np.isnan(mean_iou_interval(counts, list("abcd") * 6)).all()


def test_the_mean_is_over_the_same_types_in_every_part_of_the_interval():
    rng = np.random.default_rng(0)
    counts = np.zeros((12, 3, 3), np.int64)
    counts[:, :2, :2] = rng.integers(1, 50, (12, 2, 2))
    counts[0, 2, 2] = 30  # one case alone shows type 2, and all of it is found
    cases = [f"case {i}" for i in range(12)]
    value = mean_over_present(iou(counts.sum(axis=0)))
    low, high = mean_iou_interval(counts, cases)
    assert low < value < high
    assert value - low < 0.2  # type 2 does not come and go
    assert cases_of_types(counts, cases).tolist() == [12, 12, 1]
    two = np.array([True, True, False])
    low, high = mean_iou_interval(counts, cases, types=two)
    assert low < mean_over_types(iou(counts.sum(axis=0)), two) < high < value
    assert np.isnan(mean_over_types(iou(counts.sum(axis=0)), np.zeros(3, bool)))
