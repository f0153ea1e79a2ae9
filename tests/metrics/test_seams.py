"""Seams: the test fails on plain tiling and passes on a field."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histoloom import HistoloomPipeline, find_model, load_bank
from histoloom.errors import InputError
from histoloom.metrics.seams import seams
from histoloom.models.field import Field, MapGround
from histoloom.models.sampling import Sampling
from histoloom.models.windows import WindowConfig

PITCH = 64


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth and fine noise in the colors of a stain."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((height // 8 + 1, width // 8 + 1)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    gray = 150 + 25 * smooth + 6 * rng.standard_normal((height, width))
    return np.clip(gray[..., None] * [1.1, 0.7, 1.0], 0, 255).astype(np.uint8)


def test_a_texture_has_no_seams():
    found = [seams(texture(seed, 400, 464), PITCH, seed=seed) for seed in range(6)]
    for name in ("gradient_p", "jump_p", "power_p", "strips_p"):
        assert np.median([getattr(s, name) for s in found]) > 0.15
        assert min(getattr(s, name) for s in found) > 0.004


def test_tiles_that_do_not_know_each_other_show():
    rows = [np.concatenate([texture(10 * y + x, PITCH, PITCH) for x in range(7)], 1) for y in range(6)]
    found = seams(np.concatenate(rows), PITCH)
    assert found.gradient_p == 0.001
    assert found.power_p < 0.01
    assert found.gradient > 0.1
    assert found.strips > 0.9
    assert found.strips_p == 0.001
    shifted = seams(np.concatenate(rows)[20:, 33:], PITCH)
    assert shifted.gradient_p == shifted.strips_p == 0.001  # wherever the grid begins


def test_tiles_of_other_stains_jump():
    image, rng = texture(0, 6 * PITCH, 6 * PITCH).astype(float), np.random.default_rng(1)
    stains = rng.uniform(-8, 8, (6, 6, 3)).repeat(PITCH, 0).repeat(PITCH, 1)
    found = seams(np.clip(image + stains, 0, 255).astype(np.uint8)[:, :-5], PITCH)
    assert found.jump_p == found.strips_p == 0.001
    assert found.jump > 0.2


def test_blurred_lines_show_as_well():
    image = texture(0, 6 * PITCH, 6 * PITCH)
    for line in range(PITCH, 6 * PITCH, PITCH):
        image[:, line - 3 : line + 3] = image[:, line - 3 : line + 3].mean(1, keepdims=True).astype(np.uint8)
    found = seams(image, PITCH)
    assert found.gradient_p == found.strips_p == 0.001


def test_what_repeats_at_the_decoders_cell_is_no_seam():
    image = texture(3, 6 * PITCH + 9, 6 * PITCH + 9).astype(float)
    image[:, ::8] += 6
    found = seams(np.clip(image, 0, 255).astype(np.uint8), PITCH)
    assert found.gradient_p > 0.01
    assert found.power_p > 0.01
    assert found.strips_p > 0.01


def test_too_small_an_image_is_refused():
    with pytest.raises(InputError, match="more than 3 tiles"):
        seams(texture(0, 100, 500), PITCH)
    with pytest.raises(InputError, match="multiple of 8"):
        seams(texture(0, 500, 500), 60)


def test_plain_tiling_of_the_bundled_model_fails_and_a_field_passes():
    pipeline = HistoloomPipeline.load(find_model("ebhi-seg-few-steps"), torch.float32)
    crops = load_bank(Path(find_model("ebhi-seg")) / "crops", pipeline.table).sets["stain-02"]
    y, x = np.mgrid[:360, :360]
    layout = np.where(np.sin(x / 17) + np.sin(y / 23 + x / 90) > 0, 3, 0).astype(np.uint8)
    tiled = np.zeros((360, 360, 3), np.uint8)
    for y in range(0, 360, 72):
        for x in range(0, 360, 72):
            part = layout[y : y + 72, x : x + 72]
            mine = [crop for crop in crops if (part == crop.tissue).any()]
            tiled[y : y + 72, x : x + 72] = pipeline(part, mine, seed=y * 360 + x)[0]
    found = seams(tiled, 72)
    assert found.gradient_p == found.power_p == 0.001
    assert found.gradient > 1
    assert found.strips == 1
    assert found.strips_p < 0.005
    scheduler, sampling = pipeline.resolve(Sampling())
    parts = pipeline.denoiser, pipeline.autoencoder, scheduler, sampling
    field = Field(*parts, MapGround(layout, crops), 1, WindowConfig(edge=96))
    found = seams(np.concatenate(list(field.pixels())), 72)
    assert min(found.gradient_p, found.power_p, found.jump_p, found.strips_p) > 0.05, found
