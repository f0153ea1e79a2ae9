import numpy as np
import pytest
from PIL import Image

from histoloom.conditioning.inputs import CROP_MULTIPLE, MAP_STEP, Crop, canvas, no_map, pack_crops, type_map
from histoloom.errors import ImageError, InputError


def pixels(height: int, width: int, value: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_map_is_sampled_in_the_middle_of_steps_and_unlabelled_gets_an_id_of_its_own():
    semantic_map = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4) % 3, 8, 0), 8, 1)
    semantic_map[:8, :8] = 255
    small = type_map(semantic_map, num_types=3)
    assert small.shape == (32 // MAP_STEP,) * 2
    np.testing.assert_array_equal(small[::4, ::4], [[3, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2], [0, 1, 2, 0]])


def test_no_map_is_another_id_than_unlabelled():
    assert set(np.unique(no_map(32, 64, num_types=3))) == {4}
    assert no_map(32, 64, 3).shape == type_map(np.zeros((32, 64), np.uint8), 3).shape


def test_an_id_that_the_model_does_not_know_is_named():
    with pytest.raises(InputError, match="holds id 7; the model knows 3 types"):
        type_map(np.full((32, 32), 7, np.uint8), 3)


@pytest.mark.parametrize("shape", [(23, 64), (64, 23)])
def test_a_crop_below_24_px_is_refused_by_its_file(shape):
    with pytest.raises(ImageError, match=r"bank/gland/a\.png: is \d+ x \d+ px; crops need 24 px or more"):
        Crop(pixels(*shape), 0, "bank/gland/a.png")


@pytest.mark.usefixtures("untyped")
def test_a_crop_that_is_no_array_is_refused_by_its_kind():
    for picture, kind in ((Image.new("RGB", (32, 32)), "Image"), ([[[0, 0, 0]]], "list")):
        with pytest.raises(ImageError, match=f"^mine: is a {kind}; give an array of RGB pixels"):
            Crop(picture, 0, "mine")


def test_packed_crops_know_their_sample_their_type_and_what_of_them_is_crop():
    packed = pack_crops([[Crop(pixels(24, 30), 1)], [], [Crop(pixels(40, 24), 0), Crop(pixels(24, 24), 2)]])
    assert packed.pixels.shape == (3, 48, 48, 3)
    assert packed.pixels.shape[1] % CROP_MULTIPLE == 0
    np.testing.assert_array_equal(packed.types, [1, 0, 2])
    np.testing.assert_array_equal(packed.samples, [0, 2, 2])
    np.testing.assert_array_equal(packed.valid.sum((1, 2)), [24 * 30, 40 * 24, 24 * 24])
    assert packed.valid[0, :24, :30].all()
    assert (packed.pixels[packed.valid] == 200).all()
    assert (packed.pixels[~packed.valid] == 0).all()


def test_an_edge_makes_padding_independent_of_the_crops_beside_it():
    alone = pack_crops([[Crop(pixels(24, 24), 0)]], 90)
    beside = pack_crops([[Crop(pixels(24, 24), 0), Crop(pixels(90, 30), 1)]], 90)
    np.testing.assert_array_equal(alone.pixels[0], beside.pixels[0])
    assert alone.pixels.shape[1] == 96
    assert pack_crops([[Crop(pixels(100, 24), 0)]], 90).pixels.shape[1] == 112


def test_no_crops_at_all_are_none():
    assert pack_crops([[], []]) is None


def test_a_canvas_shows_crops_at_their_places_and_is_valid_nowhere_else():
    shown, valid = canvas((64, 96), [(Crop(pixels(24, 30), 0), 5, 7), (Crop(pixels(40, 40, 0), 1), 50, 80)])
    assert valid.sum() == 24 * 30 + 14 * 16
    assert (shown[5:29, 7:37] == 200).all()
    assert valid[50:, 80:].all()  # black is a color like any other
    assert (shown[~valid] == 0).all()
