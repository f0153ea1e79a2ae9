import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel

from histoloom.errors import ConfigError, ModelError
from histoloom.models.autoencoder import (
    AutoencoderConfig,
    build_autoencoder,
    decode,
    encode,
    latent_channels,
    latent_factor,
    load_autoencoder,
    to_images,
    to_pixels,
)


@torch.no_grad()
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_its_factor_is_two_to_the_number_of_levels(levels):
    model = build_autoencoder(
        AutoencoderConfig(
            latent_channels=4, channels=(8,) * levels, encoder_blocks=(1,) * levels, decoder_blocks=(1,) * levels
        )
    )
    latents = encode(model, torch.zeros(1, 3, 64, 96))
    factor = 2**levels
    assert (latent_factor(model), latent_channels(model)) == (factor, 4)
    assert latents.shape == (1, 4, 64 // factor, 96 // factor)
    assert decode(model, latents).shape == (1, 3, 64, 96)


def test_the_bundled_kind_is_small():
    assert sum(p.numel() for p in build_autoencoder(AutoencoderConfig()).parameters()) < 5e6


@torch.no_grad()
def test_latents_of_a_posterior_are_its_mode():
    torch.manual_seed(0)
    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    pixels = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(encode(model, pixels), model.encode(pixels).latent_dist.mean)


def test_all_256_levels_survive_the_way_to_floats_and_back():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16).movedim(0, -1)[None].contiguous()
    pixels = to_pixels(images)
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)
    assert torch.equal(to_images(pixels), images)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"channels": (8, 8)}, "one entry per level"),
        ({"channels": (20,), "encoder_blocks": (1,), "decoder_blocks": (1,)}, "at least two levels"),
        ({"encoder_blocks": (1, 0, 1)}, "needs a block"),
        ({"channels": (20, 90, 180)}, "must grow by 1, 2 or 4"),
        ({"latent_channels": 24}, "end in a multiple of latent_channels 24"),
    ],
)
def test_shapes_that_do_not_fit_together_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        AutoencoderConfig(**values)


def test_what_is_no_autoencoder_is_named_with_what_is(tmp_path):
    for source, why in (
        (tmp_path, r"not a diffusers autoencoder \(no config.json\)"),
        (tmp_path / "absent", "is not a folder; give the folder of a model, a name on the hub"),
        ("someone/absent", "is not a folder here, and the hub is not reachable: offline"),
    ):
        with pytest.raises(ModelError, match=f"{source}: {why}") as caught:
            load_autoencoder(source)
        assert "\n" not in str(caught.value)
    UNet2DModel(block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
                sample_size=8, norm_num_groups=8).save_config(tmp_path)  # fmt: skip
    with pytest.raises(
        ModelError, match=r"config\.json: describes a 'UNet2DModel'; known: AutoencoderDC, AutoencoderKL"
    ):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("kept", [None, 0, 100, -1])
def test_missing_or_truncated_weights_are_one_clear_error(tmp_path, kept):
    build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).save_pretrained(tmp_path)
    [weights] = tmp_path.glob("*.safetensors")
    if kept is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:kept])
    why = "no such weights; weights must be safetensors" if kept is None else "is truncated, damaged, or not a saf"
    with pytest.raises(ModelError, match=f"{weights.name}: {why}") as caught:
        load_autoencoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_autoencoder_is_opened_where_the_denoiser_trains(tmp_path, monkeypatch):
    build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).save_pretrained(tmp_path)
    monkeypatch.setattr("histoloom.models.autoencoder.best_device", lambda: "meta")  # stands for a GPU
    assert {weight.device.type for weight in load_autoencoder(tmp_path).parameters()} == {"meta"}


def test_weights_of_another_shape_are_one_clear_error(tmp_path):
    build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latent_channels": 8}))
    with pytest.raises(ModelError, match=r"config\.json: does not fit the weights, where") as caught:
        load_autoencoder(tmp_path)
    assert "\n" not in str(caught.value)
