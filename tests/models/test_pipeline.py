import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, VQModel
from PIL import Image

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, ImageError, InputError, ModelError, TissueError
from histoloom.models.autoencoder import load_autoencoder, weights_hash
from histoloom.models.conditions import Context
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import make_sampler
from histoloom.precision import bf16_is_faster

KINDS = ("unconditional", "map", "embedding", "crops-in-place", "crops-as-reference")
STEPS = 3


@pytest.fixture(scope="module")
def pipelines(make_pipeline):
    """The five conditionings, by name."""
    return {kind: make_pipeline(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pipeline(pipelines):
    return pipelines["crops-as-reference"]


def halves(*types: int, size: int = 64) -> np.ndarray:
    """A map of upright stripes, one per type."""
    return np.repeat(np.array(types, np.uint8), size // len(types))[None].repeat(size, 0)


def grain(seed: int, height: int = 40, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def weave(pipeline, semantic_map, crops=None, **given) -> np.ndarray:
    return pipeline(semantic_map, crops, **{"steps": STEPS, "seed": 5} | given)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two images, in levels of 255."""
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_pipeline_weaves_the_same_pixels(pipelines, tmp_path, kind):
    pipeline, crops = pipelines[kind], {"stroma": grain(0), "gland": [grain(1), grain(2)]}
    pipeline.save_pretrained(str(tmp_path))
    assert not list(tmp_path.rglob("*.bin"))
    again = HistoloomPipeline.load(tmp_path, torch.float32)
    assert again.fingerprint == pipeline.fingerprint
    assert again.table == pipeline.table
    np.testing.assert_array_equal(weave(again, halves(0, 1), crops), weave(pipeline, halves(0, 1), crops))


def test_a_model_opens_in_half_precision_and_weaves_nearly_the_same(tiny_model):
    whole, half = (HistoloomPipeline.load(tiny_model, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert (whole.denoiser.dtype, half.denoiser.dtype) == (torch.float32, torch.bfloat16)
    assert whole.fingerprint == half.fingerprint
    woven = (weave(pipeline, halves(0, 1), {0: grain(0)}).astype(float) for pipeline in (half, whole))
    assert np.abs(np.subtract(*woven)).mean() < 3


def test_a_model_opens_in_the_precision_that_this_machine_is_faster_in(tiny_model):
    fast = torch.bfloat16 if bf16_is_faster() else torch.float32
    assert HistoloomPipeline.load(tiny_model).dtype == fast


def test_maps_and_crops_may_be_arrays_or_pictures(pipeline):
    semantic_map, crop = halves(0, 1), grain(0)
    indexed = Image.fromarray(semantic_map)
    indexed.putpalette(pipeline.table.palette())
    expected = weave(pipeline, semantic_map, {0: crop})
    assert expected.shape == (1, 64, 64, 3)
    assert expected.dtype == np.uint8
    for given in (Image.fromarray(semantic_map), indexed, [semantic_map], semantic_map[None]):
        np.testing.assert_array_equal(weave(pipeline, given, {"Stroma": Image.fromarray(crop)}), expected)
    transparent = Image.fromarray(crop).convert("RGBA")
    for given in ({0: [crop]}, [{0: crop}], [Crop(crop, 0)], [[Crop(crop, 0)]], {"stroma": transparent}):
        np.testing.assert_array_equal(weave(pipeline, semantic_map, given), expected)


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

    def predict(with_crops: bool, with_map: bool) -> torch.Tensor:
        context = pipeline._read(maps, crops if with_crops else [[]], with_map, seeds)
        return pipeline._predict(latents, time, [([1.0], context)])

    with torch.no_grad():
        nothing, only_map, both = predict(False, False), predict(False, True), predict(True, True)
        weights = Sampling(map_guidance=2.0, crop_guidance=3.5).weights(pipeline.denoiser.reads, True)
        contexts = [pipeline._read(maps, crops if c else [[]], m, seeds) for m, c in weights]
        one_by_one = [([weight], context) for weight, context in zip(weights.values(), contexts, strict=True)]
        together = [(list(weights.values()), Context.batch(contexts))]
        for guided in (one_by_one, together):
            torch.testing.assert_close(
                pipeline._predict(latents, time, guided),
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


BAD_CALLS = [
    (lambda p: weave(p, halves(0, 1), {0: grain(0, 23, 40)}), ImageError, "crop of 0: is 40 x 23 px; crops need 24 px"),
    (lambda p: weave(p, halves(0, 1), {2: grain(0)}), InputError, "crop of 2: is of 'tumour', which is not on the"),
    (lambda p: weave(p, [halves(0, 1)] * 2, [{}, {2: grain(0)}]), InputError, "is of 'tumour', which is not"),
    (lambda p: weave(p, halves(0, 1), {7: grain(0)}), InputError, "is of tissue 7; the model knows"),
    (lambda p: weave(p, halves(0, 1), {"bone": grain(0)}), TissueError, "unknown tissue 'bone'; known: stroma, gland"),
    (lambda p: weave(p, halves(0, 1), {0: grain(0)[..., 0]}), InputError, "crop of 0: holds uint8 of shape .* give ui"),
    (lambda p: weave(p, halves(0, 1), {0: Image.fromarray(grain(0)).convert("CMYK")}), InputError, "crop of 0: .*CMYK"),
    (lambda p: weave(p, halves(0, 1), {0: Image.fromarray(grain(0)).convert("L")}), InputError, "crop of 0: .* gray"),
    (lambda p: weave(p, halves(0, 9)), TissueError, r"semantic map 0: map values \[9\] are in no tissue table"),
    (lambda p: weave(p, halves(0, 1) - 1.0), InputError, r"semantic map 0: holds float64; .* as map.astype"),
    (lambda p: weave(p, torch.rand(64, 64)), InputError, "semantic map 0: holds float32; give whole numbers"),
    (lambda p: weave(p, halves(0, 1).astype(int) - 1), InputError, "holds -1; tissue ids are 0 to 253, and 255 is"),
    (lambda p: weave(p, halves(0, 1).astype(int) + 299), InputError, "semantic map 0: holds 300; tissue ids are 0"),
    (lambda p: weave(p, Image.fromarray(grain(0))), InputError, "semantic map 0: is a picture of mode 'RGB'"),
    (lambda p: weave(p, grain(0)), InputError, r"shape \(40, 32, 3\) .* give one tissue id per pixel, `h w`"),
    (lambda p: weave(p, np.ones((3, 64, 64), bool)), InputError, r"shape \(3, 64, 64\) and type bool, .* one mask per"),
    (lambda p: weave(p, [grain(0)]), InputError, r"semantic map 0: has shape \(40, 32, 3\); give one tissue id per"),
    (lambda p: weave(p, halves(0, 1)[:0]), InputError, r"semantic map 0: has shape \(0, 64\)"),
    (lambda p: weave(p, [halves(0, 1), halves(0, 1, size=32)]), InputError, "semantic maps differ in size"),
    (lambda p: weave(p, np.zeros((8, 5000), np.uint8)), InputError, "map 0: is 5000 x 8 px; at most 4096 px each way"),
    (lambda p: weave(p, []), InputError, "got no semantic map"),
    (lambda p: weave(p, [halves(0, 1)] * 3, [{0: grain(0)}] * 2), InputError, "got crops for 2 of 3 maps"),
    (lambda p: weave(p, [halves(0, 1)] * 3, seed=[1, 2]), InputError, "got 2 seeds for 3 maps"),
    (lambda p: weave(p, halves(0, 1), seed=-1), InputError, "seed is -1; give one whole number of 0 or more"),
    (lambda p: weave(p, halves(0, 1), steps=0), InputError, "steps is 0; give a whole number of 1 or more"),
    (lambda p: weave(p, halves(0, 1), steps=1001), ConfigError, "steps is 1001; give a whole number from 1 to 1000"),
    (lambda p: weave(p, halves(0, 1), batch_size=0), InputError, "batch_size is 0; give a whole number of 1 or more"),
    (lambda p: weave(p, halves(0, 1), sampler="ddim"), ConfigError, "'ddim' does not fit .* known: unipc, dpm"),
    (lambda p: weave(p, halves(0, 1), map_guidance=float("nan")), ConfigError, "map_guidance is nan; give"),
    (lambda p: weave(p, halves(0, 1), crop_guidance=float("inf")), ConfigError, "crop_guidance is inf; give"),
    (lambda p: weave(p, halves(0, 1), guidance_interval=(0.0, float("nan"))), ConfigError, "interval is nan; give"),
    (lambda p: weave(p, halves(0, 1), num_inference_steps=4), InputError, "no 'num_inference_steps'; give steps"),
    (lambda p: weave(p, halves(0, 1), generator=torch.Generator()), InputError, "takes no 'generator'; give seed"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "told"), BAD_CALLS)
def test_what_does_not_fit_is_one_clear_error(pipeline, call, error, told):
    with pytest.raises(error, match=told) as caught:
        call(pipeline)
    assert "\n" not in str(caught.value)


UNTYPED = """
import sys
import numpy as np
from histoloom import Crop, HistoloomPipeline
from histoloom.errors import InputError
pipeline, semantic_map = HistoloomPipeline.load(sys.argv[1]), np.zeros((32, 32), np.uint8)
for name, value in (("seed", 1.5), ("seed", None), ("seed", "a"), ("seed", True), ("steps", 2.5), ("batch_size", 1.5)):
    try:
        pipeline(semantic_map, **{name: value})
    except InputError as error:
        print(error)
for wrong in (None, 3, "map"):
    try:
        pipeline(wrong)
    except InputError as error:
        print(error)
for call in (
    lambda: HistoloomPipeline.load(None),
    lambda: pipeline(semantic_map, {0.5: np.zeros((32, 32, 3), np.uint8)}),
    lambda: pipeline(semantic_map, np.zeros((32, 32, 3), np.uint8)),
    lambda: pipeline(semantic_map, [[3]]),
    lambda: Crop(np.zeros((32, 32)), 0),
):
    try:
        call()
    except InputError as error:
        print(error)
"""


def test_arguments_of_another_type_are_answered_with_what_is_taken(tiny_model):
    """In a process of its own, since the tests check types by annotation and would answer first."""
    done = subprocess.run([sys.executable, "-c", UNTYPED, tiny_model], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        *(f"seed is {wrong}; give one whole number of 0 or more, or one per map" for wrong in ("1.5", "None", "'a'")),
        "seed is True; give one whole number of 0 or more, or one per map",
        "steps is 2.5; give a whole number of 1 or more",
        "batch_size is 1.5; give a whole number of 1 or more",
        "semantic_map is a NoneType; give an array, a picture, or several",
        "semantic_map is a int; give an array, a picture, or several",
        "semantic_map is a str; give an array, a picture, or several",
        "a model is None; give its folder, or its name on the hub",
        "crops are given for 0.5; give the id or the name of a tissue type",
        "crops is a ndarray; give a list of Crop, a dict from tissue to pictures, or one of these per map",
        "crops hold a int; give each as a Crop, or a dict from tissue to picture",
        "crop: holds float64 of shape (32, 32); give RGB pixels, uint8 `h w 3`",
    ]


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, torch.int32, torch.bool])
def test_maps_of_any_whole_numbers_are_taken(pipeline, dtype):
    semantic_map = halves(0, 1)
    is_torch = isinstance(dtype, torch.dtype)
    given = torch.from_numpy(semantic_map).to(dtype) if is_torch else semantic_map.astype(dtype)
    np.testing.assert_array_equal(weave(pipeline, given), weave(pipeline, semantic_map))
    np.testing.assert_array_equal(weave(pipeline, [given] * 2), weave(pipeline, [semantic_map] * 2))


def test_the_sampler_of_the_model_is_used_and_recorded(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    pipeline.scheduler = make_sampler("flow", "euler")[0]
    pipeline.save_pretrained(str(tmp_path))
    opened = HistoloomPipeline.load(tmp_path)
    scheduler, sampling = opened.resolve(Sampling())
    assert (type(scheduler).__name__, sampling.sampler, sampling.steps) == (
        "FlowMatchEulerDiscreteScheduler", "euler", make_sampler("flow", "euler")[1],
    )  # fmt: skip
    np.testing.assert_array_equal(weave(opened, halves(0, 1)), weave(opened, halves(0, 1), sampler="euler"))
    assert apart(weave(opened, halves(0, 1)), weave(opened, halves(0, 1), sampler="unipc")) > 0
    opened.scheduler = make_sampler("epsilon", "ddim")[0]
    with pytest.raises(ConfigError, match="saved with DDIMScheduler, which does not fit objective 'flow'; choose a"):
        weave(opened, halves(0, 1))


def test_pixels_that_are_not_finite_are_refused_and_named(make_pipeline):
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.denoiser.enter.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"patch 0 of 2 in its batch \(seed 5\): its pixels are not finite numbers"):
        weave(pipeline, [halves(0, 1)] * 2)


def small_blocks(levels: int) -> dict:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": (8,) * levels,
        "norm_num_groups": 4,
    }


FOREIGN = {
    "kl": lambda: AutoencoderKL(**small_blocks(4), latent_channels=4),
    "kl, f4": lambda: AutoencoderKL(**small_blocks(3), latent_channels=8, mid_block_add_attention=False),
    "vq, f4": lambda: VQModel(**small_blocks(3), latent_channels=3, num_vq_embeddings=32),
    "tiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    ),
    "dc, f16": lambda: AutoencoderDC(
        latent_channels=8, encoder_block_types="ResBlock", decoder_block_types="ResBlock",
        encoder_block_out_channels=(8,) * 5, decoder_block_out_channels=(8,) * 5,
        encoder_layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        encoder_qkv_multiscales=((),) * 5, decoder_qkv_multiscales=((),) * 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_any_autoencoder_of_diffusers_can_stand_in(small_patches, tmp_path, kind):
    from histoloom.conditioning.crops import CropConfig
    from histoloom.fitting.loop import LoopConfig
    from histoloom.training.decoder import DecoderTraining, train_decoder
    from histoloom.training.denoiser import DenoiserTraining, train_denoiser

    torch.manual_seed(0)
    FOREIGN[kind]().save_pretrained(tmp_path / "foreign")
    autoencoder = load_autoencoder(tmp_path / "foreign")
    loop = LoopConfig(steps=2, batch_size=2, workers=0, precision="fp32")
    sharpening = DecoderTraining(size=64, channels=8, loop=loop)
    sharper = train_decoder(small_patches.select(range(4)), autoencoder, sharpening, tmp_path / "decoder")
    for part, stays in (("encoder", True), ("decoder", False)):
        one, other = (list(getattr(model, part).parameters()) for model in (autoencoder, sharper))
        assert all(map(torch.equal, one, other)) == stays
    autoencoder, crops = sharper, CropConfig(base=24, largest=32)
    config = DenoiserTraining(window=64, views=1, channels=(32, 64), blocks=(1, 1), crops=crops, loop=loop)
    denoiser = train_denoiser(small_patches.select(range(4)), 3, autoencoder, config, tmp_path / "run")
    scheduler, _ = make_sampler("flow")
    pipeline = HistoloomPipeline(autoencoder, denoiser, scheduler, [{"id": i, "name": n} for i, n in enumerate("abc")])
    pipeline.save_pretrained(str(tmp_path / "model"))
    pipeline = HistoloomPipeline.load(tmp_path / "model")
    assert type(pipeline.autoencoder) is type(autoencoder)
    images = weave(pipeline, [halves(0, 1), halves(1, 2)], [{0: grain(0)}, {"c": grain(1)}])
    assert images.shape == (2, 64, 64, 3)
    assert images.std() > 0


def copy_of(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "model"))


def test_a_folder_that_is_no_model_is_named_with_the_cure(tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: not a Histoloom model \(no model_index.json\); .*histoloom train"):
        HistoloomPipeline.load(tmp_path / "empty")
    with pytest.raises(ModelError, match="absent: is not a folder; give the folder of a model, a name on the hub, or"):
        HistoloomPipeline.load(tmp_path / "absent")
    with pytest.raises(
        ModelError, match=r"someone/absent: is not a folder here, and the hub is not reachable: offline"
    ):
        HistoloomPipeline.load("someone/absent")


def test_a_model_of_the_hub_opens_from_the_cache_of_its_download(tiny_model, tmp_path):
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_model, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    opened = HistoloomPipeline.from_pretrained("someone/tiny", cache_dir=tmp_path)
    assert opened.fingerprint == HistoloomPipeline.load(tiny_model).fingerprint
    assert Path(opened.name_or_path) == repository / "snapshots" / "abc"  # its card and its bank are there


@pytest.mark.parametrize("part", ["denoiser", "autoencoder"])
@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_weights_are_one_clear_error_that_names_the_file(tiny_model, tmp_path, part, kept):
    model = copy_of(tiny_model, tmp_path)
    [weights] = (model / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=f"{part}/{weights.name}: is truncated, damaged, or not a saf") as caught:
        HistoloomPipeline.load(model)
    assert "\n" not in str(caught.value)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


DEEP = "[" * 10**6 + "]" * 10**6
BAD_FILES = {
    "a list as index": (lambda m: (m / "model_index.json").write_text("[]"), "model_index.json: holds a JSON list"),
    "nesting without end": (lambda m: (m / "denoiser/config.json").write_text(DEEP), "denoiser/config.json: is not a"),
    "bytes that are no text": (lambda m: (m / "denoiser/config.json").write_bytes(b"\xff\xfe"), "config.json: is not"),
    "a scheduler of a billion steps": (
        lambda m: change(m / "scheduler/scheduler_config.json", num_train_timesteps=10**9),
        "scheduler_config.json: num_train_timesteps is 1000000000; at most"),
    "channels without end": (
        lambda m: change(m / "denoiser/config.json", channels=[10**9, 10**9]), "denoiser/config.json: channels is 100"),
    "channels of another size": (
        lambda m: change(m / "denoiser/config.json", channels=[64, 64]), "denoiser/config.json: does not fit the weig"),
    "blocks without end": (
        lambda m: change(m / "denoiser/config.json", blocks=[1, 10**5]), "denoiser/config.json: blocks is 100000; at"),
    "crops without end": (lambda m: change(m / "denoiser/config.json", crop_edge=10**5), "crop_edge is 100000; give w"),
    "an unknown conditioning": (
        lambda m: change(m / "denoiser/config.json", conditioning="magic"), "describes no network"),
    "one latent mean": (
        lambda m: change(m / "denoiser/config.json", latent_mean=[0.0]), r"latent_mean is \[0.0\]; give 4 finite numb"),
    "a latent mean that is none": (
        lambda m: change(m / "denoiser/config.json", latent_mean=[0.0, 0.0, float("nan"), 0.0]), "latent_mean is .*na"),
    "latents without spread": (
        lambda m: change(m / "denoiser/config.json", latent_std=[1.0, 1.0, 0.0, 1.0]), "give 4 finite numbers above 0"),
    "no latent mean": (
        lambda m: change(m / "denoiser/config.json", latent_mean=None), "has no latent_mean and latent_std"),
    "another autoencoder's channels": (
        lambda m: change(m / "autoencoder/config.json", latent_channels=10**9), "latent_channels is 1000000000; at mo"),
    "code of a stranger": (
        lambda m: change(m / "model_index.json", denoiser=["os", "system"]), r"denoiser is \['os', 'system'\]; known:"),
    "no tissue": (lambda m: change(m / "model_index.json", tissue=None), "model_index.json: the tissue table is empty"),
    "tissue that is text": (lambda m: change(m / "model_index.json", tissue=["a"]), "tissue table is empty"),
    "more tissue than the network knows": (
        lambda m: change(m / "model_index.json", tissue=[{"id": 9, "name": "a"}]), "table has id 9; the denoiser know"),
    "a scale that is none": (lambda m: change(m / "model_index.json", mpp=-1), "mpp is -1; give 0.01 to 100"),
    "a copy limit above 1": (lambda m: change(m / "model_index.json", copy_limit=1.5), "copy_limit is 1.5; give a num"),
    "a copy limit that is none": (
        lambda m: change(m / "model_index.json", copy_limit=float("nan")), "copy_limit is nan"),
    "another pipeline": (
        lambda m: change(m / "model_index.json", _class_name="DDPMPipeline"), "names a 'DDPMPipeline', not a Histoloo"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_of_a_model_that_make_no_sense_are_refused_by_name_before_anything_is_allocated(
    tiny_model, tmp_path, kind
):
    spoil, message = BAD_FILES[kind]
    model = copy_of(tiny_model, tmp_path)
    spoil(model)
    for opened in (HistoloomPipeline.load, HistoloomPipeline.from_pretrained):
        with pytest.raises(ModelError, match=message) as caught:
            opened(model)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


def test_weights_that_are_not_finite_are_refused_by_name(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.denoiser.enter.weight[0, 0, 0, 0] = float("nan")
    pipeline.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=r"denoiser/diffusion_pytorch_model.safetensors: enter.weight holds nan or"):
        HistoloomPipeline.load(tmp_path)


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("part", ["denoiser", "autoencoder"])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"])
def test_pickled_weights_are_refused_and_never_opened(tiny_model, tmp_path, part, name):
    model = copy_of(tiny_model, tmp_path)
    [weights] = (model / part).glob("*.safetensors")
    weights.unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, model / part / name)
    pickled = "no such weights; .* a pickle is never opened" if name.endswith("bin") else "not a safetensors file"
    with pytest.raises(ModelError, match=f"{part}/diffusion_pytorch_model.safetensors: .*{pickled}") as caught:
        HistoloomPipeline.load(model)
    assert "\n" not in str(caught.value)
    if part == "autoencoder":
        with pytest.raises(ModelError, match=pickled):
            load_autoencoder(model / part)
    assert not (tmp_path / "sprung").exists()


def test_a_model_of_before_there_was_a_copy_limit_or_a_scale_has_none(tiny_model, tmp_path):
    model = copy_of(tiny_model, tmp_path)
    index = json.loads((model / "model_index.json").read_text())
    for name in ("copy_limit", "mpp"):
        index.pop(name, None)
    (model / "model_index.json").write_text(json.dumps(index))
    opened = HistoloomPipeline.load(model)
    assert (opened.copy_limit, opened.mpp) == (None, None)


def test_the_fingerprint_is_of_every_weight(make_pipeline):
    one, other = make_pipeline(), make_pipeline()
    assert one.fingerprint == other.fingerprint == weights_hash(one.autoencoder, one.denoiser)
    assert len(one.fingerprint) == 16
    with torch.no_grad():
        next(other.autoencoder.parameters()).flatten()[0] += 1e-3
    assert one.fingerprint != other.fingerprint


def test_a_saved_header_holds_no_pickle(tiny_model):
    for weights in tiny_model.rglob("*.safetensors"):
        data = weights.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        assert json.loads(data[8 : 8 + length])
