from dataclasses import replace

import numpy as np
import pytest

from histoloom.errors import ConfigError
from histoloom.evaluation.controls import CONTROLS, check_controls, oversampled, pasted
from histoloom.evaluation.downstream import DownstreamConfig, describe, downstream
from histoloom.evaluation.sources import ImageSet
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumor"])


@pytest.fixture
def one_rare() -> ImageSet:
    """40 patches of 32 x 48 px, of stroma (value 10) and, in all but one, gland (20); tumor (30) is in the last."""
    maps = np.zeros((40, 32, 48), np.uint8)
    maps[:, :, 24:] = 1
    maps[-1, :, 24:] = 2
    images = np.repeat((10 * (maps + 1))[..., None], 3, -1)
    names = [f"patch {i}" for i in range(40)]
    return ImageSet("drawn", "patch dataset", "", "PNG", images, maps, names, names, TABLE)


def test_oversampling_repeats_the_patches_that_show_a_rare_type(one_rare):
    found = oversampled(one_rare)
    times = {name: found.names.count(name) for name in one_rare.names}
    assert times["patch 39"] in (3, 4)  # sqrt(0.3 / (1 / 40)) = 3.46
    assert all(times[name] == 1 for name in one_rare.names[:-1])
    same = oversampled(one_rare)
    assert np.array_equal(found.images, same.images)


def test_pasting_keeps_pixels_and_maps_together(one_rare):
    found = pasted(one_rare)
    assert len(found) == 80
    assert np.array_equal(found.images[:40], one_rare.images)
    assert np.array_equal(found.images[..., 0], 10 * (found.maps + 1))
    changed = found.maps[40:] != one_rare.maps
    assert changed.any((1, 2)).sum() > 20
    assert (found.maps[40:] == 2).any((1, 2)).sum() > (one_rare.maps == 2).any((1, 2)).sum()


def test_unlabeled_patches_lend_nothing(one_rare):
    unlabeled = replace(one_rare, semantic_maps=np.full_like(one_rare.maps, 255))
    assert np.array_equal(pasted(unlabeled).images[40:], one_rare.images)
    assert len(oversampled(unlabeled)) == 40


def test_controls_are_trained_and_compared_with_real_patches(one_rare):
    config = DownstreamConfig(size=32, steps=1, batch_size=2, seeds=(0,))
    rng = np.random.default_rng(0)
    sets = {
        name: replace(
            one_rare.select(range(30, 40)),
            where=name,
            cases=[f"{name} {i}" for i in range(10)],
            names=[f"{name} {i}" for i in range(10)],
            images=rng.integers(0, 256, (10, 32, 48, 3), dtype=np.uint8),
        )
        for name in ("real", "synthetic", "test")
    }
    found = describe(downstream(*sets.values(), 3, config, controls=list(CONTROLS)), sets, config)
    saw_synthetic = ["synthetic", "synthetic, adapted", "both", "both, adapted"]
    assert list(found.results) == ["real", *saw_synthetic, "real, oversampled", "real, pasted"]
    assert "real, pasted - real" in found.gains
    assert found.about["ground"] == "stroma"
    stroma = found.results["real"].of_type[0]
    assert found.ground_results["real"].of_type[0] == pytest.approx(stroma)
    assert len(found.ground_results["real"].of_type) == 2


def test_unknown_controls_are_refused():
    with pytest.raises(ConfigError, match="control 'mixed' is unknown; known: oversampled, pasted"):
        check_controls(["mixed"])
    with pytest.raises(ConfigError, match="control pasted is named twice"):
        check_controls(["pasted", "pasted"])
