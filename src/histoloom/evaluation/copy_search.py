"""Are parts of training images in synthetic ones? Each is searched for parts of its nearest training image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histoloom.conditioning.likeness import best_match
from histoloom.errors import InputError
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.copying import CopyRate, copy_rate, copy_threshold

UNRELATED = 120  # real pairs of different cases that set the threshold; 100 are needed for one per cent


@dataclass(frozen=True)
class CopySearch:
    """Copy rate of synthetic images, and of real ones that no model has woven; none, with a `note`, where unknown.

    `scores` are those of the synthetic images `searched`; 1 is a part that reappears exactly.
    """

    fake: CopyRate | None
    real: CopyRate | None
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
    """Search `most` synthetic and `most` unseen real images for parts of their nearest training images.

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
    try:
        threshold = copy_threshold(np.asarray(unrelated))
        return CopySearch(copy_rate(scores, threshold), copy_rate(floor, threshold), searched, scores)
    except InputError as error:
        return CopySearch(None, None, searched, scores, f"not given: {error}")
