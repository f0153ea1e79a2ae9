import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from histoloom.errors import ConfigError
from histoloom.slides.reader import open_slide
from histoloom.slides.tissue import TissueRules, find_tissue, focus, tissue_map, tissue_mask

GLASS = (243, 240, 244)
EOSIN, HAEMATOXYLIN = (226, 180, 205), (110, 70, 140)


def glass(height: int = 300, width: int = 400, noise: float = 3.0) -> np.ndarray:
    """Empty glass with the noise of a camera."""
    drawn = np.random.default_rng(0).normal(GLASS, noise, (height, width, 3))
    return drawn.clip(0, 255).astype(np.uint8)


def with_disc(image: np.ndarray, radius: float, color: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The image with a stained disc in its middle, and the disc's mask."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - height / 2, columns - width / 2) < radius
    return np.where(disc[..., None], np.uint8(color), image), disc


@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_empty_glass_is_empty(noise):
    assert not tissue_mask(glass(noise=noise), 8.0).any()


def test_a_shaded_slide_without_tissue_is_empty():
    shade = np.linspace(190, 250, 400)[None, :, None] * np.ones((300, 1, 3))
    assert not tissue_mask(shade.astype(np.uint8), 8.0).any()


def test_a_field_without_glass_is_all_tissue():
    stained = np.random.default_rng(1).normal((200, 130, 170), 25, (120, 120, 3)).clip(0, 255).astype(np.uint8)
    assert tissue_mask(stained, 8.0).mean() > 0.99


@pytest.mark.parametrize("color", [EOSIN, HAEMATOXYLIN])
def test_stained_tissue_is_found_to_the_pixel_row(color):
    image, disc = with_disc(glass(), 80, color)
    found = tissue_mask(image, 8.0)
    assert (found & disc).sum() / (found | disc).sum() > 0.96


def test_black_marker_and_dust_are_no_tissue():
    image, _ = with_disc(glass(), 80, (8, 8, 9))
    image[20:23, 20:23] = HAEMATOXYLIN
    assert tissue_mask(image, 8.0).mean() < 0.02


def test_small_holes_are_filled_and_large_ones_kept():
    image, disc = with_disc(glass(), 100, HAEMATOXYLIN)
    image[145:150, 130:135] = GLASS
    image[130:170, 190:230] = GLASS
    found = tissue_mask(image, 8.0)
    assert found[147, 132]
    assert not found[150, 210]
    assert disc[150, 210]


def test_fractions_of_boxes_equal_the_mean_of_the_mask():
    rng = np.random.default_rng(2)
    mask = rng.random((40, 60)) < 0.5
    tissue = tissue_map(mask, 4.0)
    corners = rng.integers(0, 30, (200, 2))
    edges = rng.integers(1, 10, (200, 1))
    boxes = np.hstack([corners, corners + edges]) * 4.0
    expected = [mask[y : y + e, x : x + e].mean() for (x, y), (e,) in zip(corners, edges, strict=True)]
    assert np.allclose(tissue.fraction(boxes), expected)


def test_fractions_are_exact_between_mask_pixels_and_zero_off_the_slide():
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    tissue = tissue_map(mask, 10.0)
    boxes = np.array([[15, 15, 25, 25], [10, 10, 20, 20], [15, 10, 20, 20], [100, 100, 110, 110], [-10, -10, 20, 20.0]])
    assert np.allclose(tissue.fraction(boxes), [0.25, 1.0, 1.0, 0.0, 1 / 9])


def test_blur_lowers_focus_whatever_the_stain(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        sharp = slide.read(1000, 1700, 256, 0.5)
    pale = (255 - (255 - sharp.astype(float)) * 0.5).astype(np.uint8)
    blurred = ndimage.gaussian_filter(sharp, (3, 3, 0))
    sharpness = focus(np.stack([sharp, pale, blurred]))
    assert sharpness[0] > 0.05
    assert sharpness[1] == pytest.approx(sharpness[0], rel=0.2)
    assert sharpness[2] < 0.015


def test_an_empty_patch_is_not_in_focus():
    assert focus(np.full((1, 64, 64, 3), 240, np.uint8))[0] == 0


def test_a_slide_is_searched_for_tissue_at_any_mpp(tmp_path):
    image, disc = with_disc(glass(600, 800), 160, HAEMATOXYLIN)
    Image.fromarray(image).save(tmp_path / "disc.png")
    with open_slide(tmp_path / "disc.png", 2.0) as slide:
        tissue = find_tissue(slide, TissueRules(mpp=8.0))
    assert tissue.mask.shape == (150, 200)
    assert tissue.step == 4.0
    whole = tissue.fraction(np.array([[0.0, 0.0, 800.0, 600.0]]))[0]
    assert whole == pytest.approx(disc.mean(), rel=0.05)


@pytest.mark.parametrize(("name", "slide_mpp", "low", "high"), [
    ("CMU-1-Small-Region.svs", None, 0.3, 0.45),
    ("TCGA-CR-7395-01A-01-TS1.svs", 0.5, 0.55, 0.7),
    ("OS-1-detail.ome.tif", None, 0.98, 1.0),
])  # fmt: skip
def test_real_slides_have_the_share_of_tissue_that_the_eye_sees(shared_data, name, slide_mpp, low, high):
    with open_slide(shared_data / "slides" / name, slide_mpp) as slide:
        assert low <= find_tissue(slide).mask.mean() <= high


def test_rules_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="tissue mpp"):
        TissueRules(mpp=0.0)
    with pytest.raises(ConfigError, match="cannot be negative"):
        TissueRules(hole=-1.0)
