import pytest
import torch

from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder, encode
from histoloom.models.crop_encoder import CropEncoder, color_statistics, embed_crops


@pytest.fixture
def crops():
    """Three crops of 20 x 40 px in squares of 48 px; beyond them lies rubbish that must not be seen."""
    generator = torch.Generator().manual_seed(0)
    crops = torch.randn(3, 4, 48, 48, generator=generator)
    crops[:, 3] = 0
    crops[:, 3, :20, :40] = 1
    return crops


def padded(crops: torch.Tensor) -> torch.Tensor:
    return torch.cat([crops[:, :3] * crops[:, 3:], crops[:, 3:]], 1)


@torch.no_grad()
def test_every_16_px_become_a_token_and_padding_is_not_valid(crops):
    torch.manual_seed(0)
    tokens, valid = CropEncoder(32)(crops)
    assert tokens.shape == (3, 9, 32)
    assert valid.view(3, 3, 3)[0].tolist() == [[True, True, True], [True, True, True], [False, False, False]]


@torch.no_grad()
def test_what_lies_in_the_padding_is_not_seen(crops):
    torch.manual_seed(0)
    encoder = CropEncoder(32)
    torch.testing.assert_close(encoder(crops)[0], encoder(padded(crops))[0])


def test_colours_are_mean_and_spread_of_the_crop_without_its_padding(crops):
    inside = crops[:, :3, :20, :40].flatten(2)
    expected = torch.cat([inside.mean(2), inside.std(2, correction=0)], 1)
    torch.testing.assert_close(color_statistics(crops), expected, rtol=1e-4, atol=1e-5)


def test_a_crop_vector_is_mean_and_spread_of_its_latents(crops):
    torch.manual_seed(0)
    autoencoder = build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    ).eval()
    with torch.no_grad():
        inside = encode(autoencoder, padded(crops)[:, :3])[:, :, :3, :5].flatten(2)  # 20 x 40 px at a factor of 8
    expected = torch.cat([inside.mean(2), inside.std(2, correction=0)], 1)
    torch.testing.assert_close(embed_crops(autoencoder, crops), expected, rtol=1e-3, atol=1e-3)
