"""What is fitted to tissue where a weaker model guides, and that a guided run goes on where it was stopped."""

from dataclasses import replace

import pytest
import torch

from histoloom.conditioning.crops import CropConfig
from histoloom.errors import ConfigError, ModelError
from histoloom.fitting.loop import LoopConfig
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
from histoloom.models.conditions import Conditions
from histoloom.training.denoiser import DenoiserTraining, prepare, train_denoiser
from histoloom.training.guide import Guide, weaker
from histoloom.training.start import TypeMatch

SMALL = DenoiserTraining(
    window=64,
    views=1,
    channels=(32, 64),
    blocks=(1, 1),
    crops=CropConfig(base=24, largest=48),
    guide=Guide(model="weak", weight=2.5),
    loop=LoopConfig(steps=4, batch_size=4, warmup_steps=2, workers=0, precision="fp32", checkpoint_minutes=1e-9),
)
SAME = TypeMatch((0, 1, 2), (0, 1, 2))


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    ).eval()


@pytest.fixture(scope="module")
def weak(autoencoder, small_patches, tmp_path_factory):
    other = replace(SMALL, loop=replace(SMALL.loop, seed=9, steps=2))
    denoiser, _ = prepare(small_patches, 3, autoencoder, other, tmp_path_factory.mktemp("weak"))
    return denoiser


def test_the_mixture_fits_where_the_prediction_lies_beyond_the_target(autoencoder, small_patches, tmp_path):
    of_maps = replace(SMALL, conditioning="map", guide=None)
    weak, _ = prepare(small_patches, 3, autoencoder, of_maps, tmp_path)
    guide = weaker(weak, SAME, weak, 2.5)
    noisy, time, target = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.8]), torch.randn(2, 4, 8, 8)
    shown, hidden = torch.zeros(32, 32, dtype=torch.long), torch.full((32, 32), 4)
    conditions = Conditions(type_map=torch.stack([shown, hidden]))
    with torch.no_grad():
        less = weak(noisy, time, conditions)
    beyond = less + 2.5 * (target - less)
    mixed = guide.mixture(beyond, noisy, time, conditions)
    assert torch.allclose(mixed[0], target[0], atol=1e-5)
    assert torch.equal(mixed[1], beyond[1])  # its map was left out


def test_it_does_not_guide_near_a_type_that_it_never_learned(autoencoder, small_patches, tmp_path):
    of_maps = replace(SMALL, conditioning="map", guide=None)
    denoiser, _ = prepare(small_patches, 3, autoencoder, of_maps, tmp_path)
    guide = weaker(denoiser, TypeMatch((0, 1, None), (0, 1)), denoiser, 2.0)
    semantic_map = torch.zeros(1, 32, 32, dtype=torch.long)
    semantic_map[0, :, 30:] = 2  # the last column of latents
    noisy, predicted, time = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    changed = (
        (guide.mixture(predicted, noisy, time, Conditions(type_map=semantic_map)) != predicted).flatten(0, 2).any(0)
    )
    assert changed.tolist() == 5 * [True] + 3 * [False]


def test_types_of_a_guide_follow_their_names(weak):
    swapped = weaker(weak, TypeMatch((1, 0, 2), (0, 1, 2)), weak, 2.0).denoiser
    assert torch.equal(swapped.type_embedding.weight[:2], weak.type_embedding.weight[[1, 0]])
    assert not any(parameter.requires_grad for parameter in swapped.parameters())


def test_a_guided_run_goes_on_to_the_same_weights_and_not_with_another_guide(
    autoencoder, weak, small_patches, tmp_path
):
    def train(name: str, steps: int, guide=(weak, SAME)):
        loop = replace(SMALL.loop, steps=steps, schedule="constant")
        config = replace(SMALL, loop=loop, guide=SMALL.guide if guide else None)
        return train_denoiser(small_patches, 3, autoencoder, config, tmp_path / name, guide=guide).state_dict()

    whole, plain = train("whole", 4), train("plain", 4, None)
    train("halves", 2)
    halves = train("halves", 4)
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())
    assert any(not torch.equal(value, plain[name]) for name, value in whole.items())
    with pytest.raises(ConfigError, match="a guide needs both"):
        train_denoiser(small_patches, 3, autoencoder, SMALL, tmp_path / "alone")
    other = type(weak).from_config(weak.config)
    with pytest.raises(ModelError, match="another run"):
        train("halves", 4, (other, SAME))
