"""Redrawing a region of a real image keeps every other pixel."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from weaving import grain

from histoloom.canvas.inpaint import inpaint, read_mask
from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError
from histoloom.metrics import border
from histoloom.models.sampling import Sampling


def disk(height: int, width: int, radius: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - height // 2) ** 2 + (x - width // 2) ** 2 < radius**2


def test_only_the_region_changes(make_pipeline, small_patches):
    pipeline, image, semantic_map = make_pipeline(), small_patches.images[0], small_patches.semantic_maps[0]
    mask = disk(*semantic_map.shape)
    made = inpaint(pipeline, image, semantic_map, mask, [], Sampling(steps=3))
    np.testing.assert_array_equal(made[~mask], image[~mask])
    assert np.abs(made[mask].astype(int) - image[mask]).mean() > 5
    np.testing.assert_array_equal(inpaint(pipeline, image, semantic_map, mask, [], Sampling(steps=3)), made)
    types = np.unique(semantic_map[mask]).tolist()
    other = inpaint(pipeline, image, semantic_map, mask, [Crop(grain(1), types[0])], Sampling(steps=3))
    assert (other != made).any()


def test_a_small_region_of_a_large_image_is_woven_alone(make_pipeline):
    pipeline = make_pipeline()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (700, 900, 3), dtype=np.uint8)
    mask = np.zeros((700, 900), bool)
    mask[300:330, 5:40] = True
    made = inpaint(pipeline, image, np.zeros((700, 900), np.uint8), mask, [], Sampling(steps=1))
    np.testing.assert_array_equal(made[~mask], image[~mask])
    assert (made[mask] != image[mask]).any()


def test_a_border_shows_where_another_texture_was_pasted():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(100, 200, (40, 40, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((160, 160), Image.Resampling.BICUBIC))
    mask = disk(160, 160)
    found = border(image, mask)
    assert 0.8 < found.gradient < 1.2
    assert found.p > 0.05
    pasted = np.where(mask[..., None], image[::-1, ::-1], image)
    pasted = np.where(mask[..., None], np.roll(pasted, 37, 0), pasted)
    found = border(pasted, mask)
    assert found.gradient > 1.5
    assert found.p < 0.05
    with pytest.raises(InputError, match="too small"):
        border(image[:8, :8], mask[76:84, 76:84])


def test_masks_that_mark_nothing_or_are_of_another_size_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    for pixels, said in (
        (np.zeros((50, 60)), "marks nothing"),
        (np.ones((50, 60)), "marks everything"),
        (np.eye(40), "is 40 x 40 px, and the image 60 x 50"),
    ):
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        with pytest.raises(InputError, match=said):
            read_mask(path, (50, 60, 3))


@pytest.mark.parametrize("name", ["palette.png", "quantized.png", "rgb.png", "alpha.png", "white_is_zero.tif"])
def test_a_mask_marks_what_it_shows(tmp_path, name):
    region = disk(50, 60, 12)
    gray = Image.fromarray(np.where(region, 255, 0).astype(np.uint8))
    path = tmp_path / name
    if name == "palette.png":  # white is index 0, black index 1
        picture = Image.fromarray((~region).astype(np.uint8), "P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
    elif name == "quantized.png":  # as Pillow indexes it: white first
        picture = gray.convert("RGB").quantize(2)
    elif name == "alpha.png":  # white all over, the selection in its alpha
        picture = Image.merge("RGBA", (*[Image.new("L", gray.size, 255)] * 3, gray))
    else:
        picture = gray.convert("RGB")
    if name == "white_is_zero.tif":
        tifffile.imwrite(path, np.asarray(gray) ^ 255, photometric="miniswhite")
    else:
        picture.save(path)
    np.testing.assert_array_equal(read_mask(path, (50, 60, 3)), region)
