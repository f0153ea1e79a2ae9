import copy

import numpy as np
import pytest
import torch
from torch import nn

from histoloom.evaluation.deeplab import ADAPTED_TO, DownstreamConfig, adapted, make_network, predict
from histoloom.fitting.samples import to_pixels


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(40, 200, (12, 48, 40, 3)).astype(np.uint8)


def norms_first(seed: int) -> nn.Sequential:
    """A network whose batch norm sees the pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)).eval()


def test_norms_take_the_statistics_of_the_images(images):
    network = norms_first(0)
    squares = images[:, :32, :32]  # without padding, so that all pixels count once
    statistics = adapted(network, squares, 0, batch_size=12).get_submodule("0")
    pixels = to_pixels(torch.from_numpy(squares))
    torch.testing.assert_close(statistics.running_mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(statistics.running_var, pixels.var((0, 2, 3)), rtol=1e-3, atol=0)
    assert network.get_buffer("0.running_mean").tolist() == [0, 0, 0]


def test_a_network_reads_restained_images_as_it_read_the_others(images):
    """Batch norm takes an affine change of each channel away, if its statistics are those of the changed images."""
    halved = (images // 2).astype(np.uint8)
    network = adapted(norms_first(0), images // 2 * 2, 0)
    before, after = predict(network, images // 2 * 2), predict(adapted(network, halved, 0), halved)
    assert (before == after).mean() > 0.99
    assert (before == predict(network, halved)).mean() < 0.9


def test_the_same_seed_adapts_alike_and_leaves_the_callers_randomness_alone(images):
    network = make_network(DownstreamConfig(start="random", backbone="resnet18"), 3)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, other = adapted(network, images, 0), adapted(network, images, 0)
    assert torch.equal(torch.rand(1), expected)
    assert not one.training
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    weights = dict(network.named_parameters())
    assert all(torch.equal(weights[name], parameter) for name, parameter in one.named_parameters())


def test_a_network_without_batch_norms_stays_as_it_is(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)).eval()
    kept = copy.deepcopy(network.state_dict())
    assert all(torch.equal(kept[name], value) for name, value in adapted(network, images, 0).state_dict().items())


@pytest.mark.parametrize("count", [1, 9])
def test_no_batch_holds_one_image_of_which_a_pooled_norm_has_no_statistics(images, count):
    network = make_network(DownstreamConfig(start="random", backbone="resnet18"), 3)
    statistics = adapted(network, images[:count], 0, batch_size=8).state_dict()
    assert all(value.isfinite().all() for value in statistics.values())


def test_of_many_images_some_are_enough():
    seen = []

    class Counts(nn.BatchNorm2d):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    adapted(nn.Sequential(Counts(3), nn.Conv2d(3, 2, 1)), np.zeros((ADAPTED_TO + 5, 32, 32, 3), np.uint8), 0, 64)
    assert sum(seen) == ADAPTED_TO
