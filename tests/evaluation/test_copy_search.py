from dataclasses import replace

import numpy as np
import pytest

from histoloom.augmentation import dihedral
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.copy_search import UNRELATED, search_copies
from histoloom.evaluation.sources import ImageSet


@pytest.fixture(scope="module")
def sets(make_patches):
    """Twelve images a side; the first six synthetic ones hold a turned part of training image 0."""

    def side(where: str, seed: int) -> ImageSet:
        drawn = make_patches(12, 4, 64, 3, seed)
        cases = [f"{where} {c}" for c in drawn.cases]
        return ImageSet(where, "patch dataset", "", "PNG", drawn.images, None, cases, drawn.sources)

    train, fake = side("train", 3), side("fake", 2)
    pasted = fake.images.copy()
    for i in range(6):
        pasted[i, 8:56, 8:56] = dihedral(train.images[0, 8:56, 8:56], i)
    return Comparison(side("real", 0), side("control", 1), replace(fake, images=pasted), train, ())


def test_turned_parts_of_training_images_are_found_and_nothing_else(sets):
    told = []
    nearest = np.zeros(12, np.int64)
    found = search_copies(sets, nearest, nearest, 12, on_done=told.append)
    assert sorted(found.searched) == list(range(12))
    pasted = found.searched < 6
    assert found.scores[pasted].min() > 0.99
    assert found.fake.rate >= 0.5
    assert found.real.rate <= 0.25
    assert len(told) == 24 + UNRELATED


def test_images_too_flat_to_judge_give_a_reason(sets):
    flat = replace(sets.fake, images=np.full_like(sets.fake.images, 240))
    nearest = np.zeros(12, np.int64)
    found = search_copies(replace(sets, fake=flat), nearest, nearest, 2)
    assert found.fake is None
    assert "not given: every crop is too flat" in found.note
