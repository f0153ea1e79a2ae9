"""Edits of a semantic map by a rule."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, UInt8

from histoloom.canvas.settings import Edit
from histoloom.tissue import UNLABELLED, TissueTable


def edited_map(edit: Edit, semantic_map: UInt8[np.ndarray, "h w"], table: TissueTable) -> UInt8[np.ndarray, "h w"]:
    """The map after the edit; the same where the map does not show the type. Unlabeled pixels stay.

    Raises TissueError for a type that the table does not know.
    """
    tissue, other = table.find(edit.tissue).id, table.find(edit.to).id if edit.to else None
    mine = semantic_map == tissue
    if not mine.any():
        return semantic_map
    wanted = RULES[edit.rule](mine, edit.by)
    if edit.rule == "move":
        wanted = mine | (wanted & (semantic_map == other))
    edited = semantic_map.copy()
    edited[wanted & ~mine] = tissue
    lost = mine & ~wanted
    if lost.any():
        edited[lost] = other if other is not None else _nearest(semantic_map, ~mine)[lost]
    edited[semantic_map == UNLABELLED] = UNLABELLED
    return edited


def _grown(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    return np.asarray(scipy.ndimage.distance_transform_edt(~mask)) <= by


def _thickened(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    """As `_grown`, but what lies between two regions, as near to one as to the other, stays."""
    numbers, places = np.zeros(mask.shape, np.int32), np.zeros((2, *mask.shape), np.int32)
    scipy.ndimage.label(mask, np.ones((3, 3), bool), output=numbers)
    distances = scipy.ndimage.distance_transform_edt(~mask, return_indices=True, indices=places)
    nearest = numbers[tuple(places)]
    between = scipy.ndimage.maximum_filter(nearest, 3) != scipy.ndimage.minimum_filter(nearest, 3)
    return mask | ((np.asarray(distances) <= by) & ~between)


def _shrunk(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    if mask.all():
        return mask
    return np.asarray(scipy.ndimage.distance_transform_edt(mask)) > by


def _merged(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    padded = np.pad(mask, by + 1, mode="edge")
    closed = _shrunk(_grown(padded, by), by)[by + 1 : -by - 1, by + 1 : -by - 1]
    return mask | closed


def _without_largest(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    numbers = np.zeros(mask.shape, np.int32)
    scipy.ndimage.label(mask, output=numbers)
    return mask & (numbers != np.bincount(numbers[mask]).argmax())


def _nearest(semantic_map: UInt8[np.ndarray, "h w"], allowed: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """At each pixel, the label of the nearest that is allowed."""
    if not allowed.any():
        return semantic_map
    places = np.zeros((2, *semantic_map.shape), np.int32)
    scipy.ndimage.distance_transform_edt(~allowed, return_distances=False, return_indices=True, indices=places)
    return semantic_map[tuple(places)]


RULES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "grow": _grown,
    "thicken": _thickened,
    "move": _grown,
    "shrink": _shrunk,
    "merge": _merged,
    "change": _without_largest,
}
