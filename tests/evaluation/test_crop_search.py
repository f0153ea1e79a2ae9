"""Crops planted in woven patches, however turned; crops that are not there; floors and thresholds of real tissue."""

from dataclasses import replace

import numpy as np
import pytest

from histoloom.augmentation import dihedral
from histoloom.conditioning.inputs import Crop
from histoloom.evaluation import crop_search
from histoloom.evaluation.copy_search import UNRELATED
from histoloom.evaluation.crop_search import num_pairs, search_crops
from histoloom.evaluation.crop_sources import find_crops
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.woven_patch import CropUse

EDGE = 40  # px of a crop


class Count:
    """A bar that counts."""

    done = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count


@pytest.fixture(scope="module")
def train(make_patches) -> ImageSet:
    """Twelve patches of four cases, named 00.png to 11.png."""
    drawn = make_patches(12, 4, 64, 3, 3)
    return ImageSet("train", "patch dataset", "train", "PNG", drawn.images, drawn.semantic_maps, drawn.cases,
                    drawn.sources)  # fmt: skip


@pytest.fixture(scope="module")
def woven(make_patches) -> ImageSet:
    """Twelve patches, each woven with a crop of the training patch of its number; the first six hold it, turned."""
    drawn = make_patches(12, 4, 64, 3, 2)
    crops = [[CropUse(f"{i:02d}.png", 0, 10, 12, EDGE, EDGE)] for i in range(12)]
    names = [f"images/{i:02d}.png" for i in range(12)]
    return ImageSet("fake", "woven patches", "", "PNG", drawn.images, drawn.semantic_maps, names, names, crops=crops)


def with_pastes(woven: ImageSet, pixels: list[np.ndarray]) -> ImageSet:
    """The woven patches with crop i pasted into patch i, turned."""
    images = woven.images.copy()
    for i, crop in enumerate(pixels):
        images[i, 20 : 20 + EDGE, 4 : 4 + EDGE] = dihedral(crop, i)
    return replace(woven, images=images)


def test_crops_that_were_pasted_are_found_however_turned_and_no_others(train, woven):
    fake, counted = with_pastes(woven, [train.images[i, 12 : 12 + EDGE, 10 : 10 + EDGE] for i in range(6)]), Count()
    used = find_crops(fake, [train])
    found = search_crops(fake, used, train, 12, bar=counted)
    pasted = np.array([crop.woven < 6 for crop in found.searched])
    assert pasted.sum() == 6
    assert found.scores[pasted].min() > 0.9  # the surroundings of a paste move its texture a little
    assert found.scores[~pasted].max() < found.woven.threshold
    assert (found.woven.rate, found.woven.n) == (0.5, 12)
    assert max(found.real.rate, found.other.rate) < 0.1
    assert found.other.n == 12
    assert counted.done == 12 + found.real.n + 12 + UNRELATED <= num_pairs(used, 12) == 3 * 12 + UNRELATED


def test_the_floor_is_the_same_crop_in_another_patch_of_its_case_that_shows_other_tissue(train, woven):
    (crop,) = find_crops(woven.select([2]), [train]).found
    others = [i for i in range(12) if train.cases[i] == train.cases[2] and i != 2]
    drawn = {crop_search._of_the_case(crop, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert drawn == {train.images[i].tobytes() for i in others}
    again = train.images.copy()
    again[others] = np.roll(train.images[2], 8, axis=1)
    overlapping = replace(crop, lender=replace(train, images=again))
    alone = replace(crop, lender=replace(train, cases=train.names))
    for nothing in (overlapping, alone):
        assert crop_search._of_the_case(nothing, np.random.default_rng(0)) is None


def test_crops_without_another_patch_of_their_case_have_a_rate_without_a_floor(train, woven):
    single = replace(train, cases=train.names)
    found = search_crops(woven, find_crops(woven, [single]), single, 12)
    assert found.woven.n == 12
    assert found.real is None


def test_the_threshold_comes_from_pairs_of_different_cases_only(train, woven):
    case = train.cases[0]
    images = train.images.copy()
    members = [i for i in range(12) if train.cases[i] == case]
    images[members] = images[0]  # any pair within the case scores 1
    same = replace(train, images=images)
    rng, scores = np.random.default_rng(0), []

    def match(crop: np.ndarray, image: np.ndarray) -> float:
        scores.append((image == images[0]).all())
        return 0.5

    crops = find_crops(woven.select(members), [same]).found
    assert len(crop_search._unrelated_scores(crops, same, rng, match)) == UNRELATED
    assert not any(scores)
    one_case = replace(train, cases=["only"] * 12)
    found = search_crops(woven, find_crops(woven, [one_case]), one_case, 2)
    assert found.woven is None
    assert "not given: need at least 100 unrelated pairs" in found.note


def test_the_other_floor_is_the_same_crop_in_a_woven_patch_that_did_not_use_its_source(train, woven):
    crop = find_crops(woven, [train]).found[4]
    fake = replace(woven, crops=[[] if i in (3, 8) else woven.crops[4] for i in range(12)])
    drawn = {crop_search._woven_without(crop, fake, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert drawn == {woven.images[i].tobytes() for i in (3, 8)}
    everywhere = replace(woven, crops=[woven.crops[4]] * 12)
    assert crop_search._woven_without(crop, everywhere, np.random.default_rng(0)) is None
    assert search_crops(everywhere, find_crops(everywhere, [train]), train, 12).other is None


def test_crops_of_a_bank_are_held_against_themselves_in_any_real_patch(train, woven, make_patches):
    bank = [
        Crop(image[:EDGE, :EDGE], 0, f"set/stroma/{i}.png") for i, image in enumerate(make_patches(6, 1, 48).images)
    ]
    fake = replace(with_pastes(woven, [crop.pixels for crop in bank[:3]]),
                   crops=[[CropUse(crop.source, 0, 0, 0, EDGE, EDGE)] for crop in bank] + [[]] * 6)  # fmt: skip
    found = search_crops(fake, find_crops(fake, [train], bank), train, 12)
    assert found.woven.rate == 0.5
    assert found.other.rate == 0
    assert found.real is None
    one_case = replace(train, cases=["only"] * 12)
    assert search_crops(fake, find_crops(fake, [one_case], bank), one_case, 12).woven.rate == 0.5


def test_at_most_as_many_crops_as_asked_are_searched_for_and_the_same_ones_each_time(train, woven):
    used = find_crops(woven, [train])
    one, two = (search_crops(woven, used, train, 3) for _ in range(2))
    assert [crop.source for crop in one.searched] == [crop.source for crop in two.searched]
    np.testing.assert_array_equal(one.scores, two.scores)
    assert len(one.scores) == 3


def test_images_that_name_no_crops_or_none_that_is_known_give_a_reason(train, woven):
    unknown = [[CropUse("x", 0, 0, 0, 24, 24)]]
    for crops, reason in (([], "the synthetic images name no crops"), (unknown, "none of 1 crops could be found")):
        fake = replace(woven, crops=crops)
        found = search_crops(fake, find_crops(fake, [train]), train)
        assert found.woven is found.real is found.other is None
        assert found.note == f"not given: {reason}"
