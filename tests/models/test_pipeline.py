import numpy as np
import pytest
import torch
from weaving import KINDS, apart, grain, halves, weave

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ModelError
from histoloom.models.conditions import Context
from histoloom.models.guided import predict
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import make_sampler


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_depends_on_its_seed_and_not_on_its_batch(pipelines, kind):
    maps = [halves(0, 1), halves(1, 2), halves(2, 0), halves(0, 1)]
    # Crops of very different size and number: whatever fills the gaps must not show.
    crops = [[Crop(grain(0), 0)], [Crop(grain(1, 120, 130), 1), Crop(grain(2, 24, 24), 2)], [], [Crop(grain(3), 1)]]
    seeds = [3, 1, 4, 1]
    together = weave(pipelines[kind], maps, crops, seed=seeds)
    for batch_size in (1, 2, 3):
        assert apart(weave(pipelines[kind], maps, crops, seed=seeds, batch_size=batch_size), together) <= 1
    alone = [weave(pipelines[kind], maps[i], [crops[i]], seed=seeds[i])[0] for i in range(4)]
    assert apart(np.stack(alone), together) <= 1
    backwards = weave(pipelines[kind], maps[::-1], crops[::-1], seed=seeds[::-1])
    assert apart(backwards[::-1], together) <= 1


def test_one_seed_counts_up_over_the_maps(pipeline):
    maps = [halves(0, 1)] * 3
    np.testing.assert_array_equal(weave(pipeline, maps, seed=7), weave(pipeline, maps, seed=[7, 8, 9]))
    images = weave(pipeline, maps, seed=7)
    assert apart(images[0], images[1]) > 20
    np.testing.assert_array_equal(weave(pipeline, maps, seed=7), images)


def test_the_bar_counts_patches(pipeline):
    counted = []

    class Counter:
        def advance(self, count: int = 1, note: str = "") -> None:
            counted.append(count)

    weave(pipeline, [halves(0, 1)] * 5, batch_size=2, bar=Counter())
    assert counted == [2, 2, 1]


def test_unconditional_looks_at_neither_map_nor_crops(pipelines):
    one = weave(pipelines["unconditional"], halves(0, 1), {0: grain(0)})
    other = weave(pipelines["unconditional"], halves(2, 1), map_guidance=3.0)
    np.testing.assert_array_equal(one, other)


def test_map_looks_at_the_map_alone(pipelines):
    plain = weave(pipelines["map"], halves(0, 1))
    np.testing.assert_array_equal(weave(pipelines["map"], halves(0, 1), {0: grain(0)}), plain)
    assert apart(weave(pipelines["map"], halves(2, 1)), plain) > 10


@pytest.mark.parametrize("kind", ["embedding", "crops-in-place", "crops-as-reference"])
def test_crops_matter_and_may_be_missing_for_any_type(pipelines, kind):
    pipeline, semantic_map = pipelines[kind], halves(0, 1)
    dark, light = np.full((40, 40, 3), 60, np.uint8), np.full((40, 40, 3), 220, np.uint8)
    none, one, both = (weave(pipeline, semantic_map, crops) for crops in (None, {0: dark}, {0: dark, 1: dark}))
    assert min(apart(none, one), apart(one, both), apart(none, both)) > 2
    assert apart(weave(pipeline, semantic_map, {0: light}), one) > 2
    np.testing.assert_array_equal(weave(pipeline, semantic_map, {0: dark, 1: []}), one)
    np.testing.assert_array_equal(weave(pipeline, semantic_map, {}), none)


@pytest.mark.parametrize("kind", ["embedding", "crops-in-place", "crops-as-reference"])
def test_nothing_but_colours_comes_through_of_a_crop_without_texture(pipelines, kind):
    pixels = grain(0, 40, 40)
    shuffled = np.random.default_rng(1).permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)
    pipeline, semantic_map = pipelines[kind], halves(0, 1)
    bare, other = (weave(pipeline, semantic_map, [Crop(p, 1, texture=False)]) for p in (pixels, shuffled))
    assert apart(bare, other) <= 1  # rounding of the mean
    assert apart(bare, weave(pipeline, semantic_map, [Crop(pixels, 1)])) > 2
    paler = Crop(pixels // 2 + 127, 1, texture=False)
    followed = apart(bare, weave(pipeline, semantic_map, [paler])) > 2
    assert followed == (kind == "crops-as-reference")


def test_a_crop_in_place_is_seen_where_its_tissue_lies(pipelines):
    denoiser = pipelines["crops-in-place"].denoiser
    conditions = pipelines["crops-in-place"]._conditions(
        halves(0, 1), [Crop(np.full((24, 24, 3), 255, np.uint8), 1)], True, 0
    )
    shown = conditions.canvas[0, 3] > 0
    assert shown.sum() == 24 * 24
    assert shown.shape == (80, 80)  # a margin of one cell of 8 px is woven, and cut off
    assert not shown[:, : 8 + 32 - 2].any()  # up to 5 % of a crop may lie outside
    assert not shown[:8].any() | shown[-8:].any() | shown[:, -8:].any()
    assert all(block.keys_values is None for block in denoiser.read(conditions).blocks)


@pytest.mark.parametrize("kind", ["embedding", "crops-as-reference"])
def test_a_place_reads_only_the_crops_of_its_type(pipelines, kind):
    pipeline = pipelines[kind]
    context = pipeline._read([halves(0, 1, size=48)], [[Crop(grain(0, 32, 32), 1)]], True, [0])
    attention = context.bias[0][0, 0].softmax(-1).unflatten(0, (4, 4))
    assert attention.shape[-1] == context.blocks[1].keys_values.shape[1]
    assert (attention[:, :2, 1:] == 0).all()
    assert (attention[:, 2:, 1:].amax(-1) > 0).all()


def test_each_guidance_has_an_effect_of_its_own(pipeline):
    crops = {0: grain(0), 1: grain(1)}

    def guided(map_guidance: float, crop_guidance: float) -> np.ndarray:
        return weave(pipeline, halves(0, 1), crops, map_guidance=map_guidance, crop_guidance=crop_guidance)

    woven = {(m, c): guided(m, c) for m in (1.0, 3.0) for c in (1.0, 3.0)}
    keys = list(woven)
    assert all(apart(woven[a], woven[b]) > 2 for i, a in enumerate(keys) for b in keys[:i])
    # 0 leaves a condition out.
    np.testing.assert_array_equal(guided(1.0, 0.0), weave(pipeline, halves(0, 1), map_guidance=1.0))
    np.testing.assert_array_equal(guided(0.0, 0.0), weave(pipeline, halves(2, 2), map_guidance=0.0))


def test_guidance_acts_within_its_interval(pipeline):
    crops, steps = {0: grain(0), 1: grain(1)}, 4  # at times 1, 0.75, 0.5, 0.25

    def guided(*interval: float, times: float = 3.0) -> np.ndarray:
        options = {"map_guidance": times, "crop_guidance": times, "guidance_interval": interval}
        return weave(pipeline, halves(0, 1), crops, steps=steps, **options)

    always, never = guided(0.0, 1.0), guided(0.0, 1.0, times=1.0)
    np.testing.assert_array_equal(guided(0.2, 1.0), always)
    np.testing.assert_array_equal(guided(0.3, 0.4), never)
    parts = [guided(0.0, 0.6), guided(0.4, 0.6), guided(0.9, 1.0)]
    assert all(apart(a, b) > 1 for i, a in enumerate([*parts, always, never]) for b in [*parts, always, never][:i])


def test_steps_outside_the_interval_take_one_prediction(pipeline, monkeypatch):
    calls = []
    inner = type(pipeline.denoiser).forward
    monkeypatch.setattr(
        type(pipeline.denoiser), "forward", lambda self, x, *rest: (calls.append(len(x)), inner(self, x, *rest))[1]
    )
    weave(pipeline, halves(0, 1), {0: grain(0)}, steps=4, guidance_interval=(0.4, 0.8), crop_guidance=3.0)
    assert calls == [1, 3, 3, 1]


def test_guidance_adds_what_each_condition_changes(pipeline):
    maps, crops, seeds = [halves(0, 1, size=48)], [[Crop(grain(0), 0)]], [0]  # 64 px with its margin
    latents = pipeline._noise([np.random.default_rng(0)], (64, 64))
    time = torch.tensor(400.0)

    def plain(with_crops: bool, with_map: bool) -> torch.Tensor:
        context = pipeline._read(maps, crops if with_crops else [[]], with_map, seeds)
        return predict(pipeline.denoiser, latents, time, [([1.0], context)])

    with torch.no_grad():
        nothing, only_map, both = plain(False, False), plain(False, True), plain(True, True)
        weights = Sampling(map_guidance=2.0, crop_guidance=3.5).weights(pipeline.denoiser.reads, True)
        contexts = [pipeline._read(maps, crops if c else [[]], m, seeds) for m, c in weights]
        one_by_one = [([weight], context) for weight, context in zip(weights.values(), contexts, strict=True)]
        together = [(list(weights.values()), Context.batch(contexts))]
        for guided in (one_by_one, together):
            torch.testing.assert_close(
                predict(pipeline.denoiser, latents, time, guided),
                nothing + 2.0 * (only_map - nothing) + 3.5 * (both - only_map),
                rtol=1e-4,
                atol=1e-4,
            )


def test_a_map_of_any_size_is_woven_at_its_size(pipeline):
    semantic_map = np.pad(halves(0, 1), ((0, 6), (0, 9)), mode="edge")
    images = weave(pipeline, semantic_map, {0: grain(0)})
    assert images.shape == (1, 70, 73, 3)


@pytest.mark.parametrize("sampler", ["unipc", "dpm++", "euler", "heun"])
def test_flow_samplers_agree_at_many_steps(pipeline, sampler):
    fine = weave(pipeline, halves(0, 1), sampler="euler", steps=100)
    found = weave(pipeline, halves(0, 1), sampler=sampler, steps=50)
    assert np.abs(found.astype(float) - fine).mean() < 3


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_noise_prediction_has_its_samplers(make_pipeline, sampler):
    pipeline = make_pipeline("map", "epsilon-l1")
    images = weave(pipeline, halves(0, 1), sampler=sampler, steps=5)
    assert images.std() > 5


def test_the_papers_ddim_draws_fresh_noise_from_the_seed_of_the_patch(make_pipeline):
    pipeline = make_pipeline("map", "epsilon-l1")
    maps = [halves(0, 1), halves(1, 2)]
    together = weave(pipeline, maps, sampler="ddim", steps=5, seed=[4, 9])
    assert apart(weave(pipeline, maps[1], sampler="ddim", steps=5, seed=9)[0], together[1]) <= 1
    assert apart(weave(pipeline, maps[1], sampler="ddim", steps=5, seed=8)[0], together[1]) > 2


def test_samplers_and_steps_have_defaults(pipeline):
    _, usual = make_sampler("flow")
    np.testing.assert_array_equal(
        weave(pipeline, halves(0, 1), steps=None), weave(pipeline, halves(0, 1), steps=usual, sampler="unipc")
    )


def test_pixels_that_are_not_finite_are_refused_and_named(make_pipeline):
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.denoiser.enter.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"patch 0 of 2 in its batch \(seed 5\): its pixels are not finite numbers"):
        weave(pipeline, [halves(0, 1)] * 2)
