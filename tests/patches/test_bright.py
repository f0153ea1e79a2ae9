from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from histoloom.errors import ConfigError
from histoloom.patches.bright import Light, LumenRules, bright_areas, light_of_cases, white_level
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.pictures import read_image


def gland(edge: int = 120, glass: int = 240, tissue: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A stained patch with a round lumen, and where that is."""
    y, x = np.mgrid[:edge, :edge] - edge // 2
    lumen = np.hypot(y, x) < edge / 6
    grain = np.random.default_rng(0).normal(0, 12, (edge, edge))
    image = np.where(lumen, glass, np.clip(tissue + grain, 0, 255))
    return np.repeat(image[..., None], 3, 2).astype(np.uint8), lumen


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_a_lumen_is_found_to_the_pixel():
    image, lumen = gland()
    assert white_level(image) == pytest.approx(240, abs=1)
    assert overlap(bright_areas(image, Light(240.0)), lumen) > 0.95


@pytest.mark.parametrize("mpp", [0.25, 0.5, 3.0])
def test_it_is_found_at_any_magnification(mpp):
    image, lumen = gland(round(120 * 1.5 / mpp))
    assert overlap(bright_areas(image, Light(white_level(image, mpp)), mpp), lumen) > 0.93


def test_a_dark_scan_is_judged_by_its_own_glass():
    image, lumen = gland(glass=150, tissue=70)
    assert overlap(bright_areas(image, Light(white_level(image))), lumen) > 0.95
    assert not bright_areas(image, Light(240.0)).any()


def test_pale_tissue_is_no_glass():
    image, _ = gland(glass=160, tissue=130)
    assert not bright_areas(image, Light(white_level(image))).any()


def test_an_empty_patch_is_glass_throughout():
    assert bright_areas(np.full((64, 64, 3), 238, np.uint8), Light(240.0)).all()


@pytest.mark.parametrize("color", [(0, 0, 0), (190, 120, 165), (250, 250, 250)])
def test_a_patch_of_one_color_is_glass_only_where_its_case_has_darker_ones(color):
    image, tissue = np.full((64, 64, 3), color, np.uint8), np.full((64, 64, 3), 60, np.uint8)
    alone = light_of_cases([("a", image, 1.5)])["a"]
    assert not bright_areas(image, alone).any()
    beside = light_of_cases([("a", image, 1.5), ("a", tissue, 1.5), ("b", tissue, 1.5)])
    assert bright_areas(image, beside["a"]).all() == (color != (0, 0, 0))
    assert not bright_areas(tissue, beside["b"]).any()


def test_a_patch_that_is_mostly_glass_shows_its_tissue():
    image = np.full((120, 120, 3), 240, np.uint8)
    image[40:70, 40:70] = 110
    found = bright_areas(image, Light(240.0))
    assert overlap(~found, image[..., 0] == 110) > 0.9


def test_specks_are_left_out():
    image, _ = gland(glass=120)
    image[10:13, 10:13] = 255
    assert not bright_areas(image, Light(250.0)).any()


@pytest.mark.parametrize("values", [{"brightness": 0.1}, {"brightness": 1.0}, {"contrast": -1.0}, {"contrast": 300.0}])
def test_settings_that_cannot_be_are_refused(values):
    with pytest.raises(ConfigError, match="brightness is"):
        replace(LumenRules(), **values)


def test_lumens_of_real_glands_are_bright_smooth_and_few(shared_data):
    known = find_pictures(shared_data / "ebhi-seg" / "manifest.csv", None, FolderImport(trim=2))
    glands = [picture for picture in known if "low-grade" in picture.source][:40]
    images = [read_image(picture.image)[2:-2, 2:-2] for picture in glands]
    found = [bright_areas(image, Light(white_level(image))) for image in images]
    assert 0.02 < np.mean(found) < 0.2
    shown = [(image, mask) for image, mask in zip(images, found, strict=True) if mask.any()]
    assert len(shown) > 30
    assert all(image[mask].mean() > image[~mask].mean() + 30 for image, mask in shown)
    within = [image[ndimage.binary_erosion(mask, iterations=2)].std() for image, mask in shown if mask.sum() > 400]
    assert np.median(within) < np.median([image[~mask].std() for image, mask in shown]) / 2
