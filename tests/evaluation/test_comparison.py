import re
from dataclasses import replace

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.evaluation.comparison import compare, halves_by_case
from histoloom.evaluation.sources import ImageSet


def image_set(name: str, count: int, cases: int, kind: str = "patch dataset") -> ImageSet:
    numbers = [f"{name} {i}" for i in range(count)]
    images = np.random.default_rng(list(name.encode())).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return ImageSet(name, kind, "", "PNG", images, None, [f"{name} case {i % cases}" for i in range(count)], numbers)


def test_with_training_images_all_real_ones_are_the_reference_and_the_floor_comes_from_training_cases():
    real, fake, train = image_set("real", 30, 6), image_set("fake", 25, 25), image_set("train", 40, 8)
    sets = compare(real, fake, train)
    assert sets.reference is real
    assert len(sets.control) == len(sets.fake) == 25
    assert set(sets.control.names) <= set(train.names)
    assert sets.train is train
    assert sets.unseen == "reference"


def test_without_training_images_the_real_ones_are_halved_by_case():
    sets = compare(image_set("real", 40, 10), image_set("fake", 90, 90), None)
    assert set(sets.reference.cases).isdisjoint(sets.control.cases)
    assert len(sets.reference) + len(sets.control) == 40
    assert len(sets.fake) == len(sets.control)
    assert sets.train is sets.reference
    assert sets.unseen == "control"
    assert any("No training images" in note for note in sets.notes)
    assert any("of 90 synthetic images were drawn" in note for note in sets.notes)


def test_no_side_is_larger_than_asked():
    sets = compare(image_set("real", 30, 6), image_set("fake", 25, 25), image_set("train", 40, 8), most=10)
    assert len(sets.reference) == len(sets.control) == len(sets.fake) == 10
    assert len(sets.train) == 40


def test_the_seed_decides_what_is_drawn():
    sides = image_set("real", 30, 6), image_set("fake", 25, 25), image_set("train", 40, 8)
    drawn = [compare(*sides, most=10, seed=seed).fake.names for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_weakens_a_figure_is_noted():
    real = image_set("real", 20, 20, "image folder")
    fake = replace(image_set("fake", 20, 5, "image folder"), file_format="JPEG (lossy)")
    notes = compare(real, fake, None).notes
    assert any("Cases of real are unknown" in note for note in notes)
    names = [f"{i}.png" if i < 3 else f"P{i % 6}/{i}.png" for i in range(20)]
    cases = [f"real/{name}" if "/" not in name else name.partition("/")[0] for name in names]
    notes_of_some = compare(replace(real, cases=cases, names=names), fake, None).notes
    assert any(re.match(r"Cases of [123] images? of real are unknown", note) for note in notes_of_some)
    assert any("Formats differ (real: PNG; synthetic: JPEG (lossy))" in note for note in notes)


def test_a_dataset_of_lossy_pictures_is_another_format_than_woven_png_and_any_other_dataset_is_not():
    real, fake = image_set("real", 20, 5), image_set("fake", 20, 20, "woven patches")
    lossy = replace(real, made_from="JPEG (lossy)")
    told = "Formats differ (real: PNG (in Parquet), made from JPEG (lossy); synthetic: PNG)"
    assert any(note.startswith(told) for note in compare(lossy, fake, None).notes)
    for same in (real, replace(real, made_from="PNG"), replace(real, made_from="SVS")):
        assert not any("Formats differ" in note for note in compare(same, fake, None).notes)


def test_training_images_among_the_real_ones_are_noted_also_under_other_case_names():
    real, train = image_set("real", 20, 5), image_set("train", 20, 5)
    assert not any("pixel by pixel" in note for note in compare(real, image_set("fake", 9, 9), train).notes)
    images = np.concatenate([real.images[:3], train.images[3:]])
    sets = compare(real, image_set("fake", 9, 9), replace(train, images=images))
    assert any(note.startswith("3 images of real are also in train, pixel by pixel") for note in sets.notes)
    assert sets.reference.names == real.names[3:]
    with pytest.raises(InputError, match="real: all images are also in train, pixel by pixel"):
        compare(real, image_set("fake", 9, 9), replace(train, images=real.images))


def test_repeated_images_count_once():
    real, fake, train = image_set("real", 30, 6), image_set("fake", 25, 5), image_set("train", 40, 8)
    images = fake.images.copy()
    images[5:] = images[0]
    sets = compare(real, replace(fake, images=images), train)
    assert sets.fake.names == fake.names[:5]
    assert "20 synthetic images repeat another one, pixel by pixel, and do not count." in sets.notes


def test_the_floor_has_as_many_cases_as_the_synthetic_images_where_both_know_theirs():
    real, train = image_set("real", 60, 12), image_set("train", 60, 12)
    sets = compare(real, image_set("fake", 60, 4), train)
    assert len(set(sets.control.cases)) == len(set(sets.fake.cases)) == 4
    assert len(sets.control) == len(sets.fake) == 20
    sets = compare(real, image_set("fake", 60, 30), None)
    assert len(set(sets.control.cases)) == len(set(sets.fake.cases)) == 6
    unknown = compare(real, image_set("fake", 60, 60), train)
    assert len(unknown.fake) == 60
    assert any("The floor has 12 cases, the synthetic images count as 60" in note for note in unknown.notes)
    assert len(set(compare(real, image_set("fake", 60, 10), train, most=10).fake.cases)) == 10


@pytest.mark.parametrize(("images", "cases", "lacking"), [(49, 10, True), (50, 4, True), (50, 5, False)])
def test_a_verdict_takes_fifty_images_of_five_cases(images, cases, lacking):
    real, train = image_set("real", 90, 9), image_set("train", 90, 9)
    sets = compare(real, image_set("fake", 90, 9), train)
    fake = sets.fake.select(range(images))
    small = replace(sets, fake=replace(fake, cases=[f"fake {i % cases}" for i in range(images)]))
    assert bool(small.too_few) == lacking
    notes = compare(real, image_set("fake", 50, 4), train).notes
    assert any("has 4 cases: intervals need 5" in note for note in notes)


def test_what_cannot_be_compared_is_refused():
    real = image_set("real", 20, 5)
    with pytest.raises(InputError, match="fake: need at least 2 synthetic images"):
        compare(real, image_set("fake", 1, 1), None)
    with pytest.raises(InputError, match="all real images are of one case"):
        compare(image_set("real", 1, 1), image_set("fake", 9, 9), None)
    with pytest.raises(InputError, match="train: need at least 2 control images"):
        compare(real, image_set("fake", 9, 9), image_set("train", 1, 1))
    with pytest.raises(InputError, match="train: case 'real case 0' is also in real"):
        compare(real, image_set("fake", 9, 9), replace(image_set("real", 9, 3), where="train"))


def test_halves_share_no_case_and_are_about_equal():
    cases = [f"case {i % 17}" for i in range(200)]
    left, right = halves_by_case(cases, seed=3)
    assert sorted([*left, *right]) == list(range(200))
    assert {cases[i] for i in left}.isdisjoint(cases[i] for i in right)
    assert abs(len(left) - len(right)) <= 12
    with pytest.raises(InputError, match="one case"):
        halves_by_case(["a", "a"])
