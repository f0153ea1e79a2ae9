"""What `teaching.py` can do to a set of patches before a segmenter learns from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from histoloom.evaluation.controls import oversampled, pasted
from histoloom.evaluation.judge import JUDGE, load_judge
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.settings import CheckConfig
from histoloom.study.decoding import Decoder
from histoloom.tissue import UNLABELLED
from histoloom.weights import find_model


def decoded(images: ImageSet, model: str) -> ImageSet:
    """The images as the autoencoder of `model` gives them back."""
    decode = Decoder(f"{model}/autoencoder" if "/" in model else model)
    return replace(images, images=np.stack([decode(image) for image in images.images]))


def with_cases(images: ImageSet, number: str) -> ImageSet:
    """The patches of `number` cases, drawn with seed 0."""
    known = sorted(set(images.cases))
    kept = set(np.random.default_rng(0).permutation(known)[: int(number)].tolist())
    return images.select([i for i, case in enumerate(images.cases) if case in kept])


def without_borders(images: ImageSet, pixels: str) -> ImageSet:
    """Maps without the pixels that lie within `pixels` of another type."""
    edge = 2 * int(pixels) + 1
    maps = images.maps.copy()
    for semantic_map in maps:
        most = ndimage.maximum_filter(semantic_map, edge)
        semantic_map[most != ndimage.minimum_filter(semantic_map, edge)] = UNLABELLED
    return replace(images, semantic_maps=maps)


def lossy(images: ImageSet, factor: str) -> ImageSet:
    """Maps without pixels whose loss is above `factor` times the mean of their type (FreeMask, arXiv 2310.15160)."""
    losses = _relative_losses(images)
    above = float(factor or CheckConfig.lossy_above)
    return replace(images, semantic_maps=np.where(losses > above, np.uint8(UNLABELLED), images.maps))


def checked(images: ImageSet, factor: str) -> ImageSet:
    """The patches that `generate --self-check` would not drop."""
    losses, known = _relative_losses(images), images.maps != UNLABELLED
    above = float(factor or CheckConfig.lossy_above)
    shares = ((losses > above) & known).sum((1, 2)) / np.maximum(known.sum((1, 2)), 1)
    return images.select(np.flatnonzero(shares <= CheckConfig.most_lossy))


def _relative_losses(images: ImageSet) -> np.ndarray:
    judge = load_judge(Path(find_model("ebhi-seg-few-steps")) / JUDGE)
    return np.stack([judge.relative_loss(*pair) for pair in zip(images.images, images.maps, strict=True)])


CHANGES: dict[str, Callable[[ImageSet, str], ImageSet]] = {
    "decoded": decoded,
    "cases": with_cases,
    "border": without_borders,
    "lossy": lossy,
    "checked": checked,
    "oversampled": lambda images, _: oversampled(images),
    "pasted": lambda images, _: pasted(images),
}
