"""Pairs before and after an edit: only what was edited, and its rim, changes."""

import json

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from weaving import grain

from histoloom.canvas.edits import edited_map
from histoloom.canvas.pairs import RIM, weave_pair, weave_pairs
from histoloom.canvas.settings import Edit
from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, InputError, OutputError, TissueError
from histoloom.generation.bank import CropBank
from histoloom.models.sampling import Sampling
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
QUICK = Sampling(steps=2)


def glands(size: int = 128) -> np.ndarray:
    """Two glands of 12 and 10 px radius in stroma, 4 px apart, and an unlabeled corner."""
    y, x = np.mgrid[:size, :size]
    semantic_map = np.zeros((size, size), np.uint8)
    semantic_map[(y - 40) ** 2 + (x - 40) ** 2 <= 12**2] = 1
    semantic_map[(y - 40) ** 2 + (x - 67) ** 2 <= 10**2] = 1
    semantic_map[:8, :8] = 255
    return semantic_map


def radius(mask: np.ndarray) -> float:
    return float((mask.sum() / np.pi) ** 0.5)


def test_borders_move_by_as_many_pixels_as_asked():
    before = glands()
    one = before.copy()
    one[:, 54:] = 0
    for rule, moved in (("grow", 5), ("shrink", -5)):
        after = edited_map(Edit(rule=rule, tissue="gland", by=5), one, TABLE)
        assert radius(after == 1) == pytest.approx(radius(one == 1) + moved, abs=0.6)
        assert set(np.unique(after)) == {0, 1, 255}
        np.testing.assert_array_equal(after == 255, one == 255)
    np.testing.assert_array_equal(edited_map(Edit(tissue="tumour"), before, TABLE), before)


def test_thick_regions_stay_apart():
    before = glands()
    grown, thick = (edited_map(Edit(rule=rule, tissue="gland", by=6), before, TABLE) for rule in ("grow", "thicken"))
    assert [scipy.ndimage.label(m == 1, np.ones((3, 3)))[1] for m in (before, grown, thick)] == [2, 1, 2]
    assert ((thick == 1) <= (grown == 1)).all()
    assert (thick[40, 22:28] == 1).all()  # by 6 px where no other region is near
    assert ((grown == 1) & (thick != 1)).sum() < 80


def test_a_border_moves_into_one_type_and_others_stay():
    before = glands()
    before[48:, :] = np.where(before[48:, :] == 0, 2, before[48:, :])
    after = edited_map(Edit(rule="move", tissue="gland", by=5, to="tumour"), before, TABLE)
    changed = before != after
    assert set(before[changed]) == {2}
    assert set(after[changed]) == {1}
    y, x = np.nonzero(before == 1)
    far = np.hypot(np.subtract.outer(np.nonzero(changed)[0], y), np.subtract.outer(np.nonzero(changed)[1], x)).min(1)
    assert far.max() == 5
    assert ((before == 2) & ~changed).sum() > 0
    np.testing.assert_array_equal(
        edited_map(Edit(rule="move", tissue="gland", to="stroma"), before, TABLE) == 2, before == 2
    )


def test_glands_merge_and_the_largest_changes():
    before = glands()
    merged = edited_map(Edit(rule="merge", tissue="gland", by=4), before, TABLE)
    assert (merged[40, 28:78] == 1).all()
    assert not (before[40, 28:78] == 1).all()
    assert ((merged == 1) & (before != 1)).sum() < 100
    changed = edited_map(Edit(rule="change", tissue="gland", to="tumour"), before, TABLE)
    np.testing.assert_array_equal(changed == 2, (before == 1) & (np.arange(128) < 54))
    with pytest.raises(TissueError, match="unknown tissue 'bone'"):
        edited_map(Edit(tissue="bone"), before, TABLE)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"rule": "melt"}, "rule 'melt'"), ({"by": 0}, "by is 0"), ({"rule": "change"}, "needs --to"),
     ({"rule": "move"}, "rule move needs --to"),
     ({"to": "gland"}, "takes no --to")],
)  # fmt: skip
def test_edits_that_make_no_sense_are_refused(options, said):
    def untyped(**values) -> Edit:
        edit = object.__new__(Edit)
        for name, value in ({"rule": "grow", "tissue": "", "by": 6, "to": ""} | values).items():
            object.__setattr__(edit, name, value)
        edit.__post_init__()
        return edit

    with pytest.raises(ConfigError, match=said):
        untyped(**options)


def test_what_was_not_edited_stays_the_same(make_pipeline):
    pipeline, crops = make_pipeline(), [Crop(grain(1), 0), Crop(grain(2), 1), Crop(grain(3), 2)]
    edit = Edit(rule="change", tissue="gland", to="tumour")
    pair = weave_pair(pipeline, glands(), edit, crops, QUICK, seed=4)
    assert pair is not None
    change = pair.change()
    assert change["edited"] > 2
    assert change["rest"] == 0
    assert (pair.parts == 255).sum() == (pair.map_before != pair.map_after).sum()
    assert 0 < (pair.parts == 128).sum() < (2 * RIM + 26) ** 2
    assert weave_pair(pipeline, glands(), Edit(tissue="tumour"), crops, QUICK, seed=4) is None


def test_a_folder_of_pairs_says_what_changed(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    bank = CropBank({"one": [Crop(grain(i), i) for i in range(3)]})
    maps = [("a", glands()), ("b", np.zeros((128, 128), np.uint8)), ("c", glands().T.copy())]
    arguments = (pipeline, maps, bank, Edit(tissue="gland", by=4), QUICK, 7, tmp_path / "pairs")
    rows = weave_pairs(*arguments)
    assert [(row["map"], row["seed"]) for row in rows] == [("a", 7), ("c", 9)]
    assert json.loads((tmp_path / "pairs" / "pairs.json").read_text())["pairs"] == rows
    before, after, parts = (
        np.asarray(Image.open(tmp_path / "pairs" / kind / "00001.png")) for kind in ("before", "after", "edited")
    )
    np.testing.assert_array_equal(before[parts == 0], after[parts == 0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "pairs" / "maps-before" / "00001.png")), maps[2][1])
    assert "The edit: grow gland, by 4 px." in (tmp_path / "pairs" / "README.md").read_text()
    assert weave_pairs(*arguments) == rows
    with pytest.raises(InputError, match="changes none of 1 map"):
        weave_pairs(pipeline, maps[1:2], bank, Edit(tissue="gland"), QUICK, 7, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_pairs_of_other_crops_or_of_other_maps_are_another_run(make_pipeline, tmp_path):
    bank = CropBank({"one": [Crop(grain(0), 0), Crop(grain(1), 1)]})
    exchanged = CropBank({"one": [Crop(grain(1), 0), Crop(grain(0), 1)]})
    maps = [("a", glands()), ("b", glands().T.copy())]

    def make(maps, bank) -> list[dict]:
        return weave_pairs(make_pipeline(), maps, bank, Edit(tissue="gland"), QUICK, 7, tmp_path / "pairs")

    rows = make(maps, bank)
    assert make(maps, bank) == rows
    with pytest.raises(OutputError, match="input crops 0 was changed"):
        make(maps, exchanged)
    with pytest.raises(OutputError, match="was made by another run"):
        make(maps[::-1], bank)
    with pytest.raises(OutputError, match="was added"):
        make([*maps, maps[1]], bank)
