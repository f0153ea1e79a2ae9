from dataclasses import replace

import numpy as np
import pytest

from histoloom.augmentation import dihedral
from histoloom.evaluation import copy_search
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.copy_search import UNRELATED, search_copies
from histoloom.evaluation.sources import ImageSet


class Count:
    """A bar that counts."""

    done = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count


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
    counted = Count()
    nearest = np.zeros(12, np.int64)
    found = search_copies(sets, nearest, nearest, 12, bar=counted)
    assert sorted(found.searched) == list(range(12))
    pasted = found.searched < 6
    assert found.scores[pasted].min() > 0.99
    assert found.fake.rate >= 0.5
    assert max(found.real.rate, found.other.rate) <= 0.25
    assert found.other.n == 12
    assert counted.done == 36 + UNRELATED


def test_what_all_synthetic_images_share_with_any_training_image_raises_the_second_floor(sets):
    texture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    train, fake = sets.train.images.copy(), sets.fake.images.copy()
    train[:, 8:56, 8:56] = fake[:, 8:56, 8:56] = texture
    nearest = np.zeros(12, np.int64)
    sharing = replace(sets, train=replace(sets.train, images=train), fake=replace(sets.fake, images=fake))
    found = search_copies(sharing, nearest, nearest, 12)
    assert found.fake.rate == found.other.rate == 1
    assert found.real.rate <= 0.25


def test_the_second_floor_is_of_another_case_than_the_map_and_the_nearest_image(sets):
    train = sets.train
    of_map = next(case for case in train.cases if case != train.cases[0])
    known = replace(sets, fake=replace(sets.fake, cases=[of_map] * 12))
    drawn = {copy_search._another(known, 3, 0, np.random.default_rng(seed)) for seed in range(60)}
    assert drawn == {i for i, case in enumerate(train.cases) if case not in (of_map, train.cases[0])}
    unknown = {copy_search._another(sets, 3, 0, np.random.default_rng(seed)) for seed in range(90)}
    assert unknown == {i for i, case in enumerate(train.cases) if case != train.cases[0]}


def test_training_images_of_one_case_give_no_second_floor(sets):
    one_case = replace(sets, train=replace(sets.train, cases=["only"] * 12))
    nearest = np.zeros(12, np.int64)
    found = search_copies(one_case, nearest, nearest, 2)
    assert found.fake.n == 2
    assert found.other is None


def test_the_second_floor_draws_after_the_others_so_that_their_figures_stay(sets):
    one_case = replace(sets, train=replace(sets.train, cases=["only"] * 12))
    nearest = np.zeros(12, np.int64)
    with_floor, without = search_copies(sets, nearest, nearest, 3), search_copies(one_case, nearest, nearest, 3)
    assert (with_floor.fake, with_floor.real) == (without.fake, without.real)


def test_images_too_flat_to_judge_give_a_reason(sets):
    flat = replace(sets.fake, images=np.full_like(sets.fake.images, 240))
    nearest = np.zeros(12, np.int64)
    found = search_copies(replace(sets, fake=flat), nearest, nearest, 2)
    assert found.fake is None
    assert "not given: all crops are too flat" in found.note
