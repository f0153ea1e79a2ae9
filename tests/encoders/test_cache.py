from dataclasses import replace

import numpy as np
import pytest
import torch
from bars import Counter

from histoloom.encoders.cache import default_cache, features
from histoloom.encoders.encoder import Encoder
from histoloom.errors import ConfigError, InputError, OutputError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)


@pytest.fixture
def counting():
    """An encoder of channel means that keeps the size of each batch it was asked for."""
    asked = []

    def forward(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return images.float().mean((2, 3))

    return Encoder("means", "v1", forward), asked


def test_features_are_those_of_the_encoder_in_order(counting):
    np.testing.assert_allclose(features(counting[0], IMAGES, batch_size=3), IMAGES.mean((1, 2)), rtol=1e-5)
    assert counting[1] == [3, 3, 1]


def test_nothing_is_computed_twice(counting, tmp_path):
    encoder, asked = counting
    cache = tmp_path / "deep" / "features.sqlite"
    first = features(encoder, IMAGES[:4], cache)
    both = features(encoder, np.concatenate([IMAGES[::-1], IMAGES]), cache)
    assert asked == [4, 3]
    np.testing.assert_array_equal(both[:7], both[7:][::-1])
    np.testing.assert_array_equal(both[7:11], first)


def test_other_weights_or_other_shapes_are_other_features(counting, tmp_path):
    encoder, asked = counting
    cache = tmp_path / "features.sqlite"
    features(encoder, IMAGES, cache)
    features(replace(encoder, fingerprint="v2"), IMAGES, cache)
    features(encoder, IMAGES.reshape(7, 4, 16, 3), cache)
    assert asked == [7, 7, 7]


def test_a_stopped_run_keeps_the_batches_that_were_done(counting, tmp_path):
    encoder, asked = counting

    def stop(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(encoder, IMAGES, tmp_path / "f.sqlite", Counter(stop), batch_size=3)
    features(encoder, IMAGES, tmp_path / "f.sqlite", batch_size=3)
    assert asked == [3, 3, 1]


def test_what_cannot_be_used_is_refused_in_one_line(counting, tmp_path):
    encoder, _ = counting
    broken = Encoder("broken", "v1", lambda images: torch.full((len(images), 2), torch.nan))
    with pytest.raises(InputError, match="encoder broken: its features are not finite"):
        features(broken, IMAGES)
    with pytest.raises(InputError, match="no images to encode"):
        features(encoder, IMAGES[:0])
    with pytest.raises(ConfigError, match="0 images per batch"):
        features(encoder, IMAGES, batch_size=0)
    (tmp_path / "f.sqlite").write_text("no database" * 100)
    with pytest.raises(OutputError, match=r"f\.sqlite: cannot be used as feature cache .*; delete it, or name another"):
        features(encoder, IMAGES, tmp_path / "f.sqlite")


def test_nobody_is_told_to_delete_a_cache_because_the_disk_is_full(counting, tmp_path):
    resource, (encoder, _) = pytest.importorskip("resource"), counting
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the kernel refuses files above a limit
    try:
        with pytest.raises(OutputError, match="free some space, check its permissions, or name another file"):
            features(encoder, IMAGES, tmp_path / "f.sqlite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "histoloom" / "features.sqlite"
