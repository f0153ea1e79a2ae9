import numpy as np
import pytest
import torch

from histoloom.encoders.small import ENCODER, SmallEncoder, SmallEncoderConfig, load_small_encoder, save_small_encoder
from histoloom.errors import ConfigError, ModelError
from histoloom.weights import SMALL_ENCODER


def small(seed: int = 0) -> SmallEncoder:
    torch.manual_seed(seed)
    return SmallEncoder(SmallEncoderConfig(levels=(0, 1, 2), told=5)).eval()


def test_features_are_as_many_as_the_config_says_whatever_the_edge():
    for edge in (32, 50, 96):
        assert small()(torch.rand(2, 3, edge, edge)).shape == (2, small().config.dimensions) == (2, 30)


def test_features_are_mean_and_spread_of_what_each_level_tells():
    network, pixels = small(), torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        told = network.heads[0](network.backbone(pixels)[0]).numpy()
        found = network(pixels).numpy()
    np.testing.assert_allclose(found[:, :5], told.mean(axis=(2, 3)), atol=1e-5)
    np.testing.assert_allclose(found[:, 5:10], np.sqrt(told.var(axis=(2, 3)) + 1e-4), rtol=1e-3)


def test_the_bundled_encoder_tells_textures_apart_and_knows_a_turned_patch_again(make_patches):
    network = load_small_encoder(SMALL_ENCODER)
    images = make_patches(6, 1, 96, 2).images
    noise = np.random.default_rng(0).permuted(images.reshape(6, -1, 3), axis=1).reshape(images.shape)
    sides = [torch.from_numpy(x.copy()).movedim(-1, 1).float() / 127.5 - 1 for x in (images, noise, images[:, ::-1])]
    with torch.no_grad():
        real, shuffled, turned = (network(x) for x in sides)
    assert real.shape == (6, 120)
    assert torch.cdist(real, turned).diagonal().max() < 0.5 * torch.cdist(real, shuffled).min()


def test_the_encoder_fits_into_the_package():
    assert sum(2 * p.numel() for p in SmallEncoder(SmallEncoderConfig()).parameters()) < 12e6


def test_an_encoder_survives_being_saved_up_to_half_precision(tmp_path):
    network = small()
    pixels = torch.rand(4, 3, 64, 64) * 2 - 1
    save_small_encoder(network, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_small_encoder(tmp_path)(pixels), network(pixels), rtol=5e-3, atol=5e-3)
    again = load_small_encoder(tmp_path)
    save_small_encoder(again, tmp_path / "again")
    assert (tmp_path / "again" / ENCODER).read_bytes() == (tmp_path / ENCODER).read_bytes()


def test_what_is_no_encoder_is_said_to_be_none(tmp_path):
    with pytest.raises(ModelError, match=r"not found; train an encoder with `histoloom train-encoder`"):
        load_small_encoder(tmp_path)
    (tmp_path / ENCODER).write_bytes(np.arange(99, dtype=np.uint8).tobytes())
    with pytest.raises(ModelError, match="not an encoder of this version"):
        load_small_encoder(tmp_path)
    for levels in ((1,), (2, 1), (1, 1), (-1, 2)):
        with pytest.raises(ConfigError, match="needs at least two levels in ascending order"):
            SmallEncoderConfig(levels=levels)


def test_a_backbone_that_timm_does_not_have_is_named():
    with pytest.raises(ConfigError, match="encoder backbone 'lite0': unknown to timm"):
        SmallEncoder(SmallEncoderConfig("lite0"))
    with pytest.raises(ModelError, match=r"backbone tf_efficientnet_lite0, levels \(1, 9\)"):
        SmallEncoder(SmallEncoderConfig(levels=(1, 9)))
