"""Are parts of crops in the patches generated from them? Each is searched for there, and in real tissue.

Two floors: the same crop in another real patch of its case that does not show the same tissue, and in a generated patch
that did not use it, since everything that a model generates has something in common. The threshold is that of the same
crops in real patches of other cases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.conditioning.overlap import overlapping_fields
from histoloom.errors import InputError
from histoloom.evaluation.copy_search import UNRELATED
from histoloom.evaluation.crop_sources import UsedCrop, UsedCrops
from histoloom.evaluation.sources import ImageSet
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import CopyRate, CopyThreshold, copy_rate, copy_threshold
from histoloom.patches.store import Patches
from histoloom.progress import SILENT, Bar

TRIES = 8  # patches of the case looked at for one that shows other tissue
REDRAWN = 3  # times UNRELATED pairs are drawn, at most, where some are too flat to judge


@dataclass(frozen=True, kw_only=True, eq=False)
class CropSearch:
    """Copy rates of crops in the patches generated from them, in real patches of their case, and in generated patches
    that did not use them; None where unknown, and a `note` where nothing is known.

    `scores` are those of the crops `searched`, in their patches; `used` says which crops could be found at all.
    """

    woven: CopyRate | None
    real: CopyRate | None
    other: CopyRate | None
    used: UsedCrops
    searched: list[UsedCrop]
    scores: Float[np.ndarray, " s"]
    threshold: CopyThreshold | None = None
    note: str = ""


def num_pairs(used: UsedCrops, most: int) -> int:
    """How many pairs `search_crops` compares, at most."""
    return 3 * min(most, len(used.found)) + UNRELATED if used.found else 0


def search_crops(
    fake: ImageSet, used: UsedCrops, real: ImageSet, most: int = 100, seed: int = 0, bar: Bar = SILENT
) -> CropSearch:
    """Search the generated patches `fake` for `most` of the crops that were found, in an order given by `seed`.

    For the threshold, a crop from a real patch is paired with patches of other cases; the case of a crop from a bank is
    unknown, so that it is paired with any patch of `real`. `bar` counts pairs.
    """
    if not used.found:
        reason = f"none of {used.named} crops could be found" if used.named else "the synthetic images name no crops"
        return CropSearch(
            woven=None, real=None, other=None, used=used, searched=[], scores=np.empty(0), note=f"not given: {reason}"
        )
    rng = np.random.default_rng((seed, 4))
    order = [used.found[i] for i in rng.permutation(len(used.found))]
    searched = order[:most]

    def match(crop: np.ndarray, image: np.ndarray) -> float:
        score = best_match(crop, image)
        bar.advance()
        return score

    scores = np.array([match(crop.pixels, fake.images[crop.woven]) for crop in searched])
    floors = []
    for partner in (_of_the_case, lambda crop, rng: _woven_without(crop, fake, rng)):
        pairs = [(crop.pixels, partner(crop, rng)) for crop in searched]
        floors.append(np.array([match(pixels, image) for pixels, image in pairs if image is not None]))
    try:
        threshold = copy_threshold(_unrelated_scores(order, real, rng, match))
        woven = copy_rate(scores, threshold)
    except InputError as error:
        return CropSearch(
            woven=None, real=None, other=None, used=used, searched=searched, scores=scores, note=f"not given: {error}"
        )
    in_case, without = (copy_rate(floor, threshold) if np.isfinite(floor).any() else None for floor in floors)
    return CropSearch(
        woven=woven, real=in_case, other=without, used=used, searched=searched, scores=scores, threshold=threshold
    )


def _of_the_case(crop: UsedCrop, rng: np.random.Generator) -> np.ndarray | None:
    """Another real patch of the crop's case; None if all others show the same tissue again."""
    if crop.lender is None:
        return None
    case = crop.lender.cases[crop.index]
    others = [i for i, other in enumerate(crop.lender.cases) if other == case and i != crop.index]
    for other in rng.permutation(others)[:TRIES].astype(int).tolist():
        if not overlapping_fields(_pair(crop.lender, crop.index, other)):
            return crop.lender.images[other]
    return None


def _woven_without(crop: UsedCrop, fake: ImageSet, rng: np.random.Generator) -> np.ndarray | None:
    """A generated patch that names no crop of the same source; None if all do."""
    others = [i for i, crops in enumerate(fake.crops) if all(use.source != crop.source for use in crops)]
    return fake.images[rng.choice(others)] if others else None


def _unrelated_scores(
    crops: list[UsedCrop], real: ImageSet, rng: np.random.Generator, match: Callable[[np.ndarray, np.ndarray], float]
) -> Float[np.ndarray, " n"]:
    """UNRELATED scores, or fewer where too many pairs are flat or there is one case only."""
    scores: list[float] = []
    for n in range(REDRAWN * UNRELATED):
        crop = crops[n % len(crops)]
        images = real if crop.lender is None else crop.lender
        own = None if crop.lender is None else images.cases[crop.index]
        others = [i for i, case in enumerate(images.cases) if case != own]
        if not others:
            continue
        score = match(crop.pixels, images.images[rng.choice(others)])
        scores += [score] if np.isfinite(score) else []
        if len(scores) == UNRELATED:
            break
    return np.array(scores)


def _pair(images: ImageSet, *at: int) -> Patches:
    pair, unknown = images.select(list(at)), np.full(len(at), np.nan)
    return Patches(pair.images, pair.maps, pair.cases, pair.names, unknown, np.zeros((len(at), 3), np.int64))
