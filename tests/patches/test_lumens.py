import numpy as np
import pytest
from drawn_dataset import write_drawn_dataset
from PIL import Image

from histoloom.errors import InputError, OutputError
from histoloom.patches.bright import LumenRules
from histoloom.patches.heterogeneity import class_fractions
from histoloom.patches.lumens import PICTURE, add_lumens
from histoloom.patches.store import encode_png, iter_rows, load_patches, read_table, write_shards
from histoloom.tissue import UNLABELLED, TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])


def lumen_of(number: int) -> tuple[slice, slice]:
    return slice(40, 60), slice(20 + number, 50 + number)


@pytest.fixture
def dataset(tmp_path):
    """Four patches of 96 px by two cases, each with a white lumen in a gland; in the last one it is unlabeled."""
    folder, rows = tmp_path / "dataset", []
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.integers(90, 140, (96, 96, 3), dtype=np.uint8)
        semantic_map = np.zeros((96, 96), np.uint8)
        semantic_map[20:80, 10:80] = 1
        image[lumen_of(number)] = 245
        if number == 3:
            semantic_map[lumen_of(number)] = UNLABELLED
        rows.append(
            {"image": encode_png(image), "semantic_map": encode_png(semantic_map), "source": f"{number}.png",
             "x": 0, "y": 0, "size": 96, "mpp": None, "fractions": [0.5, 0.5], "entropy": 0.7,
             "case": f"{number % 2}", "split": "train"}
        )  # fmt: skip
    write_shards(rows, TABLE, folder, "train")
    (folder / "tissue.toml").write_text(TABLE.to_toml())
    return folder


def test_lumens_become_a_type_and_nothing_else_changes(dataset, tmp_path):
    made = add_lumens(dataset, tmp_path / "out")
    before, after = load_patches(dataset, "train"), load_patches(tmp_path / "out", "train")
    assert read_table(tmp_path / "out").names == ["stroma", "gland", "lumen or glass"]
    assert np.array_equal(before.images, after.images)
    assert (before.cases, before.names) == (after.cases, after.names)
    for number in range(3):
        lumen = np.zeros((96, 96), bool)
        lumen[lumen_of(number)] = True
        found = after.semantic_maps[number] == 2
        assert (found & lumen).sum() / (found | lumen).sum() > 0.9
        assert np.array_equal(after.semantic_maps[number][~found], before.semantic_maps[number][~found])
    assert np.array_equal(after.semantic_maps[3] == UNLABELLED, before.semantic_maps[3] == UNLABELLED)
    row = next(iter_rows(tmp_path / "out", "train"))
    np.testing.assert_allclose(row["fractions"], class_fractions(after.semantic_maps[0], 3), rtol=1e-6)
    assert made["notes"][-1].startswith("4.9 % of the labeled pixels became 'lumen or glass', found by brightness")
    assert "4.9 %" in (tmp_path / "out" / "README.md").read_text()
    assert Image.open(tmp_path / "out" / PICTURE).size == (2048, 256)


def test_the_glass_of_a_case_judges_all_of_its_patches(dataset, tmp_path):
    rows = list(iter_rows(dataset, "train"))
    pale = np.random.default_rng(1).integers(90, 110, (96, 96, 3), dtype=np.uint8)
    pale[30:60, 30:60] = 190  # bright only where no glass is known
    rows.append(rows[0] | {"image": encode_png(pale), "semantic_map": rows[0]["semantic_map"], "source": "pale.png"})
    write_shards(rows, TABLE, dataset, "train")
    add_lumens(dataset, tmp_path / "out")
    assert not (load_patches(tmp_path / "out", "train").semantic_maps[4] == 2).any()


def test_a_type_that_the_dataset_has_is_extended(dataset, tmp_path):
    add_lumens(dataset, tmp_path / "out", LumenRules(name="Stroma"))
    assert read_table(tmp_path / "out") == TABLE
    after = load_patches(tmp_path / "out", "train").semantic_maps
    assert (after[0][lumen_of(0)] == 0).mean() > 0.9


def test_a_finished_dataset_stays_and_another_is_refused(dataset, tmp_path):
    first = add_lumens(dataset, tmp_path / "out")
    assert add_lumens(dataset, tmp_path / "out") == first
    with pytest.raises(OutputError, match=r"brightness was 0.8, is now 0.9"):
        add_lumens(dataset, tmp_path / "out", LumenRules(brightness=0.9))
    (dataset / "dataset.json").write_text('{"license": "CC0-1.0", "counts": {}}')  # it ends up in the new dataset, too
    with pytest.raises(OutputError, match=r"input dataset\.json was added"):
        add_lumens(dataset, tmp_path / "out")


def test_a_dataset_without_anything_bright_is_refused(tmp_path):
    drawn = write_drawn_dataset(tmp_path / "drawn", TABLE, 4, 2, 64)
    with pytest.raises(InputError, match="no patch shows lumens or glass; lower brightness or contrast"):
        add_lumens(drawn, tmp_path / "out", LumenRules(contrast=250.0))
    assert not (tmp_path / "out").exists()


def test_an_index_without_pixels_is_refused(dataset, tmp_path):
    rows = [row | {"image": None, "semantic_map": None} for row in iter_rows(dataset, "train")]
    write_shards(rows, TABLE, dataset, "train")
    with pytest.raises(InputError, match="is an index without pixels; make it with `histoloom patches --pixels`"):
        add_lumens(dataset, tmp_path / "out")
