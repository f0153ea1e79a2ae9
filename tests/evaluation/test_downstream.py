from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.errors import ConfigError, InputError
from histoloom.evaluation.downstream import DownstreamConfig, check_sets, downstream, predict, train_deeplab
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.export import CropUse

SHORT = DownstreamConfig(size=32, steps=2, batch_size=2, seeds=(0, 1))


@pytest.fixture(scope="module")
def image_sets(make_patches):
    def make(where: str, seed: int) -> ImageSet:
        drawn = make_patches(6, 3, 48, 3, seed)
        cases, names = [f"{where} {c}" for c in drawn.cases], [f"{where} {s}" for s in drawn.sources]
        return ImageSet(where, "patch dataset", "", "PNG", drawn.images, drawn.semantic_maps, cases, names)

    return make


def test_every_training_set_gets_the_same_steps_and_is_tested_on_all_held_patches(image_sets):
    steps = []
    found = downstream(image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2), 3, SHORT, steps.append)
    assert list(found) == ["real", "synthetic", "both"]
    assert len(steps) == 3 * 2 * 2
    for result in found.values():
        assert result.n == 6
        assert len(result.of_seed) == 2
        assert result.low <= result.high
        assert result.mean_iou == pytest.approx(np.nanmean(result.of_type))


def test_the_same_seed_gives_the_same_network_and_leaves_the_callers_randomness_alone(image_sets):
    real, state = image_sets("real", 0), torch.random.get_rng_state()
    one, two = (train_deeplab([real], 3, SHORT, 5, lambda count: None) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(predict(one, real.images), predict(two, real.images))
    assert predict(one, real.images).shape == (6, 48, 48)


def test_precision_is_that_of_the_config(image_sets):
    real = image_sets("real", 0)
    full, half, again = (
        train_deeplab([real], 3, replace(SHORT, precision=precision), 5, lambda count: None).state_dict()
        for precision in ("fp32", "bf16", "bf16")
    )
    assert all(torch.equal(value, again[name]) for name, value in half.items())
    assert not all(torch.equal(value, full[name]) for name, value in half.items())


def test_test_patches_must_be_new_to_every_training_set(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)
    with pytest.raises(InputError, match="held: case 'real case 0' is in the training images"):
        downstream(real, fake, replace(held, cases=real.cases), 3, SHORT)
    with pytest.raises(InputError, match=r"fake: woven from the map of 'held 00\.png' of the test images"):
        downstream(real, replace(fake, cases=held.names), held, 3, SHORT)
    with pytest.raises(InputError, match="fake: has no maps"):
        downstream(real, replace(fake, semantic_maps=None), held, 3, SHORT)


def test_crops_of_test_patches_are_refused_as_their_maps_are(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)

    def woven_with(source: str) -> ImageSet:
        return replace(fake, crops=[[]] * 5 + [[CropUse("crops/stroma/a.png", 0, 0, 0, 24, 24),
                                               CropUse(source, 1, 8, 0, 24, 24)]])  # fmt: skip

    check_sets(real, woven_with("real 03.png"), held)
    line = (
        r"^fake: woven from a crop of 'held 03\.png' of the test images; weave from maps and crops of split train only$"
    )
    with pytest.raises(InputError, match=line):
        check_sets(real, woven_with("held 03.png"), held)


def test_a_budget_without_sense_is_refused(image_sets):
    with pytest.raises(ConfigError, match="size 40 must be a multiple of 32"):
        replace(SHORT, size=40)
    with pytest.raises(ConfigError, match="batch_size 2 or more"):
        replace(SHORT, batch_size=1)
    with pytest.raises(ConfigError, match="backbone nosuch: segmentation-models-pytorch has none"):
        train_deeplab([image_sets("real", 0)], 3, replace(SHORT, backbone="nosuch"), 0, lambda count: None)
