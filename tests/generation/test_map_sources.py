"""Maps from a procedure, a folder or a dataset, one at a time, in the ids of the model."""

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_tissue
from PIL import Image
from weaving import apart, halves

from histoloom.errors import ConfigError, InputError, TissueError
from histoloom.generation.order import Order
from histoloom.generation.orders import left_out, open_maps
from histoloom.generation.patches import weave
from histoloom.generation.settings import DrawnMaps, Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.generation.woven_reader import iter_woven
from histoloom.patches.store import encode_png, load_patches, write_shards
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
QUICK = WeaveConfig(steps=1, batch_size=4)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Seventy patches of two types, whose ids are 5 and 9 and of which one has another name than the model's."""
    theirs = TissueTable((TissueType(5, "Gland", "#000000"), TissueType(9, "cancer", "#ff0000", ("tumour", "0"))))
    rng = np.random.default_rng(0)
    rows = []
    for number in range(70):  # more than one group of rows
        image, semantic_map = draw_tissue(rng, 64, 2)
        semantic_map = np.array([5, 9], np.uint8)[semantic_map]
        semantic_map[0] = 255
        rows.append(
            {"image": encode_png(image), "semantic_map": encode_png(semantic_map), "source": f"{number}.png", "x": 0,
             "y": 0, "size": 64, "mpp": 0.5, "fractions": [0.0] * 10, "entropy": 0.0, "case": f"{number % 3}",
             "split": "train"}
        )  # fmt: skip
    folder = tmp_path / "dataset"
    write_shards(rows, theirs, folder, "train")
    (folder / "tissue.toml").write_text(theirs.to_toml())
    return folder


def test_maps_of_a_split_come_in_its_order_with_the_ids_of_the_model(dataset):
    maps = open_maps(Source(maps=dataset, split="train", record_names=True), TABLE, 0, None)
    patches = load_patches(dataset, "train")
    assert len(maps) == len(patches) == 70
    for number in (69, 0, 63, 64):  # in any order, over the border of a group
        name, semantic_map = maps.read(number)
        assert name == f"{number}.png (0, 0)"
        expected = np.select([patches.semantic_maps[number] == 5, patches.semantic_maps[number] == 9], [1, 2], 255)
        np.testing.assert_array_equal(semantic_map, expected)


def test_a_split_that_is_not_there_and_a_type_that_the_model_lacks_are_named(dataset, tmp_path):
    with pytest.raises(InputError, match="is a patch dataset; name one with --split: train"):
        open_maps(Source(maps=dataset), TABLE, 0, None)
    with pytest.raises(InputError, match="has no split 'val'; name one with --split: train"):
        open_maps(Source(maps=dataset, split="val"), TABLE, 0, None)
    maps = open_maps(Source(maps=dataset, split="train"), TissueTable.from_names(["stroma", "gland"]), 0, None)
    with pytest.raises(TissueError, match=r"0.png \(0, 0\): holds 'cancer', which the model does not know"):
        maps.read(0)
    Image.fromarray(halves(0, 1)).save(tmp_path / "0.png")
    with pytest.raises(ConfigError, match="split 'train' has no effect"):
        open_maps(Source(maps=tmp_path, split="train"), TABLE, 0, None)


def test_a_folder_of_mixed_sizes_is_woven_like_each_map_alone(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    shapes = [(64, 64), (64, 96), (64, 64), (96, 64), (128, 128)]
    maps = [halves(0, 1, size=128)[:height, :width].copy() for height, width in shapes]
    (tmp_path / "maps").mkdir()
    for number, semantic_map in enumerate(maps):
        Image.fromarray(semantic_map).save(tmp_path / "maps" / f"{number}.png")
    weave_folder(pipeline, Source(maps=tmp_path / "maps"), QUICK, tmp_path / "woven")
    woven = list(iter_woven(tmp_path / "woven"))
    assert [semantic_map.shape for _, _, semantic_map in woven] == shapes
    for number, (row, image, semantic_map) in enumerate(woven):
        np.testing.assert_array_equal(semantic_map, maps[number])
        alone = next(iter(weave(pipeline, [Order(semantic_map, "", [])], WeaveConfig(steps=1, seed=number))))
        assert apart(image, alone.image) <= 1  # the batch may change the last bit
        assert row["seed"] == number


def test_maps_in_sub_folders_are_read_and_what_is_left_out_is_noted(tmp_path):
    names = ["P1/0.png", "P2/0.png", "a.tif"]
    for name in [*names, ".b.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(halves(0, 1)).save(tmp_path / name)
    (tmp_path / "c.gif").write_bytes(b"")
    source = Source(maps=tmp_path, record_names=True)
    maps = open_maps(source, TABLE, 0, None)
    assert [maps.read(number)[0] for number in range(len(maps))] == names
    assert left_out(source, TABLE) == [
        f"{tmp_path}: 1 hidden files were left out: .b.png",
        f"{tmp_path}: 1 files are not maps that can be opened: c.gif",
    ]


def test_layouts_follow_the_drawing_that_was_asked_for():
    def share_of_borders(mpp: float, **drawing) -> float:
        source = Source(maps=DrawnMaps(count=6, size=96, styles=(("gland", "crypts"),), **drawing), mpp=mpp)
        maps = open_maps(source, TissueTable.from_names(["gland", "stroma"]), 0, mpp)
        drawn = np.stack([maps.read(number)[1] for number in range(6)])
        return float((np.diff(drawn, axis=1) != 0).sum() / (drawn == 0).sum())

    assert 1.5 < share_of_borders(3.0) / share_of_borders(1.5) < 2.5  # glands keep their size in micrometers
    maps = open_maps(Source(maps=DrawnMaps(count=4, size=96, two_types=1.0, background="tumour")), TABLE, 0, 3.0)
    assert all(set(np.unique(maps.read(number)[1])) == {0, 1, 2} for number in range(4))
