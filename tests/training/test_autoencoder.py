from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from histoloom.augmentation import dihedral
from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig
from histoloom.fitting.samples import stack
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder, decode, encode, to_pixels
from histoloom.stain import StainJitter
from histoloom.training.autoencoder import AutoencoderObjective, AutoencoderTraining, CropSampler, train_autoencoder

SMALL = AutoencoderTraining(
    size=64,
    model=AutoencoderConfig(
 latent_channels=8, channels=(8, 16, 32), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)),
    loop=LoopConfig(steps=40, batch_size=4, learning_rate=4e-3, warmup_steps=4, average_decay=0.9, workers=0,
                    precision="fp32", checkpoint_minutes=1e9),
)  # fmt: skip


def test_the_autoencoder_learns_to_repeat_tissue(small_patches, tmp_path):
    steps, seen = [], []
    trained = train_autoencoder(
        small_patches, SMALL, tmp_path, steps.append, lambda step, model: seen.append((step, type(model).__name__))
    )
    assert not trained.training
    assert seen == [(40, "AutoencoderDC")]
    first, last = (np.mean([s.losses["pixels"] for s in part]) for part in (steps[:5], steps[-5:]))
    assert last < 0.6 * first
    pixels = to_pixels(torch.from_numpy(small_patches.images[:4]))
    with torch.no_grad():
        repeated = decode(trained, encode(trained, pixels))
    mean = pixels.mean((2, 3), keepdim=True)
    assert F.l1_loss(repeated, pixels) < F.l1_loss(mean.expand_as(pixels), pixels)


def test_the_loss_is_the_sum_of_its_weighted_parts():
    torch.manual_seed(0)
    objective = AutoencoderObjective(build_autoencoder(SMALL.model), SMALL)
    batch = {"images": torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), "noise": torch.randn(2, 8, 8, 8)}
    losses = objective(batch)
    whole = losses["pixels"] + SMALL.shrink_weight * losses["shrink"] + SMALL.latent_weight * losses["size"]
    torch.testing.assert_close(losses["loss"], whole)
    latents = encode(objective.autoencoder, to_pixels(batch["images"]))
    half = objective.autoencoder.decode(F.interpolate(latents, scale_factor=0.5, mode="area")).sample
    small = F.interpolate(to_pixels(batch["images"]), scale_factor=0.5, mode="area")
    torch.testing.assert_close(losses["shrink"], (half - small).abs().mean())
    torch.testing.assert_close(losses["size"], (latents**2).mean())


def test_a_sample_is_a_turned_part_of_a_patch_and_follows_from_its_number(small_patches):
    sampler = CropSampler(small_patches, 64, (8, 8, 8), StainJitter(0.0, 0.0, 0.0), seed=0)
    for n in range(8):
        sample, again = sampler(n), sampler(n)
        np.testing.assert_array_equal(sample["images"], again["images"])
        np.testing.assert_array_equal(sample["noise"], again["noise"])
        assert sample["noise"].shape == (8, 8, 8)
        views = [dihedral(sample["images"], which) for which in range(8)]
        found = any(
            np.array_equal(image[y : y + 64, x : x + 64], view)
            for image in small_patches.images
            for view in views
            for y, x in np.argwhere((image[:33, :33] == view[0, 0]).all(-1))
        )
        assert found
    batch = stack([sampler(0), sampler(1)])
    assert batch["images"].shape == (2, 64, 64, 3)


def test_sizes_that_do_not_fit_are_refused(small_patches, tmp_path):
    with pytest.raises(ConfigError, match=r"size 72 must be a multiple of 16"):
        replace(SMALL, size=72)
    with pytest.raises(ConfigError, match=r"patches are \(96, 96\) px, smaller than autoencoder size 112"):
        train_autoencoder(small_patches, replace(SMALL, size=112), tmp_path)
