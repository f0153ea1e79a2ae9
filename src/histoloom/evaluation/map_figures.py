"""Figures of map fidelity: synthetic images read by a segmenter, with real ones read by it as the floor."""

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.hiding import without_types
from histoloom.errors import InputError
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.measures import Figure
from histoloom.evaluation.segmenter import Segmenter
from histoloom.evaluation.sources import ImageSet, names_of
from histoloom.metrics.map_fidelity import (
    cases_of_types,
    confusion,
    dice,
    iou,
    mean_iou_interval,
    mean_over_types,
)


def map_figures(sets: Comparison, segmenter: Segmenter | None) -> tuple[list[Figure], list[str]]:
    """Mean IoU and Dice over the types that both sides show, then both for each type; and notes."""
    fake, reference = sets.fake, sets.reference
    for images in (fake, reference):
        if images.semantic_maps is None:
            return [], [f"Map fidelity not given: {images.label} has no maps."]
    if segmenter is None:
        return [], ["Map fidelity not given: no segmenter was named (--segmenter)."]
    counts, real_counts = (
        confusion(_read(segmenter, images), images.maps, segmenter.num_types) for images in (fake, reference)
    )
    pooled, real_pooled = counts.sum(axis=0), real_counts.sum(axis=0)
    shown, real_shown = (~np.isnan(iou(of)) for of in (pooled, real_pooled))
    both = shown & real_shown
    if not both.any():
        return [], ["Map fidelity not given: synthetic and real maps share no type."]
    table = reference.known_table
    known = dict(zip(table.ids, table.names, strict=True))
    names = [known.get(i, str(i)) for i in range(len(both))]
    n = len(fake)
    low, high = mean_iou_interval(counts, fake.cases, types=both)
    figures = [
        Figure("mean IoU", n, mean_over_types(iou(pooled), both), low, high, mean_over_types(iou(real_pooled), both)),
        Figure("mean Dice", n, mean_over_types(dice(pooled), both), floor=mean_over_types(dice(real_pooled), both)),
    ]
    for title, score in (("IoU", iou), ("Dice", dice)):
        values, floors = score(pooled), score(real_pooled)
        figures += [
            Figure(f"{title}, {names[i]}", n, float(values[i]), floor=float(floors[i]) if real_shown[i] else None)
            for i in np.flatnonzero(shown)
        ]
    notes = [*_types_note(both, shown, real_shown, names), *_learned_note(segmenter, reference)]
    notes += _names_note(segmenter, reference)
    single = cases_of_types(counts, fake.cases)
    if alone := [names[i] for i in np.flatnonzero(both & (single == 1))]:
        notes.append(f"One synthetic case alone shows {', '.join(alone)}: the interval leaves out how its IoU varies.")
    return figures, notes


def check_types(segmenter: Segmenter, real: ImageSet, fake: ImageSet) -> None:
    """Raise InputError where maps show an id that the segmenter does not know, or that is another type to it.

    Sets without maps pass, and so does a segmenter that does not say what its types are, if it has enough.
    """
    if real.table is None or real.semantic_maps is None:
        return
    where, cure = f"{real.where}/tissue.toml", "name that of a run on this dataset (--segmenter)"
    if real.table.num_ids > segmenter.num_types:
        raise InputError(
            f"{where}: has ids up to {real.table.num_ids - 1}, but the segmenter knows {segmenter.num_types} types; "
            f"{cure}"
        )
    shown = set(np.unique(real.semantic_maps).tolist())
    shown |= set() if fake.semantic_maps is None else set(np.unique(fake.semantic_maps).tolist())
    learned = {} if segmenter.table is None else {tissue.id: tissue for tissue in segmenter.table.types}
    for tissue in real.table.types if learned else ():
        same = learned.get(tissue.id)
        if tissue.id in shown and (same is None or names_of(tissue).isdisjoint(names_of(same))):
            raise InputError(
                f"{where}: id {tissue.id} is {tissue.name!r}, and to the segmenter "
                f"{repr(same.name) if same else 'no tissue'}; {cure}"
            )


def _read(segmenter: Segmenter, images: ImageSet) -> UInt8[np.ndarray, "n h w"]:
    """The maps that the segmenter reads off the images, without the types that the maps of the set leave out."""
    return np.stack([without_types(read, images.hidden) for read in segmenter.predict(images.images)])


def _types_note(both: np.ndarray, shown: np.ndarray, real_shown: np.ndarray, names: list[str]) -> list[str]:
    """Which types are in the mean, if some are not on both sides."""
    notes = []
    for side, only in (("synthetic", shown & ~both), ("real", real_shown & ~both)):
        if only.any():
            listed = ", ".join(names[i] for i in np.flatnonzero(only))
            notes.append(f"Only the {side} maps show {listed}.")
    return [f"Mean IoU and Dice are over the {both.sum()} types of both sides. {' '.join(notes)}"] if notes else []


def _learned_note(segmenter: Segmenter, reference: ImageSet) -> list[str]:
    """Whether the floor is of images that the segmenter learned from."""
    learned = segmenter.num_learned(reference.images)
    if learned is None:
        return ["Which images the segmenter learned from is not recorded; if from these, the floor is too high."]
    if learned:
        return [
            f"The segmenter learned from {learned} of the {len(reference)} real images that the floor is measured on "
            f"(split {reference.split or 'all'}), so that floor is too high; compare with a split that it has not seen."
        ]
    return [f"The segmenter learned from none of the real images that the floor is measured on ({len(reference)})."]


def _names_note(segmenter: Segmenter, reference: ImageSet) -> list[str]:
    """Whether the types of the segmenter are known to be those of the maps."""
    if segmenter.table is not None:
        return []
    return [
        f"What the segmenter calls its types is not recorded: its ids are taken to be those of {reference.label}, and "
        "every figure of it is wrong if they are not."
    ]
