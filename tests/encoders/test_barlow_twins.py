from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.encoders.barlow_twins import EncoderTraining, ViewSampler, barlow_twins, train_encoder
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.errors import ConfigError, ModelError
from histoloom.fitting.loop import LoopConfig
from histoloom.stain import StainJitter

TINY = EncoderTraining(
    size=48,
    projector=32,
    start="random",
    model=SmallEncoderConfig(levels=(0, 1, 2)),
    loop=LoopConfig(steps=30, batch_size=12, learning_rate=5e-3, warmup_steps=3, average_decay=0.9, workers=0,
                    precision="fp32", checkpoint_minutes=1e9),
)  # fmt: skip


@pytest.fixture
def arrays(small_patches):
    return small_patches.images, small_patches.fingerprint()


def test_the_loss_is_that_of_the_paper_pair_by_pair():
    a, b = np.random.default_rng(0).standard_normal((2, 40, 5))
    expected = 0.0
    for i in range(5):
        for j in range(5):
            correlation = np.corrcoef(a[:, i], b[:, j])[0, 1]
            expected += (1 - correlation) ** 2 if i == j else 0.02 * correlation**2
    found = barlow_twins(*(torch.from_numpy(x).float() for x in (a, b)), 0.02)
    assert float(found) == pytest.approx(expected / 5, rel=1e-3)


def test_equal_and_independent_features_cost_nothing():
    rows = torch.linalg.qr(torch.randn(200, 6) - 0).Q
    rows = torch.linalg.qr(rows - rows.mean(0)).Q
    assert float(barlow_twins(rows, rows, 1.0)) == pytest.approx(0, abs=5e-3)


def test_the_encoder_learns_to_know_a_patch_again(arrays, tmp_path):
    losses = []
    network = train_encoder(*arrays, TINY, tmp_path, lambda progress: losses.append(progress.losses["loss"]))
    assert not network.training
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_weights(arrays, tmp_path):
    short = replace(TINY, loop=replace(TINY.loop, steps=3))
    one, two = (train_encoder(*arrays, short, tmp_path / name).state_dict() for name in ("one", "two"))
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


def test_training_begins_with_the_encoder_that_is_named(arrays, tmp_path):
    started = SmallEncoder(TINY.model)
    save_small_encoder(started, tmp_path / "start")
    still = replace(TINY, start=str(tmp_path / "start"), loop=replace(TINY.loop, steps=1, learning_rate=1e-9))
    after = train_encoder(*arrays, still, tmp_path / "run").heads[0][0].weight
    torch.testing.assert_close(after, started.heads[0][0].weight, rtol=1e-3, atol=1e-5)
    with pytest.raises(ModelError, match=r"encoder\.safetensors: not found"):
        train_encoder(*arrays, replace(TINY, start=str(tmp_path)), tmp_path / "none")


def test_a_view_is_a_part_of_a_patch_and_follows_from_its_number(small_patches):
    still = replace(TINY, zoom=(1.0, 1.0), stain=StainJitter(0.0, 0.0, 0.0))
    sampler = ViewSampler(small_patches.images, still)
    colors = {tuple(c) for c in small_patches.images.reshape(-1, 3)}
    for n in range(4):
        sample, again = sampler(n), sampler(n)
        for key in ("first", "second"):
            assert sample[key].shape == (48, 48, 3)
            np.testing.assert_array_equal(sample[key], again[key])
            assert {tuple(c) for c in sample[key].reshape(-1, 3)} <= colors
        assert not np.array_equal(sample["first"], sample["second"])


def test_sizes_that_do_not_fit_are_refused(arrays, tmp_path):
    with pytest.raises(ConfigError, match=r"patches are \(96, 96\) px, smaller than the 160 px of a view"):
        train_encoder(*arrays, replace(TINY, size=200), tmp_path)
    for wrong, message in (({"size": 16}, "size 16"), ({"zoom": (2.0, 1.0)}, "zoom"), ({"projector": 0}, "projector")):
        with pytest.raises(ConfigError, match=message):
            replace(TINY, **wrong)
    with pytest.raises(ConfigError, match="batch_size must be at least 2"):
        replace(TINY, loop=replace(TINY.loop, batch_size=1))
