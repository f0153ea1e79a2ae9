from dataclasses import replace

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.evaluation.comparison import compare
from histoloom.evaluation.sources import ImageSet


def image_set(name: str, count: int, cases: int, kind: str = "patch dataset") -> ImageSet:
    numbers = [f"{name} {i}" for i in range(count)]
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
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
    notes = compare(real, image_set("fake", 9, 9), replace(train, images=255 - train.images)).notes
    assert not any("pixel by pixel" in note for note in notes)
    images = np.concatenate([real.images[:3], 255 - train.images[3:]])
    notes = compare(real, image_set("fake", 9, 9), replace(train, images=images)).notes
    assert any(note.startswith("3 images of real are also in train, pixel by pixel") for note in notes)


def test_what_cannot_be_compared_is_refused():
    real = image_set("real", 20, 5)
    with pytest.raises(InputError, match="fake: 1 fake image is no distribution"):
        compare(real, image_set("fake", 1, 1), None)
    with pytest.raises(InputError, match="real: 1 real image is no distribution"):
        compare(image_set("real", 1, 1), image_set("fake", 9, 9), None)
    with pytest.raises(InputError, match="train: 1 training image is no distribution"):
        compare(real, image_set("fake", 9, 9), image_set("train", 1, 1))
    with pytest.raises(InputError, match="train: case 'real case 0' is in real"):
        compare(real, image_set("fake", 9, 9), replace(image_set("real", 9, 3), where="train"))
