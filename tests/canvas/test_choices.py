"""Which crop each place of a canvas follows."""

import numpy as np
import pytest
from PIL import Image

from histoloom.canvas.choices import Choices, candidates
from histoloom.canvas.layout import Layout, find_regions
from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError
from histoloom.generation.bank import CropBank
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])


@pytest.fixture
def layout(tmp_path) -> Layout:
    """Two glands in stroma, 400 x 600 px; the corner is unlabeled."""
    y, x = np.mgrid[:400, :600]
    semantic_map = np.zeros((400, 600), np.uint8)
    for center in (150, 450):
        semantic_map[(x - center) ** 2 + (y - 200) ** 2 < 100**2] = 1
    semantic_map[:40, :40] = 255
    Image.fromarray(semantic_map).save(tmp_path / "map.png")
    return Layout(tmp_path / "map.png", TABLE)


def tinted(tissue: int, level: int, count: int = 3) -> list[Crop]:
    return [Crop(np.full((30, 30, 3), level + i, np.uint8), tissue) for i in range(count)]


def test_a_layout_repeats_its_rim_and_counts_its_regions(layout):
    whole = np.asarray(Image.open(layout.path))
    np.testing.assert_array_equal(layout.read(0, 0, *layout.shape), whole)
    np.testing.assert_array_equal(
        layout.read(-8, 560, 100, 64), np.pad(whole[:92, 560:], ((8, 0), (0, 24)), mode="edge")
    )
    regions = find_regions(layout)
    assert {tissue: labels.max() for tissue, labels in regions.labels.items()} == {0: 1, 1: 2}
    np.testing.assert_array_equal(regions.pixels, np.bincount(whole.ravel(), minlength=256))


def test_crops_come_from_sets_of_like_stain(layout):
    sets = {
        "pale": tinted(0, 200, 2) + tinted(1, 180, 4),
        "dark": tinted(0, 50, 4),
        "nearly dark": tinted(0, 60, 2) + tinted(1, 40, 4),
    }
    regions = find_regions(layout)
    drawn = [candidates(CropBank(sets), regions, seed) for seed in range(20)]
    for mine in drawn:
        main = "pale" if mine[0][0].pixels.mean() > 100 else "dark"
        assert (mine[1][0].pixels.mean() > 100) == (main == "pale")
        assert len(mine[0]) == len(mine[1]) == 4
    assert len({mine[0][0].pixels.mean() > 100 for mine in drawn}) == 2
    assert set(candidates(CropBank({"dark": sets["dark"]}), regions, 0)) == {0}
    assert candidates(CropBank({}), regions, 0) == {}


def test_shares_sum_to_one_and_change_smoothly(layout):
    regions, crops = find_regions(layout), {0: tinted(0, 100, 4), 1: tinted(1, 60, 4)}
    choices = Choices(crops, regions, 120.0, seed=1)
    semantic_map = layout.read(-8, -8, 416, 616)
    shown, shares = choices.read(-8, -8, semantic_map, 8)
    for tissue in (0, 1):
        mine = [i for i, crop in enumerate(shown) if crop.tissue == tissue]
        has = (semantic_map == tissue).reshape(52, 8, 77, 8).any((1, 3))
        np.testing.assert_allclose(shares[mine].sum(0)[has], 1, rtol=1e-5)
    stroma = shares[[i for i, crop in enumerate(shown) if crop.tissue == 0]]
    has = (semantic_map == 0).reshape(52, 8, 77, 8).any((1, 3))
    assert np.abs(np.diff(stroma, axis=2))[:, has[:, 1:] & has[:, :-1]].max() < 0.1  # 8 of 120 px
    assert len(stroma) > 1
    part, part_shares = choices.read(96, 96, layout.read(96, 96, 64, 64), 8)
    whole = {shown[i].pixels.tobytes(): shares[i, 13:21, 13:21] for i in range(len(shown))}
    for crop, share in zip(part, part_shares, strict=True):
        np.testing.assert_array_equal(share, whole[crop.pixels.tobytes()])


def test_regions_of_one_type_may_have_other_crops(layout):
    regions, crops = find_regions(layout), {1: tinted(1, 60, 4)}
    pairs = set()
    for seed in range(10):
        choices = Choices(crops, regions, 10_000.0, seed)
        of_left, of_right = (choices.read(190, x, layout.read(190, x, 16, 16), 8)[0] for x in (140, 440))
        assert len(of_left) == len(of_right) == 1
        pairs.add(of_left[0] is of_right[0])
    assert pairs == {True, False}


def test_a_layout_without_labels_is_refused(tmp_path):
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(tmp_path / "map.png")
    with pytest.raises(InputError, match="labels no pixel"):
        find_regions(Layout(tmp_path / "map.png", TABLE))
