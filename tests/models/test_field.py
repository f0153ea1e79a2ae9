"""Fields: large maps are woven window by window, the same from wherever one begins."""

import numpy as np
import pytest
import torch
from weaving import grain, halves

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, ModelError
from histoloom.models.field import Area, Field, MapGround
from histoloom.models.field_noise import BLOCK, field_noise
from histoloom.models.sampling import Sampling
from histoloom.models.windows import Axis, WindowConfig

SMALL = WindowConfig(edge=96)
CROPS = [Crop(grain(1), 0), Crop(grain(2), 1)]


def field(pipeline, semantic_map, crops=(), windows=None, **sampling) -> Field:
    scheduler, resolved = pipeline.resolve(Sampling(**{"steps": 3} | sampling))
    ground = MapGround(semantic_map, list(crops))
    return Field(pipeline.denoiser, pipeline.autoencoder, scheduler, resolved, ground, 5, windows or SMALL)


def image(made: Field, first: int = 0) -> np.ndarray:
    return np.concatenate(list(made.pixels(first)))


@pytest.mark.parametrize("offset", [0, 1, 7, 17])
@pytest.mark.parametrize("length", [28, 60, 100])
def test_shares_of_windows_sum_to_one_and_windows_overlap_no_more_than_they_must(offset, length):
    axis = Axis.of(length, 24, 18, offset, 4)
    edges = [len(shares) for shares in axis.shares]
    total = np.zeros(length)
    for start, shares in zip(axis.starts, axis.shares, strict=True):
        total[start : start + len(shares)] += shares
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert (axis.starts[0], axis.end(len(edges) - 1)) == (0, length)
    assert set(edges[1:-1]) <= {24}
    assert all(12 <= edge <= 24 and edge % 4 == 0 for edge in edges)
    overlaps = [axis.end(number) - start for number, start in enumerate(axis.starts[1:])]
    assert min(overlaps) >= 6
    assert length == 28 or sum(overlaps) < 6 * len(overlaps) + 12
    assert axis.first_over(0) == 0
    assert axis.end(axis.first_over(20)) > 20


def test_noise_is_a_function_of_the_place():
    whole = field_noise(3, 0, 4, 2, BLOCK, 40)
    np.testing.assert_array_equal(field_noise(3, 0, 4, 2, BLOCK, 24), whole[:, :, :24])
    assert not np.array_equal(field_noise(3, 0, 4, 3, BLOCK, 40), whole)
    assert not np.array_equal(field_noise(4, 0, 4, 2, BLOCK, 40), whole)
    many = np.concatenate([field_noise(3, draw, 4, 0, BLOCK, 400) for draw in range(20)])
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    assert abs(np.corrcoef(many[:, :, :-8].ravel(), many[:, :, 8:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize(("objective", "sampler"), [("flow", "unipc"), ("flow", "heun"), ("epsilon-l1", "ddim")])
def test_a_field_is_the_same_from_whatever_row_it_begins(make_pipeline, objective, sampler):
    made = field(make_pipeline(objective=objective), halves(0, 1, size=224), CROPS, sampler=sampler)
    whole = image(made)
    assert whole.shape == (224, 224, 3)
    for first in (150, 223):
        np.testing.assert_array_equal(image(made, first), whole[first:])
    assert made.count(200) < made.count()


def test_a_field_of_one_window_is_what_one_call_of_the_network_draws(pipeline):
    semantic_map = halves(0, 1, size=64)
    one = image(field(pipeline, semantic_map, CROPS))
    noise = np.concatenate([field_noise(5, 0, 4, row, BLOCK, 10) for row in range(2)], 1)[:, :10]
    pipeline_noise = pipeline._noise
    try:
        pipeline._noise = lambda draws, shape: torch.from_numpy(noise)[None]
        other = pipeline(semantic_map, CROPS, steps=3, seed=5)[0]
    finally:
        pipeline._noise = pipeline_noise
    assert np.abs(one.astype(int) - other).max() <= 1


def test_crops_reach_their_own_part_of_a_field(pipeline):
    semantic_map = halves(0, 1, size=256)
    one = image(field(pipeline, semantic_map, CROPS)).astype(int)
    other = image(field(pipeline, semantic_map, [CROPS[0], Crop(grain(9), 1)])).astype(int)
    changed = np.abs(one - other).mean((0, 2))
    assert changed[:40].max() < 0.1 < changed[150:].mean()


def test_shares_of_crops_blend_them(pipeline):
    class Blended(MapGround):
        def read(self, y, x, height, width):
            area = super().read(y, x, height, width)
            cells = np.full((height // 8, width // 8), self.share, np.float32)
            return Area(area.semantic_map, [Crop(grain(1), 0), Crop(grain(2), 0)], np.stack([1 - cells, cells]))

    def woven(share) -> np.ndarray:
        scheduler, sampling = pipeline.resolve(Sampling(steps=3))
        ground = Blended(np.zeros((96, 96), np.uint8), [])
        ground.share = share
        return image(Field(pipeline.denoiser, pipeline.autoencoder, scheduler, sampling, ground, 5, SMALL)).astype(int)

    alone = image(field(pipeline, np.zeros((96, 96), np.uint8), [Crop(grain(1), 0)])).astype(int)
    first, between, second = woven(0.0), woven(0.5), woven(1.0)
    assert np.abs(first - alone).max() <= 1  # a crop of no share is not seen
    assert np.abs(between - first).mean() > 0.1
    assert np.abs(between - second).mean() > 0.1


def test_guidance_does_not_act_where_nothing_is_labeled(pipeline):
    semantic_map = np.full((96, 96), 255, np.uint8)
    strong = image(field(pipeline, semantic_map, map_guidance=9.0))
    np.testing.assert_array_equal(strong, image(field(pipeline, semantic_map, map_guidance=1.0)))
    semantic_map[:48] = 1
    assert (image(field(pipeline, semantic_map, map_guidance=9.0)) != image(field(pipeline, semantic_map))).any()


@pytest.mark.parametrize("objective", ["flow", "epsilon-l1"])
def test_a_field_ends_with_the_latents_that_it_must_keep(make_pipeline, objective):
    pipeline = make_pipeline(objective=objective)
    made = field(pipeline, halves(0, 1, size=128), CROPS, steps=6)
    wanted = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 4, 18, 18), dtype=np.float32))
    kept = torch.zeros(1, 1, 18, 18)
    kept[..., 9:] = 1

    class Half:
        def read(self, top, bottom):
            return wanted[:, :, top:bottom], kept[:, :, top:bottom]

    free, ends = image(made), {}
    made.known = Half()
    decoder = made._decode
    made._decode = lambda bar, top, left, latents: (
        ends.setdefault((top, left), latents) is None or decoder(bar, top, left, latents)
    )
    bound = image(made)
    for (top, left), latents in ends.items():
        right = left + latents.shape[3]
        mine = slice(max(9, left) - left, None)
        torch.testing.assert_close(
            latents[..., mine],
            wanted[:, :, top : top + latents.shape[2], max(9, left) : right],
            atol=0.02 if objective == "flow" else 0.2,
            rtol=0,
        )
    assert (free[:, :40] != bound[:, :40]).any()  # the free half knows of the other


def test_the_pipeline_weaves_a_large_map_as_a_field(pipeline):
    semantic_map = np.tile(halves(0, 1, size=64), (1, 9))
    woven = pipeline(semantic_map, CROPS, steps=2, seed=5)[0]
    scheduler, sampling = pipeline.resolve(Sampling(steps=2))
    made = Field(pipeline.denoiser, pipeline.autoencoder, scheduler, sampling, MapGround(semantic_map, CROPS), 5)
    np.testing.assert_array_equal(woven, image(made))
    assert woven.shape == (64, 576, 3)


def test_a_field_refuses_what_is_not_finite(make_pipeline):
    broken = make_pipeline()
    torch.nn.init.constant_(broken.denoiser.enter.bias, float("nan"))
    with pytest.raises(ModelError, match="pixels are not finite"):
        image(field(broken, halves(0, 1, size=128)))
    with pytest.raises(ConfigError, match="overlap"):
        WindowConfig(overlap=0.0)
