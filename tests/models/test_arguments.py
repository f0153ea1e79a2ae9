import numpy as np
import pytest
import torch
from PIL import Image
from weaving import grain, halves, weave

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, ImageError, InputError, TissueError


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


@pytest.mark.parametrize(("call", "error", "said"), BAD_CALLS)
def test_what_does_not_fit_is_one_clear_error(pipeline, call, error, said):
    with pytest.raises(error, match=said) as caught:
        call(pipeline)
    assert "\n" not in str(caught.value)


UNTYPED = """
import sys
import numpy as np
sys.stdout = open(out, "w")
from histoloom import Crop, HistoloomPipeline
from histoloom.errors import HistoloomError, InputError
pipeline, semantic_map = HistoloomPipeline.load(model), np.zeros((32, 32), np.uint8)
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
    lambda: pipeline([semantic_map] * 2, [Crop(np.zeros((32, 32, 3), np.uint8), 0), None]),
    lambda: pipeline(semantic_map, guidance_interval=(0.5,)),
    lambda: pipeline(semantic_map, map_guidance="1"),
    lambda: Crop(np.zeros((32, 32)), 0),
):
    try:
        call()
    except HistoloomError as error:
        print(error)
"""


def test_arguments_of_another_type_are_answered_with_what_is_taken(start, tiny_model, tmp_path):
    """In a process of its own, since the tests check types by annotation and would answer first."""
    process = start(UNTYPED, model=str(tiny_model), out=str(tmp_path / "lines"))
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "lines").read_text().splitlines() == [
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
        "crops hold a Crop next to what is meant for a whole map; give each map a list or a dict, empty for none",
        "guidance_interval is (0.5,); give two shares of noise",
        "map_guidance is 1; give a number from 0 to 100",
        "crop: holds float64 of shape (32, 32); give RGB pixels, uint8 `h w 3`",
    ]


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, torch.int32, torch.bool])
def test_maps_of_any_whole_numbers_are_taken(pipeline, dtype):
    semantic_map = halves(0, 1)
    is_torch = isinstance(dtype, torch.dtype)
    given = torch.from_numpy(semantic_map).to(dtype) if is_torch else semantic_map.astype(dtype)
    np.testing.assert_array_equal(weave(pipeline, given), weave(pipeline, semantic_map))
    np.testing.assert_array_equal(weave(pipeline, [given] * 2), weave(pipeline, [semantic_map] * 2))
