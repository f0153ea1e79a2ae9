"""Figures without pasted crops: the squares are blanked in synthetic and real images alike.

A model that pastes its crops shows real pixels there, and gains by them. Each synthetic image loses its squares, the
real ones lose squares at the same places, and both are filled with the mean color of the rest of the image. The floor
thus loses as much as the figure.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from histoloom.conditioning.crops import place_crops
from histoloom.conditioning.inputs import Crop
from histoloom.encoders.cache import features
from histoloom.encoders.encoder import Encoder
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.measures import (
    KID,
    FeatureSets,
    Figure,
    distance_figure,
    frechet_figures,
    prdc_figures,
)
from histoloom.metrics.kernel import kid
from histoloom.progress import SILENT, Bar


def pasted_squares(semantic_map: UInt8[np.ndarray, "h w"], crops: Sequence[Crop], seed: int) -> Bool[np.ndarray, "h w"]:
    """Where `crops-in-place` puts its crops in the patch of this seed."""
    mask = np.zeros(semantic_map.shape, bool)
    for crop, y, x in place_crops(semantic_map, list(crops), np.random.default_rng(seed)):
        mask[y : y + crop.pixels.shape[0], x : x + crop.pixels.shape[1]] = True
    return mask


def blank(images: UInt8[np.ndarray, "n h w 3"], masks: Bool[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Images whose masked pixels have the mean color of the others; a fully masked image becomes white."""
    filled = images.copy()
    for image, mask in zip(filled, masks, strict=True):
        image[mask] = 255 if mask.all() else np.rint(image[~mask].mean(axis=0)).astype(np.uint8)
    return filled


def measure_left_out(
    sets: Comparison,
    masks: Bool[np.ndarray, "m h w"],
    encoder: Encoder,
    cache: Path | None = None,
    bar: Bar = SILENT,
    seed: int = 0,
) -> list[Figure]:
    """Distances, precision and recall without the masked squares, one mask per synthetic image, each with its floor
    and its interval over cases."""
    real, control, fake = (
        features(encoder, blank(images, masks[np.arange(len(images)) % len(masks)]), cache, bar)
        for images in (sets.reference.images, sets.control.images, sets.fake.images)
    )
    blanked = FeatureSets(real, control, fake, real[:0])  # no copies are searched, so no training images are needed
    return [
        *frechet_figures(sets, blanked, seed, at_infinity=False),
        distance_figure(KID, lambda a, b: 1000 * kid(a, b), sets, blanked, seed),
        *(figure for figure in prdc_figures(sets, blanked) if figure.name in ("precision", "recall")),
    ]
