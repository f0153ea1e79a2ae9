import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.metrics.features import check_features, too_few

CLOUD = np.random.default_rng(0).standard_normal((6, 3))


def test_two_finite_clouds_of_one_encoder_pass():
    check_features(CLOUD, CLOUD[:2])


def test_what_no_metric_can_use_is_refused_in_one_line():
    broken = CLOUD.copy()
    broken[4, 1] = np.nan
    for real, fake, message in (
        (CLOUD[:1], CLOUD, "need at least 2 real images .* got 1"),
        (CLOUD, CLOUD[:0], "need at least 2 fake images .* got 0"),
        (CLOUD, broken, "fake features hold nan or infinity, first in row 4"),
        (CLOUD, CLOUD[:, :2], "real features have 3 dimensions, fake ones 2; use the same encoder"),
    ):
        with pytest.raises(InputError, match=message):
            check_features(real, fake)


def test_too_few_images_for_an_encoder_are_said_to_be_too_few():
    assert too_few(129, 128) is None
    assert "needs more than 128 images per side for 128 dimensions, got 128" in too_few(128, 128)
