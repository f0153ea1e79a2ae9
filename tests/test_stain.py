import numpy as np
import pytest

from histoloom.errors import ConfigError
from histoloom.stain import HED_TO_OD, StainJitter, StainShift, apply_stain, draw_stain, rgb_to_hed

BYTES = np.random.default_rng(0).integers(1, 256, (40, 40, 3), dtype=np.uint8)


def paint(amounts: np.ndarray) -> np.ndarray:
    """Light through known amounts of the three dyes, by the law of Beer and Lambert."""
    return np.rint(255 * np.exp(-amounts @ HED_TO_OD)).astype(np.uint8)


def test_amounts_of_dye_come_back_from_the_light_they_let_through():
    amounts = np.random.default_rng(1).uniform(0, 0.6, (16, 16, 3))
    assert np.abs(rgb_to_hed(paint(amounts)) - amounts).max() < 0.03


def test_hed_agrees_with_scikit_image():
    color = pytest.importorskip("skimage.color", reason="the independent implementation is not installed")
    theirs = -np.log(1e-6) * color.rgb2hed(BYTES)  # theirs counts in units of the darkest black, and cuts at zero
    assert np.allclose(np.maximum(rgb_to_hed(BYTES), 0), theirs, atol=1e-4)


def test_twice_the_dye_is_twice_the_optical_density():
    twice = apply_stain(BYTES, StainShift(2 * np.eye(3), np.zeros(3)))
    assert np.array_equal(twice, np.rint(255 * (BYTES / 255) ** 2).astype(np.uint8))


def test_no_jitter_leaves_every_pixel_as_it_is():
    shift = draw_stain(StainJitter(0.0, 0.0, 0.0), np.random.default_rng(0))
    assert np.array_equal(apply_stain(BYTES, shift), BYTES)


def test_jitter_scales_and_shifts_each_dye_within_its_bounds():
    amounts = np.random.default_rng(2).uniform(0.2, 0.4, (8, 8, 3))
    jitter = StainJitter(scale=0.2, shift=0.03, brightness=0.0)
    for seed in range(20):
        drawn = draw_stain(jitter, np.random.default_rng(seed))
        seen = rgb_to_hed(apply_stain(paint(amounts), drawn))
        scale, shift = np.polynomial.polynomial.polyfit(amounts[..., 0].ravel(), seen[..., 0].ravel(), 1)[::-1]
        assert 0.75 < scale < 1.25
        assert abs(shift) < 0.05
    one, again = (draw_stain(jitter, np.random.default_rng(3)) for _ in range(2))
    assert one.offset.tolist() == again.offset.tolist()


def test_brightness_scales_the_light_and_stops_at_white():
    drawn = draw_stain(StainJitter(0.0, 0.0, 0.5), np.random.default_rng(0))
    light = np.exp(-drawn.offset[0])
    assert not np.isclose(light, 1)
    assert np.allclose(apply_stain(BYTES, drawn), np.minimum(np.rint(light * BYTES.astype(float)), 255), atol=1)


def test_images_are_restained_alone_or_many_at_once():
    shift = draw_stain(StainJitter(), np.random.default_rng(4))
    assert np.array_equal(apply_stain(np.stack([BYTES, BYTES]), shift)[1], apply_stain(BYTES, shift))


@pytest.mark.parametrize("values", [{"scale": 1.0}, {"shift": -0.1}, {"brightness": 2.0}])
def test_jitter_out_of_range_is_refused(values):
    with pytest.raises(ConfigError, match=r"must be in \[0, 1\)"):
        StainJitter(**values)
