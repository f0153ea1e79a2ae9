from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from histoloom.augmentation import dihedral
from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.evaluation.crop_sources import OUTSIDE, SEVERAL, UNKNOWN, find_crops
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.bank import load_bank
from histoloom.generation.woven_patch import CropUse
from histoloom.tissue import TissueTable


@pytest.fixture(scope="module")
def train(make_patches) -> ImageSet:
    drawn = make_patches(6, 3, 64, 3)
    return ImageSet("train", "patch dataset", "train", "PNG", drawn.images, drawn.semantic_maps, drawn.cases,
                    drawn.sources)  # fmt: skip


def woven_with(*crops: CropUse) -> ImageSet:
    """One woven patch that names these crops."""
    image, maps = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.uint8)
    return ImageSet("fake", "woven patches", "", "PNG", image, maps, ["layout 0"], ["images/0.png"], crops=[[*crops]])


def test_a_crop_is_cut_from_the_real_patch_that_it_names(train):
    used = find_crops(woven_with(CropUse("03.png", 1, 8, 30, 26, 24)), [train])
    (crop,) = used.found
    np.testing.assert_array_equal(crop.pixels, train.images[3, 30:54, 8:34])
    assert (crop.woven, crop.lender, crop.index) == (0, train, 3)
    assert (used.named, used.missing) == (1, {})


def test_a_patch_is_found_by_the_id_that_stands_for_its_name_in_woven_patches(train):
    used = find_crops(woven_with(CropUse(content_id(train.images[3]), 1, 8, 30, 26, 24)), [train])
    (crop,) = used.found
    np.testing.assert_array_equal(crop.pixels, train.images[3, 30:54, 8:34])
    assert (crop.lender, crop.index) == (train, 3)


def test_a_name_that_nobody_or_several_have_and_a_place_that_is_none_are_counted_with_their_reason(train):
    slide = replace(train, names=["slide.svs"] * 5 + ["other.svs"])
    used = find_crops(
        woven_with(
            CropUse("slide.svs", 0, 0, 0, 24, 24), CropUse("absent.png", 0, 0, 0, 24, 24),
            CropUse("../../secret.png", 0, 0, 0, 24, 24), CropUse("other.svs", 0, 41, 0, 24, 24),
            CropUse("other.svs", 0, -1, 0, 24, 24), CropUse("other.svs", 0, 0, 0, 2, 2),
            CropUse("other.svs", 0, 40, 40, 24, 24),
        ),
        [slide],
    )  # fmt: skip
    assert [crop.source for crop in used.found] == ["other.svs"]
    assert used.missing == {SEVERAL: 1, UNKNOWN: 2, OUTSIDE: 3}
    assert used.named == 7


def test_crops_of_patches_that_were_cut_from_one_slide_are_found_by_their_place(make_patches):
    drawn = make_patches(6, 2, 96, 3)
    places = np.array([[512 * i, 1024, 512] for i in range(6)])
    slides = replace(drawn, sources=[f"{case}.svs" for case in drawn.cases], places=places)
    assert slides.names[1] == f"{drawn.cases[1]}.svs (512, 1024)"
    lender = ImageSet("train", "patch dataset", "train", "PNG", slides.images, slides.semantic_maps, slides.cases,
                      slides.names)  # fmt: skip
    references = ReferenceCrops(slides, CropConfig(base=32, largest=48, drop_type=0.0, color_tolerance=442.0))
    nowhere, rng = np.zeros((96, 96), bool), np.random.default_rng(0)
    crops = [c for i in range(6) for c in references.draw(i, nowhere, slides.semantic_maps[i], None, rng)]
    uses = [CropUse(c.source, c.tissue, c.x, c.y, *c.pixels.shape[1::-1]) for c in crops]
    used = find_crops(woven_with(*uses), [lender])
    assert (len(used.found), used.missing) == (len(crops), {})
    assert crops
    for crop, found in zip(crops, used.found, strict=True):
        assert any(np.array_equal(dihedral(found.pixels, which), crop.pixels) for which in range(8))


def test_a_plain_folder_lends_nothing_since_places_are_those_of_a_dataset(train):
    plain = replace(train, kind="image folder")
    assert find_crops(woven_with(CropUse("03.png", 1, 0, 0, 24, 24)), [plain]).missing == {UNKNOWN: 1}


def test_a_name_that_a_patch_and_a_file_share_tells_no_pixels(train):
    bank = [Crop(train.images[0, :24, :24], 0, "03.png")]
    assert find_crops(woven_with(CropUse("03.png", 1, 0, 0, 24, 24)), [train], bank).missing == {SEVERAL: 1}


@pytest.mark.parametrize("sets", ["", "stain-07"])
def test_files_of_a_bank_are_found_under_the_names_that_weaving_gave_them_and_at_their_size_only(tmp_path, train, sets):
    path = tmp_path / "bank" / sets / "gland" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(train.images[0, :30, :40]).save(path)
    bank = load_bank(tmp_path / "bank", TissueTable.from_names(["stroma", "gland"]))
    (crop,) = bank.draw(np.ones((8, 8), np.uint8), np.random.default_rng(0))
    whole = CropUse(crop.source, 1, 0, 0, 40, 30)
    lent = [crop for crops in bank.sets.values() for crop in crops]
    used = find_crops(woven_with(whole, replace(whole, width=30), replace(whole, x=5)), [train], lent)
    np.testing.assert_array_equal(used.found[0].pixels, train.images[0, :30, :40])
    assert used.found[0].lender is None
    assert used.missing == {OUTSIDE: 2}
    by_id = find_crops(woven_with(replace(whole, source=content_id(crop.pixels))), [train], lent)
    np.testing.assert_array_equal(by_id.found[0].pixels, crop.pixels)
    assert find_crops(woven_with(whole), [train]).missing == {UNKNOWN: 1}
