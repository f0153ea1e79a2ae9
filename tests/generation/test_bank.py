from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from histoloom.errors import TissueError
from histoloom.generation.bank import CropBank, load_bank, save_bank, weave_bank
from histoloom.generation.layouts import LayoutConfig, draw_layouts
from histoloom.generation.settings import BankConfig
from histoloom.tissue import TissueTable


@pytest.fixture(scope="module")
def woven(make_pipeline):
    pipeline = make_pipeline("map")
    layouts = draw_layouts(LayoutConfig(two_types=0.0), pipeline.table, 4, 0, 224)
    return pipeline.table, weave_bank(pipeline, list(layouts), BankConfig(tries=4, keep=3))


def test_no_two_crops_of_a_woven_bank_show_the_same_pixel(woven):
    pairs = 0
    for crops in woven[1].sets.values():
        for one, other in combinations(crops, 2):
            apart = [
                abs(2 * (a - b) + m - n) >= m + n  # twice the distance of the centers against both edges
                for a, b, m, n in (
                    (one.x, other.x, one.pixels.shape[1], other.pixels.shape[1]),
                    (one.y, other.y, one.pixels.shape[0], other.pixels.shape[0]),
                )
            ]
            pairs += one.tissue == other.tissue
            assert any(apart)
    assert pairs  # of one type, which an earlier version cut from one place


def test_a_woven_bank_holds_no_bare_glass(make_pipeline):
    pipeline = make_pipeline("map")
    layouts = list(draw_layouts(LayoutConfig(two_types=0.0), pipeline.table, 4, 0, 224))

    class Pale(type(pipeline)):
        """A model that leaves the stroma of its first patch unstained."""

        def __call__(self, maps, **settings):
            images = np.stack([np.repeat((60 + 40 * m)[..., None], 3, axis=-1) for m in maps])
            images[0][maps[0] == 0] = 240
            return images

    pipeline.__class__ = Pale
    bank = weave_bank(pipeline, layouts, BankConfig(tries=4, keep=4))
    means = [crop.pixels.mean() for crops in bank.sets.values() for crop in crops]
    assert len(bank.sets) == 3  # one that shows a single type is no set
    assert max(means) < 225


def test_a_bank_comes_back_as_it_was_saved(woven, tmp_path):
    table, bank = woven
    save_bank(bank, table, tmp_path / "bank")
    again = load_bank(tmp_path / "bank", table)
    assert again.sets.keys() == bank.sets.keys()
    for name, crops in bank.sets.items():
        found = again.sets[name]
        assert sorted(c.tissue for c in found) == sorted(c.tissue for c in crops)
        assert {c.pixels.tobytes() for c in found} == {c.pixels.tobytes() for c in crops}


def test_a_set_folder_beside_which_a_tissue_is_misspelt_is_named(woven, tmp_path):
    table, bank = woven
    save_bank(bank, table, tmp_path / "bank")
    (tmp_path / "bank" / "bone").mkdir()
    with pytest.raises(TissueError, match="bone: is not named after a tissue type; known: stroma, gland, tumour"):
        load_bank(tmp_path / "bank", table)


@pytest.mark.parametrize("root", ["", "stain-00"])
def test_crops_in_sub_folders_are_read_and_what_is_left_out_is_noted(tmp_path, root):
    table, home = TissueTable.from_names(["stroma", "gland"]), tmp_path / "bank" / root
    for number, name in enumerate(("stroma/P1/a.png", "stroma/P2/a.png", "stroma/a.png", "loose.png", "stroma/.b.png")):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 30, 3), number, np.uint8)).save(home / name)
    (home / "stroma" / "c.gif").write_bytes(b"")
    bank = load_bank(tmp_path / "bank", table)
    (name,) = bank.sets
    assert [crop.source for crop in bank.sets[name]] == [
        f"{name}/stroma/{crop}" for crop in ("P1/a.png", "P2/a.png", "a.png")
    ]
    at = f"{root}/" if root else ""
    assert bank.notes == (
        f"{tmp_path / 'bank'}: 1 hidden files were left out: {at}stroma/.b.png",
        f"{tmp_path / 'bank'}: 1 files are not crops that can be opened: {at}stroma/c.gif",
        f"{tmp_path / 'bank'}: 1 pictures are in no folder of a tissue type, and were left out: {at}loose.png",
    )


def test_crops_of_a_patch_come_from_one_set(woven):
    _, bank = woven
    semantic_map = np.repeat(np.array([0, 1], np.uint8), 32)[None].repeat(64, 0)
    drawn = bank.draw(semantic_map, np.random.default_rng(0))
    assert drawn
    assert any(all(any(d is c for c in crops) for d in drawn) for crops in bank.sets.values())


def test_an_empty_bank_lends_no_crops():
    assert CropBank({}).draw(np.zeros((64, 64), np.uint8), np.random.default_rng(0)) == []
