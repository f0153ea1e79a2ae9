"""Does the tissue lie where the map said? IoU and Dice of the map a segmenter reads against the map that was asked for.

Everything is counted in one confusion matrix per image. "Mean IoU" here is always: pixels pooled over all images, then
one IoU per type, then the mean over the types that the reference maps contain. Unlabelled pixels (255) of the reference
are left out.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

from histoloom.errors import InputError

UNLABELED = 255  # id of pixels without a label


def confusion(
    predicted: UInt8[np.ndarray, "n h w"], reference: UInt8[np.ndarray, "n h w"], num_types: int
) -> Int[np.ndarray, "n k k"]:
    """Pixels per image with reference type i (row) read as type j (column); pixels whose reference is 255 do not count.

    Raises InputError where an id is `num_types` or more.
    """
    labelled = reference != UNLABELED
    for name, ids in (("predicted", predicted[labelled]), ("reference", reference[labelled])):
        if ids.size and ids.max() >= num_types:
            raise InputError(f"the {name} maps hold tissue id {ids.max()}, but there are {num_types} types")
    cells = num_types * reference.astype(np.int64) + predicted
    counts = [np.bincount(c[m], minlength=num_types**2) for c, m in zip(cells, labelled, strict=True)]
    return np.asarray(counts, np.int64).reshape(-1, num_types, num_types)


def iou(counts: Int[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k"]:
    """Intersection over union per type, tp / (tp + fp + fn) (Jaccard 1912); nan for a type that the reference lacks."""
    hit, asked, read = _margins(counts)
    return np.where(asked > 0, hit / np.maximum(asked + read - hit, 1), np.nan)


def dice(counts: Int[np.ndarray, "*n k k"]) -> Float[np.ndarray, "*n k"]:
    """Dice per type, 2 tp / (2 tp + fp + fn) (Dice 1945); nan for a type that the reference does not contain."""
    hit, asked, read = _margins(counts)
    return np.where(asked > 0, 2 * hit / np.maximum(asked + read, 1), np.nan)


def mean_over_present(values: Float[np.ndarray, " k"]) -> float:
    """Mean over the types that the reference contains; nan where it contains none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def merge_types(counts: Int[np.ndarray, "*n k k"], groups: list[list[int]]) -> Int[np.ndarray, "*n g g"]:
    """The confusion matrix of coarser types: `[[0], [1, 2]]` reads 1 and 2 as one. Types in no group are left out."""
    member = np.zeros((counts.shape[-1], len(groups)), np.int64)
    for index, group in enumerate(groups):
        member[group, index] = 1
    if (member.sum(axis=1) > 1).any():
        raise InputError(f"type groups {groups} use a type twice")
    return member.T @ counts @ member


def mean_iou_interval(
    counts: Int[np.ndarray, "n k k"], cases: list[str], level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean IoU, drawn over cases: patches of one case are not independent.

    A draw without a case that shows some type averages over the types that it does show.
    """
    if len(cases) != len(counts):
        raise InputError(f"{len(counts)} confusion matrices but {len(cases)} cases; give one case per image")
    of_case = np.unique(cases, return_inverse=True)[1]
    num_cases = of_case.max() + 1
    times = np.random.default_rng(seed).multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=draws)
    drawn = iou(np.tensordot(times[:, of_case], counts, axes=1))
    present = ~np.isnan(drawn)
    means = np.where(present, drawn, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    low, high = np.quantile(means[present.any(axis=1)], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)
