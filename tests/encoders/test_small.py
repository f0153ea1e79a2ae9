import numpy as np
import pytest
import torch

from histoloom.encoders.small import ENCODER, SmallEncoder, SmallEncoderConfig, load_small_encoder, save_small_encoder
from histoloom.errors import ConfigError, ModelError


def small(seed: int = 0) -> SmallEncoder:
    torch.manual_seed(seed)
    return SmallEncoder(SmallEncoderConfig((8, 16, 12), 1)).eval()


def test_features_are_as_many_as_the_last_channels_whatever_the_edge():
    for edge in (32, 50, 96):
        assert small()(torch.rand(2, 3, edge, edge)).shape == (2, 12)


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
    with pytest.raises(ModelError, match=r"no encoder there; train one with `histoloom train-encoder`"):
        load_small_encoder(tmp_path)
    (tmp_path / ENCODER).write_bytes(np.arange(99, dtype=np.uint8).tobytes())
    with pytest.raises(ModelError, match="not an encoder of this version"):
        load_small_encoder(tmp_path)
    with pytest.raises(ConfigError, match="two levels at least"):
        SmallEncoderConfig((8,))
