"""Are parts of training images in synthetic ones? Each is searched for parts of its nearest training image.

Two floors: unseen real images and their nearest training image, and the same synthetic images and a training image that
they do not resemble, since everything that a model generates has texture in common.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histoloom.errors import InputError
from histoloom.evaluation.comparison import Comparison
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import CopyRate, CopyThreshold, copy_rate, copy_threshold
from histoloom.progress import SILENT, Bar

UNRELATED = 400  # real pairs of different cases that set the threshold; 368 bound its error


@dataclass(frozen=True, kw_only=True, eq=False)
class CopySearch:
    """Copy rates of synthetic images, of real ones that no model has made, and of the synthetic ones with a training
    image that is not their nearest; None where unknown, and a `note` where nothing is known.

    `scores` are those of the synthetic images `searched`, in [-1, 1]; 1 is a part that reappears exactly.
    """

    fake: CopyRate | None
    real: CopyRate | None
    other: CopyRate | None
    searched: Int[np.ndarray, " s"]
    scores: Float[np.ndarray, " s"]
    threshold: CopyThreshold | None = None
    note: str = ""


def search_copies(
    sets: Comparison,
    fake_neighbors: Int[np.ndarray, " m"],
    real_neighbors: Int[np.ndarray, " u"],
    most: int = 100,
    seed: int = 0,
    bar: Bar = SILENT,
) -> CopySearch:
    """Search `most` synthetic and `most` unseen real images for parts of their nearest training images, and the
    synthetic ones for parts of a random one of another case.

    Which synthetic ones are searched follows from `seed`. `bar` counts pairs.
    """
    rng = np.random.default_rng((seed, 2))
    unseen = getattr(sets, sets.unseen)
    searched = rng.permutation(len(sets.fake))[:most]
    controls = rng.permutation(len(unseen))[:most]

    def match(part_of: np.ndarray, image: np.ndarray) -> float:
        score = best_match(part_of, image)
        bar.advance()
        return score

    scores = np.array([match(sets.train.images[fake_neighbors[i]], sets.fake.images[i]) for i in searched])
    floor = np.array([match(sets.train.images[real_neighbors[i]], unseen.images[i]) for i in controls])
    cases = np.asarray(sets.control.cases)
    unrelated = []
    for _ in range(UNRELATED):
        i = rng.integers(len(sets.reference))
        others = np.flatnonzero(cases != sets.reference.cases[i])
        unrelated.append(match(sets.control.images[rng.choice(others)], sets.reference.images[i]))
    drawn = [(i, _another(sets, int(i), int(fake_neighbors[i]), rng)) for i in searched]
    random = np.array([match(sets.train.images[j], sets.fake.images[i]) for i, j in drawn if j is not None])
    try:
        threshold = copy_threshold(np.asarray(unrelated))
        fake, real = copy_rate(scores, threshold), copy_rate(floor, threshold)
    except InputError as error:
        return CopySearch(
            fake=None, real=None, other=None, searched=searched, scores=scores, note=f"not given: {error}"
        )
    other = copy_rate(random, threshold) if np.isfinite(random).any() else None
    return CopySearch(fake=fake, real=real, other=other, searched=searched, scores=scores, threshold=threshold)


def _another(sets: Comparison, index: int, nearest: int, rng: np.random.Generator) -> int | None:
    """A random training image for synthetic image `index`, None where there is none: neither of the case of its map,
    whose crops it may have been generated from, nor of the case of its `nearest` one, which may show the same tissue
    again."""
    left_out = {sets.fake.cases[index], sets.train.cases[nearest]}
    others = [i for i, case in enumerate(sets.train.cases) if case not in left_out]
    return int(rng.choice(others)) if others else None
