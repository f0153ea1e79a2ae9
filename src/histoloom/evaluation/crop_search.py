"""Are parts of crops in the patches woven from them? Each is searched for there, and in real tissue.

The floor is the same crop in another real patch of its case that shows none of the same tissue; the threshold comes
from real pairs of different cases, with crops of the same sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.conditioning.overlap import overlapping_fields
from histoloom.errors import InputError
from histoloom.evaluation.copy_search import UNRELATED
from histoloom.evaluation.copying import CopyRate, best_match, copy_rate, copy_threshold
from histoloom.evaluation.crop_sources import UsedCrop, UsedCrops
from histoloom.evaluation.sources import ImageSet
from histoloom.patches.store import Patches

TRIES = 8  # patches of the case looked at for one that shows other tissue
REDRAWN = 3  # times UNRELATED pairs are drawn, at most, where some are too flat to judge


@dataclass(frozen=True)
class CropSearch:
    """Copy rate of crops in the patches woven from them, and of the same crops in real patches of their case; none,
    with a `note`, where unknown.

    `scores` are those of the crops `searched`, in their woven patches; `used` says which crops could be found at all.
    """

    woven: CopyRate | None
    real: CopyRate | None
    used: UsedCrops
    searched: list[UsedCrop]
    scores: Float[np.ndarray, " s"]
    note: str = ""


def num_pairs(used: UsedCrops, most: int) -> int:
    """How many pairs `search_crops` compares, at most."""
    return 2 * min(most, len(used.found)) + UNRELATED if used.found else 0


def search_crops(
    fake: ImageSet,
    used: UsedCrops,
    real: ImageSet,
    most: int = 100,
    seed: int = 0,
    on_done: Callable[[int], None] = lambda count: None,
) -> CropSearch:
    """Search the woven patches `fake` for `most` of the crops that were found, in an order given by `seed`.

    A crop that a real patch lent is paired with patches of other cases, for the threshold; one of a bank has no case,
    so a square of its size is cut from `real` instead. `on_done(1)` follows each pair.
    """
    if not used.found:
        reason = f"none of {used.named} crops could be found" if used.named else "the synthetic images name no crops"
        return CropSearch(None, None, used, [], np.empty(0), f"not given: {reason}")
    rng = np.random.default_rng((seed, 4))
    order = [used.found[i] for i in rng.permutation(len(used.found))]
    searched = order[:most]

    def match(crop: np.ndarray, image: np.ndarray) -> float:
        score = best_match(crop, image)
        on_done(1)
        return score

    scores = np.array([match(crop.pixels, fake.images[crop.woven]) for crop in searched])
    others = [(crop.pixels, _of_the_case(crop, rng)) for crop in searched]
    floor = np.array([match(pixels, image) for pixels, image in others if image is not None])
    try:
        threshold = copy_threshold(_unrelated_scores(order, real, rng, match))
        woven = copy_rate(scores, threshold)
    except InputError as error:
        return CropSearch(None, None, used, searched, scores, f"not given: {error}")
    real_rate = copy_rate(floor, threshold) if np.isfinite(floor).any() else None
    return CropSearch(woven, real_rate, used, searched, scores)


def _of_the_case(crop: UsedCrop, rng: np.random.Generator) -> np.ndarray | None:
    """Another real patch of the crop's case; none where no other, or only the same tissue once more, is at hand."""
    if crop.lender is None:
        return None
    case = crop.lender.cases[crop.index]
    others = [i for i, other in enumerate(crop.lender.cases) if other == case and i != crop.index]
    for other in rng.permutation(others)[:TRIES].astype(int).tolist():
        if not overlapping_fields(_pair(crop.lender, crop.index, other)):
            return crop.lender.images[other]
    return None


def _unrelated_scores(
    crops: list[UsedCrop], real: ImageSet, rng: np.random.Generator, match: Callable[[np.ndarray, np.ndarray], float]
) -> Float[np.ndarray, " n"]:
    """UNRELATED scores, or fewer where too many pairs are flat or there is one case only."""
    scores: list[float] = []
    for n in range(REDRAWN * UNRELATED):
        crop = crops[n % len(crops)]
        images, index = (real, int(rng.integers(len(real)))) if crop.lender is None else (crop.lender, crop.index)
        others = [i for i, case in enumerate(images.cases) if case != images.cases[index]]
        if not others:
            continue
        pixels = _square(crop, images.images[index], rng) if crop.lender is None else crop.pixels
        score = match(pixels, images.images[rng.choice(others)])
        scores += [score] if np.isfinite(score) else []
        if len(scores) == UNRELATED:
            break
    return np.array(scores)


def _square(crop: UsedCrop, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = (min(pair) for pair in zip(crop.pixels.shape[:2], image.shape[:2], strict=True))
    y, x = (int(rng.integers(edge - side + 1)) for edge, side in zip(image.shape, (height, width), strict=False))
    return image[y : y + height, x : x + width]


def _pair(images: ImageSet, *at: int) -> Patches:
    pair, unknown = images.select(list(at)), np.full(len(at), np.nan)
    return Patches(pair.images, pair.semantic_maps, pair.cases, pair.names, unknown, np.zeros((len(at), 3), np.int64))
