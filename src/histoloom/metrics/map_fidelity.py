"""Is the tissue where the map says? IoU and Dice of the map that a segmenter reads against the map that was given.

Everything is counted in one confusion matrix per image. "Mean IoU" here is always: pixels pooled over all images, then
one IoU per type, then the mean over types: those that the reference maps contain, or a given set. Unlabeled pixels
(255) of the reference do not count.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from histoloom.errors import InputError
from histoloom.metrics.intervals import MIN_CASES, NO_INTERVAL, Cases, bounded_interval, two_factor_spread

UNLABELED = 255  # id of pixels without a label


def confusion(
    predicted: UInt8[np.ndarray, "n h w"], reference: UInt8[np.ndarray, "n h w"], num_types: int
) -> Int[np.ndarray, "n k k"]:
    """Pixels per image of reference type i (row) read as type j (column); pixels whose reference is 255 do not count.

    Raises InputError for an id of `num_types` or more.
    """
    labeled = reference != UNLABELED
    for name, ids in (("predicted", predicted[labeled]), ("reference", reference[labeled])):
        if ids.size and ids.max() >= num_types:
            raise InputError(f"the {name} maps hold tissue id {ids.max()}, but there are only {num_types} types")
    cells = num_types * reference.astype(np.int64) + predicted
    counts = [np.bincount(c[m], minlength=num_types**2) for c, m in zip(cells, labeled, strict=True)]
    return np.asarray(counts, np.int64).reshape(-1, num_types, num_types)


def iou(counts: Int[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k"]:
    """Intersection over union per type, tp / (tp + fp + fn) (Jaccard 1912); nan for a type that the reference lacks."""
    hit, asked, read = _margins(counts)
    return np.where(asked > 0, hit / np.maximum(asked + read - hit, 1), np.nan)


def dice(counts: Int[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k"]:
    """Dice per type, 2 tp / (2 tp + fp + fn) (Dice 1945); nan for a type that is not in the reference."""
    hit, asked, read = _margins(counts)
    return np.where(asked > 0, 2 * hit / np.maximum(asked + read, 1), np.nan)


def mean_over_present(values: Float[np.ndarray, " k"]) -> float:
    """Mean over the types that the reference contains; nan if it contains none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def merge_types(counts: Int[np.ndarray, "*n k k"], groups: list[list[int]]) -> Int[np.ndarray, "*n g g"]:
    """The confusion matrix of coarser types: `[[0], [1, 2]]` counts 1 and 2 as one. Types in no group do not count.

    Raises InputError for a type in two groups.
    """
    member = np.zeros((counts.shape[-1], len(groups)), np.int64)
    for index, group in enumerate(groups):
        member[group, index] = 1
    if (member.sum(axis=1) > 1).any():
        raise InputError(f"type groups {groups} use a type twice")
    return member.T @ counts @ member


def mean_over_types(values: Float[np.ndarray, " k"], types: Bool[np.ndarray, " k"]) -> float:
    """Mean over the given types alone, so that two sides compare; nan where one of them has no value, or none is
    given."""
    return float(np.mean(values[types])) if types.any() else float("nan")


def mean_iou_interval(
    counts: Int[np.ndarray, "n k k"],
    cases: Cases,
    level: float = 0.95,
    types: Bool[np.ndarray, " k"] | None = None,
) -> tuple[float, float]:
    """Interval of the mean IoU, over cases, since patches of one case are not independent.

    The mean is over `types` (default: all that the reference contains), the same in every part of the computation. A
    type that one case alone shows adds no spread: see `cases_of_types`. Both ends are nan for fewer than MIN_CASES
    cases, and where no pixel is labeled. Raises InputError unless there is one case per image.
    """
    if len(cases) != len(counts):
        raise InputError(f"need one case per image; got {len(cases)} cases for {len(counts)} images")
    if len(set(cases)) < MIN_CASES:
        return NO_INTERVAL
    whole = iou(counts.sum(axis=0))
    types = ~np.isnan(whole) if types is None else types
    value = mean_over_types(whole, types)
    if np.isnan(value):
        return NO_INTERVAL
    left_out, sizes = mean_iou_without(counts, cases, types)
    return bounded_interval(value, two_factor_spread(np.array([value]), left_out[None], sizes), level)


def mean_iou_without(
    counts: Int[np.ndarray, "n k k"], cases: Cases, types: Bool[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Mean IoU over `types` without each case in turn, and the images of each case.

    A type that is gone with a case keeps the IoU that it has with all cases.
    """
    of_case = np.unique(np.asarray(cases), return_inverse=True)[1]
    by_case = np.zeros((of_case.max() + 1, *counts.shape[1:]), np.int64)
    np.add.at(by_case, of_case, counts)
    whole = by_case.sum(axis=0)
    without = iou(whole - by_case)
    values = np.where(np.isnan(without), iou(whole), without)[:, types]
    return values.mean(axis=1), np.bincount(of_case)


def cases_of_types(counts: Int[np.ndarray, "n k k"], cases: Cases) -> Int[np.ndarray, " k"]:
    """How many cases show each type in the reference."""
    shown = counts.sum(axis=2) > 0
    names = np.asarray(cases)
    return np.array([len(set(names[has].tolist())) for has in shown.T])


def _margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)
