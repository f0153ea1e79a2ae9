from dataclasses import replace

import numpy as np
import pytest

from histoloom.conditioning.overlap import THUMBNAIL, _best_correlation, _spectra, overlapping_fields
from histoloom.patches.store import Patches


def fields(images: list[np.ndarray], cases: list[str]) -> Patches:
    count, size = len(images), len(images[0])
    names = [f"{i}.png" for i in range(count)]
    places = np.tile(np.array([0, 0, size], np.int64), (count, 1))
    maps = np.zeros((count, size, size), np.uint8)
    return Patches(np.stack(images), maps, cases, names, np.full(count, 0.5), places)


@pytest.fixture
def tissue():
    """Grain of 4 px, 256 x 256 px, from which fields of 128 px are cut."""
    coarse = np.random.default_rng(0).integers(60, 240, (64, 64, 1))
    return np.broadcast_to(np.kron(coarse, np.ones((4, 4, 1))), (256, 256, 3)).astype(np.uint8)


@pytest.mark.parametrize(("y", "x"), [(0, 0), (16, 0), (40, 24), (0, 60)])
def test_fields_that_share_tissue_are_found_at_any_shift(tissue, y, x):
    images = [tissue[:128, :128], tissue[y : y + 128, x : x + 128], tissue[128:, 128:]]
    assert overlapping_fields(fields(images, ["a"] * 3)) == {(0, 1), (1, 0)}


def test_another_white_balance_hides_nothing(tissue):
    dyed = (tissue[8:136, 8:136] * [0.6, 0.8, 0.7] + 20).astype(np.uint8)
    assert overlapping_fields(fields([tissue[:128, :128], dyed], ["a"] * 2)) == {(0, 1), (1, 0)}


def test_only_fields_of_one_case_are_compared(tissue):
    patches = fields([tissue[:128, :128], tissue[:128, :128]], ["a", "b"])
    assert overlapping_fields(patches) == set()
    assert overlapping_fields(replace(patches, cases=["a", "a"])) == {(0, 1), (1, 0)}


def test_an_even_field_overlaps_nothing():
    flat = np.full((64, 64, 3), 200, np.uint8)
    assert overlapping_fields(fields([flat, flat], ["a", "a"])) == set()


def test_the_correlation_is_pearsons_over_the_shared_part():
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((2, THUMBNAIL, THUMBNAIL)).astype(np.float32)
    spectra = _spectra(np.stack([one, other]))
    found = _best_correlation([s[0] for s in spectra], [s[1:] for s in spectra])[0]
    best = -1.0
    for y in range(-THUMBNAIL + 1, THUMBNAIL):
        for x in range(-THUMBNAIL + 1, THUMBNAIL):
            a = one[max(y, 0) : THUMBNAIL + min(y, 0), max(x, 0) : THUMBNAIL + min(x, 0)]
            b = other[max(-y, 0) : THUMBNAIL + min(-y, 0), max(-x, 0) : THUMBNAIL + min(-x, 0)]
            if a.size > THUMBNAIL**2 / 4:
                best = max(best, np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert found == pytest.approx(best, abs=1e-4)
