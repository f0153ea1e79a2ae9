"""Are parts of training images in synthetic ones? Each is searched for parts of its nearest training image.

Two floors: unseen real images and their nearest training image, and the same synthetic images and a training image that
they do not resemble, since all that a model weaves has texture in common.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histoloom.errors import InputError
from histoloom.evaluation.comparison import Comparison
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import CopyRate, copy_rate, copy_threshold

UNRELATED = 120  # real pairs of different cases that set the threshold; 100 are needed for one per cent


@dataclass(frozen=True)
class CopySearch:
    """Copy rate of synthetic images, of real ones that no model has woven, and of the synthetic ones once more with a
    training image that is not their nearest; none where unknown, and a `note` where nothing is known.

    `scores` are those of the synthetic images `searched`, in [-1, 1]; 1 is a part that reappears exactly.
    """

    fake: CopyRate | None
    real: CopyRate | None
    other: CopyRate | None
    searched: Int[np.ndarray, " s"]
    scores: Float[np.ndarray, " s"]
    note: str = ""


def search_copies(
    sets: Comparison,
    fake_neighbours: Int[np.ndarray, " m"],
    real_neighbours: Int[np.ndarray, " u"],
    most: int = 100,
    seed: int = 0,
    on_done: Callable[[int], None] = lambda count: None,
) -> CopySearch:
    """Search `most` synthetic and `most` unseen real images for parts of their nearest training images, and the
    synthetic ones for parts of a random one of another case.

    The first synthetic ones are taken, in the order given by `seed`. `on_done(1)` follows each pair.
    """
    rng = np.random.default_rng((seed, 2))
    unseen = getattr(sets, sets.unseen)
    searched = rng.permutation(len(sets.fake))[:most]
    controls = rng.permutation(len(unseen))[:most]

    def match(part_of: np.ndarray, image: np.ndarray) -> float:
        score = best_match(part_of, image)
        on_done(1)
        return score

    scores = np.array([match(sets.train.images[fake_neighbours[i]], sets.fake.images[i]) for i in searched])
    floor = np.array([match(sets.train.images[real_neighbours[i]], unseen.images[i]) for i in controls])
    cases = np.asarray(sets.control.cases)
    unrelated = []
    for _ in range(UNRELATED):
        i = rng.integers(len(sets.reference))
        others = np.flatnonzero(cases != sets.reference.cases[i])
        unrelated.append(match(sets.control.images[rng.choice(others)], sets.reference.images[i]))
    drawn = [(i, _another(sets, int(i), int(fake_neighbours[i]), rng)) for i in searched]
    random = np.array([match(sets.train.images[j], sets.fake.images[i]) for i, j in drawn if j is not None])
    try:
        threshold = copy_threshold(np.asarray(unrelated))
        fake, real = copy_rate(scores, threshold), copy_rate(floor, threshold)
    except InputError as error:
        return CopySearch(None, None, None, searched, scores, f"not given: {error}")
    other = copy_rate(random, threshold) if np.isfinite(random).any() else None
    return CopySearch(fake, real, other, searched, scores)


def _another(sets: Comparison, index: int, nearest: int, rng: np.random.Generator) -> int | None:
    """A random training image for synthetic image `index`: neither of the case of its map, whose crops it may have been
    woven from, nor of the case of its `nearest` one, which may show the same tissue once more; none where all are."""
    left_out = {sets.fake.cases[index], sets.train.cases[nearest]}
    others = [i for i, case in enumerate(sets.train.cases) if case not in left_out]
    return int(rng.choice(others)) if others else None
