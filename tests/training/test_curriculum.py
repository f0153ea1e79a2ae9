from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.conditioning.crops import CropConfig
from histoloom.discovery.levels import Levels
from histoloom.errors import ConfigError, ModelError
from histoloom.fitting.loop import LoopConfig
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
from histoloom.training.curriculum import Curriculum, coarse_ids, level_at, types_at
from histoloom.training.denoiser import DenoiserTraining, prepare, train_denoiser

COUNTS = (5, 10, 20, 50, 100)
LEVELS = Levels((2, 3, 6), np.array([[0, 0, 1, 1, 1, 0], [0, 1, 2, 2, 2, 1], [0, 1, 2, 3, 4, 5]], np.uint8))


def test_the_number_of_types_rises_as_in_the_paper():
    config = Curriculum(warmup_steps=1000)
    for step in (0, 1, 250, 999, 1000, 5000):
        assert types_at(step, COUNTS, config) == int(5 + 95 * min(1, step / 1000))
    assert types_at(0, COUNTS, Curriculum(fewest=20)) == 20


def test_a_level_opens_when_the_curriculum_allows_all_its_types():
    config = Curriculum(warmup_steps=95)
    shown = [COUNTS[level_at(step, COUNTS, config)] for step in range(100)]
    assert [shown.index(count) for count in COUNTS] == [0, 5, 15, 45, 95]
    assert shown == sorted(shown)
    assert level_at(0, COUNTS, Curriculum(fewest=1)) == 0


def test_a_coarse_type_is_spoken_by_any_of_its_members_and_by_no_other():
    rng = np.random.default_rng(0)
    drawn = np.stack([coarse_ids(LEVELS, 0, rng) for _ in range(200)])
    assert (drawn[:, [0, 1, 5]] == drawn[:, :1]).all()
    assert (drawn[:, [2, 3, 4]] == drawn[:, 2:3]).all()
    assert set(drawn[:, 0]) == {0, 1, 5}
    assert set(drawn[:, 2]) == {2, 3, 4}
    assert (drawn[:, 255] == 255).all()


def test_the_finest_level_says_what_the_map_says():
    np.testing.assert_array_equal(coarse_ids(LEVELS, 2, np.random.default_rng(0)), np.arange(256))


def test_a_type_that_was_merged_away_is_never_spoken():
    merged = Levels((1, 3), np.array([[0, 0, 0, 0], [0, 1, 1, 3]], np.uint8))
    assert {int(coarse_ids(merged, 0, np.random.default_rng(s))[0]) for s in range(50)} == {0, 1, 3}


def test_a_curriculum_without_sense_is_refused():
    for wrong in ({"warmup_steps": 0}, {"fewest": 0}):
        with pytest.raises(ConfigError, match="must be 1 or more"):
            Curriculum(**wrong)


SMALL = DenoiserTraining(
    window=64,
    views=1,
    channels=(32, 64),
    blocks=(1, 1),
    crops=CropConfig(base=24, largest=48),
    curriculum=Curriculum(warmup_steps=4),
    loop=LoopConfig(steps=5, batch_size=2, warmup_steps=2, workers=0, precision="fp32", checkpoint_minutes=1e-9),
)
THREE = Levels((1, 2, 3), np.array([[0, 0, 0], [0, 1, 0], [0, 1, 2]], np.uint8))


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    ).eval()


@pytest.mark.parametrize("kind", ["crops-as-reference", "crops-in-place"])
def test_samples_differ_from_those_without_a_curriculum_in_ids_alone(small_patches, autoencoder, tmp_path, kind):
    config = replace(SMALL, conditioning=kind)
    _, coarse = prepare(small_patches, 3, autoencoder, config, tmp_path, levels=THREE)
    _, plain = prepare(small_patches, 3, autoencoder, replace(config, curriculum=None), tmp_path)
    merged = 0
    for n in range(10):
        one, other, again = coarse(n), plain(n), coarse(n)
        for key in ("latents", "noise", "time_draw"):
            np.testing.assert_array_equal(one[key], other[key])
        np.testing.assert_array_equal(one["type_map"], again["type_map"])
        said = np.stack([other["type_map"].ravel(), one["type_map"].ravel()])
        pairs = dict(np.unique(said, axis=1).T.tolist())
        assert len(np.unique(said, axis=1).T) == len(pairs)  # an id is said in one way all over the map
        merged += len(set(pairs.values())) < len(pairs)
        if n >= 8:  # two samples a step, four steps of warm-up
            np.testing.assert_array_equal(one["type_map"], other["type_map"])
        if kind == "crops-as-reference":
            for crop, before in zip(one["crops"], other["crops"], strict=True):
                assert crop.tissue == pairs.get(before.tissue, crop.tissue)
                np.testing.assert_array_equal(crop.pixels, before.pixels)
    assert merged >= 3


def test_a_run_under_a_curriculum_goes_on_as_if_it_had_not_been_stopped(small_patches, autoencoder, tmp_path):
    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 4:  # the checkpoint of step 3 is written, that of step 4 is not
            raise Stopped

    def train(folder, on_step=None, levels=THREE):
        return train_denoiser(small_patches, 3, autoencoder, SMALL, folder, on_step=on_step, levels=levels).state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", stop)
    for key, value in train(tmp_path / "stopped").items():
        assert torch.equal(value, whole[key]), key
    with pytest.raises(ModelError, match="other"):
        train(tmp_path / "stopped", levels=Levels((2, 3), THREE.of[1:]))


def test_a_curriculum_without_nested_types_is_refused(small_patches, autoencoder, tmp_path):
    with pytest.raises(ConfigError, match="a curriculum needs nested types"):
        train_denoiser(small_patches, 3, autoencoder, SMALL, tmp_path)
