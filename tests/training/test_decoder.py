"""A decoder trained further: sharper, with its latents untouched, and the same after a break."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig
from histoloom.models.autoencoder import AutoencoderConfig, decode, encode, to_pixels
from histoloom.models.discriminator import PatchDiscriminator
from histoloom.training.autoencoder import AutoencoderTraining, train_autoencoder
from histoloom.training.decoder import DecoderObjective, DecoderTraining, train_decoder

LOOP = LoopConfig(steps=40, batch_size=4, learning_rate=4e-3, warmup_steps=4, average_decay=0.9, workers=0,
                  precision="fp32", checkpoint_minutes=1e9)  # fmt: skip
SMALL = DecoderTraining(size=64, channels=16, loop=replace(LOOP, learning_rate=1e-3))


@pytest.fixture(scope="module")
def blurry(small_patches, tmp_path_factory):
    """An autoencoder after a few steps of L1."""
    config = AutoencoderTraining(
        size=64,
        model=AutoencoderConfig(
            latent_channels=8, channels=(8, 16, 32), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
        ),
        loop=LOOP,
    )
    return train_autoencoder(small_patches, config, tmp_path_factory.mktemp("autoencoder"))


def batch(patches) -> dict:
    noise = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"images": torch.from_numpy(patches.images[:2, :64, :64].copy()), "noise": noise}


def test_the_decoder_alone_is_trained_and_draws_finer_texture(blurry, small_patches, tmp_path):
    pixels = to_pixels(torch.from_numpy(small_patches.images[:8]))
    with torch.no_grad():
        latents = encode(blurry, pixels)

    def finest(images: torch.Tensor) -> float:
        return float((images[..., 1:] - images[..., :-1]).square().mean())

    found = {}
    for realism in (0.0, 0.02):
        steps, config = [], replace(SMALL, realism=realism, loop=replace(SMALL.loop, steps=90))
        sharp = train_decoder(small_patches, blurry, config, tmp_path / str(realism), steps.append)
        assert (len(steps), sharp.training) == (90, False)
        with torch.no_grad():
            torch.testing.assert_close(encode(sharp, pixels), latents, rtol=0, atol=0)
            found[realism] = finest(decode(sharp, latents)) / finest(pixels)
    assert found[0.0] + 0.1 < found[0.02] < 1.2  # 0.66 and 0.97; real tissue has 1


def test_decoder_and_discriminator_share_no_gradient(blurry, small_patches):
    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        objective = DecoderObjective(deepcopy(blurry), replace(SMALL, realism=weight))
        losses = objective(batch(small_patches))
        mine = [*objective.autoencoder.decoder.parameters()]
        theirs = [*objective.discriminator.parameters()]
        of_decoder = torch.autograd.grad(losses["loss"], mine, retain_graph=True)
        of_pixels = torch.autograd.grad(losses["pixels"], mine, retain_graph=True)
        same = all(torch.allclose(a, b) for a, b in zip(of_decoder, of_pixels, strict=True))
        assert same == (weight == 0)
        for a, b in zip(
            torch.autograd.grad(losses["loss"], theirs, retain_graph=True),
            torch.autograd.grad(losses["discriminator"], theirs),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
        assert not any(p.requires_grad for p in objective.autoencoder.encoder.parameters())


def test_the_decoder_is_pulled_to_what_the_discriminator_takes_for_real(blurry, small_patches):
    torch.manual_seed(0)
    objective = DecoderObjective(deepcopy(blurry), replace(SMALL, realism=1.0, noise=0.0)).eval()
    given = batch(small_patches)
    losses = objective(given)
    last = objective.autoencoder.decoder.conv_out.conv.bias
    pulled = torch.autograd.grad(losses["loss"] - losses["pixels"] - losses["discriminator"], last)[0]
    with torch.no_grad():
        latents = encode(objective.autoencoder, to_pixels(given["images"]))
    score = objective.discriminator(objective.autoencoder.decode(latents).sample).mean()
    torch.testing.assert_close(pulled, -torch.autograd.grad(score, last)[0])
    torch.testing.assert_close(losses["realism"], -score.detach())


def test_a_broken_run_goes_on_to_the_same_bytes(blurry, small_patches, tmp_path):
    whole = train_decoder(small_patches, blurry, SMALL, tmp_path / "whole")

    def break_off(progress):
        if progress.step == 25:
            raise KeyboardInterrupt

    often = replace(SMALL, loop=replace(SMALL.loop, checkpoint_minutes=1e-9))
    with pytest.raises(KeyboardInterrupt):
        train_decoder(small_patches, blurry, often, tmp_path / "broken", break_off)
    resumed = train_decoder(small_patches, blurry, SMALL, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_discriminator_judges_places_by_what_surrounds_them():
    torch.manual_seed(0)
    judge, pixels = PatchDiscriminator(16), torch.randn(1, 3, 128, 128, requires_grad=True)
    logits = judge(pixels)
    assert logits.shape == (1, 1, 16, 16)
    seen = torch.autograd.grad(logits[0, 0, 8, 8], pixels)[0].abs().sum((0, 1)) > 0
    assert [int(seen.any(axis).sum()) for axis in (0, 1)] == [48, 48]


@pytest.mark.parametrize("values", [{"realism": -1.0}, {"noise": -0.1}, {"channels": 0}, {"size": 0}])
def test_settings_without_sense_are_refused(values):
    with pytest.raises(ConfigError):
        DecoderTraining(**values)


@pytest.mark.parametrize("size", [60, 128])
def test_a_size_that_fits_neither_patches_nor_latents_is_refused(blurry, small_patches, tmp_path, size):
    with pytest.raises(ConfigError, match=rf"decoder size {size} must be a multiple of 8 px, and at most the \(96, 96"):
        train_decoder(small_patches, blurry, replace(SMALL, size=size), tmp_path)
    assert not np.any([*tmp_path.iterdir()])
