"""What `teaching.py` can do to a set of patches before a segmenter learns from it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from histoloom.augmentation import dihedral
from histoloom.evaluation.sources import ImageSet
from histoloom.study.decoding import Decoder
from histoloom.tissue import UNLABELLED


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


def oversampled(images: ImageSet, threshold: str) -> ImageSet:
    """Patches with types that fewer than a share `threshold` of them show, repeated (LVIS, arXiv 1908.03195)."""
    factors = _repeats(images.maps, float(threshold or 0.3))
    rng = np.random.default_rng(0)
    times = np.floor(factors).astype(int) + (rng.random(len(factors)) < factors % 1)
    return images.select(np.repeat(np.arange(len(images)), times))


def pasted(images: ImageSet, threshold: str) -> ImageSet:
    """As many more patches, with the rarest type of another patch pasted over each (arXiv 2012.07177)."""
    maps, rng = images.maps, np.random.default_rng(0)
    factors, shares = _repeats(maps, float(threshold or 0.3)), _shown(maps).mean(0)
    lenders = rng.choice(len(images), len(images), p=factors / factors.sum())
    made = [images.images.copy(), maps.copy()]
    for index, lender in enumerate(lenders):
        which = int(rng.integers(8))
        lent, semantic_map = dihedral(images.images[lender], which), dihedral(maps[lender], which)
        types = [t for t in np.unique(semantic_map) if t != UNLABELLED]
        mask = semantic_map == min(types, key=lambda t: shares[t])
        made[0][index][mask], made[1][index][mask] = lent[mask], semantic_map[mask]
    both = images.select(np.tile(np.arange(len(images)), 2))
    return replace(both, images=np.concatenate([images.images, made[0]]), semantic_maps=np.concatenate([maps, made[1]]))


def _shown(maps: np.ndarray) -> np.ndarray:
    """Which types each map shows on 1 % of its pixels or more."""
    return np.stack([np.bincount(m.ravel(), minlength=256)[:UNLABELLED] > 0.01 * m.size for m in maps])


def _repeats(maps: np.ndarray, threshold: float) -> np.ndarray:
    shown = _shown(maps)
    factors = np.maximum(1, np.sqrt(threshold / np.maximum(shown.mean(0), 1 / len(maps))))
    return np.where(shown, factors, 1).max(1)


CHANGES: dict[str, Callable[[ImageSet, str], ImageSet]] = {
    "decoded": decoded,
    "cases": with_cases,
    "border": without_borders,
    "oversampled": oversampled,
    "pasted": pasted,
}
