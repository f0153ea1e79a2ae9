"""The copy score: NCC against scikit-image, pastes planted in every disguise, real pairs that must not be suspected."""

import csv
import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from histoloom.augmentation import dihedral
from histoloom.metrics import copy_score
from histoloom.metrics.copy_score import best_match, best_matches
from histoloom.stain import StainJitter, apply_stain, draw_stain


def tissue(edge: int, seed: int) -> np.ndarray:
    """Nuclei at random on eosin: dark violet discs of 3 to 5 px on grainy pink."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:edge, :edge]
    nuclei = np.zeros((edge, edge), bool)
    for cy, cx in rng.uniform(0, edge, (edge * edge // 150, 2)):
        nuclei |= (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(2, 5) ** 2
    image = np.where(nuclei[..., None], (95, 60, 140), (225, 165, 200)) + rng.normal(0, 6, (edge, edge, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def paste(crop: np.ndarray, image: np.ndarray, y: int = 37, x: int = 41) -> np.ndarray:
    pasted = image.copy()
    pasted[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return pasted


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.fixture(scope="module")
def threshold() -> float:
    """What unrelated tissue reaches, at most, over 20 pairs."""
    return max(best_match(tissue(48, seed), tissue(96, 100 + seed)) for seed in range(20))


def test_the_best_match_is_the_highest_ncc_that_scikit_image_finds_over_all_orientations():
    feature = pytest.importorskip("skimage.feature", reason="needs scikit-image to compare with")
    crop, image = tissue(32, 1), tissue(80, 2)
    part, density = copy_score._density(crop), copy_score._density(image)
    expected = max(feature.match_template(density, dihedral(part, which)).max() for which in range(8))
    assert best_match(crop, image) == pytest.approx(expected, abs=1e-4)


def test_wide_images_are_searched_in_all_orientations_too():
    crop, image = tissue(40, 1), tissue(120, 2)[:70]
    assert best_match(crop, paste(np.rot90(crop), image, 20, 60)) > 0.9


@pytest.mark.parametrize("which", range(8))
def test_a_paste_is_found_however_it_was_turned_or_mirrored(which, threshold):
    crop = tissue(48, 1)
    assert best_match(crop, paste(dihedral(crop, which), tissue(96, 2))) > max(0.9, threshold)


def test_a_paste_is_found_under_another_stain_noise_and_jpeg(threshold):
    rng = np.random.default_rng(0)
    for seed in range(5):
        crop = tissue(40, seed)
        woven = apply_stain(paste(dihedral(crop, seed), tissue(96, 50 + seed)), draw_stain(StainJitter(), rng))
        noisy = np.clip(woven + rng.normal(0, 4, woven.shape), 0, 255).astype(np.uint8)
        assert best_match(crop, jpeg(noisy, 75)) > threshold


def test_a_paste_of_only_a_part_of_the_crop_is_found(threshold):
    crop = tissue(96, 1)
    assert best_match(crop, paste(crop[20:68, 8:56], tissue(96, 2))) > threshold


def test_a_crop_smaller_than_a_part_is_compared_whole(threshold):
    crop = tissue(24, 1)
    assert best_match(crop, paste(crop, tissue(96, 2))) > threshold


def test_flat_crops_and_flat_images_cannot_be_judged():
    glass = np.full((64, 64, 3), 240, np.uint8)
    assert np.isnan(best_match(glass, tissue(64, 1)))
    assert np.isnan(best_match(tissue(64, 1), glass))


def test_an_image_smaller_than_a_part_is_searched_for_parts_of_its_own_size():
    crop = tissue(48, 1)
    assert best_match(crop, crop[:24, :28]) > 0.9  # the border of the image moves its texture a little
    assert best_match(crop, tissue(28, 2)[:24]) < 0.9
    assert np.isnan(best_match(crop, crop[:1]))


def test_real_tissue_a_paste_stands_out_and_patches_of_other_cases_do_not(shared_data):
    folder = shared_data / "ebhi-seg"
    with open(folder / "manifest.csv", encoding="utf-8") as file:
        of_case = {row["case_id"]: folder / row["image"] for row in csv.DictReader(file)}
    images = [np.asarray(Image.open(path).convert("RGB"))[2:-2, 2:-2] for path in list(of_case.values())[:13]]
    unrelated, pasted = [], []
    for first, second in pairwise(images):
        crop = first[80:128, 80:128]
        unrelated.append(best_match(crop, second))
        pasted.append(best_match(crop, paste(np.rot90(crop), second)))
    assert np.nanmax(unrelated) < np.nanmin(pasted)


def test_many_crops_are_searched_as_each_one_is():
    crops, image = [tissue(40, 1), tissue(24, 2), tissue(40, 3)], tissue(120, 4)[:70]
    image = paste(np.rot90(crops[2]), image, 20, 60)
    assert best_matches(crops, image) == [best_match(crop, image) for crop in crops]
    assert best_matches([], image) == []
