import io
import os
import tracemalloc
from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_dataset import write_drawn_dataset
from PIL import Image

from histoloom.errors import ImageError, InputError
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.map_sources import DatasetMaps
from histoloom.parquet import open_parquet
from histoloom.patches import store
from histoloom.patches.card import summarize
from histoloom.patches.dataset import write_description
from histoloom.patches.store import (
    encode_png,
    has_pixels,
    iter_rows,
    load_patches,
    read_table,
    splits,
    spread,
)
from histoloom.pictures import read_image, read_labels
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])


def row(index: int, size: int = 16, **changes) -> dict:
    pixels = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
    semantic_map = np.where(pixels[..., 0] > 200, 255, pixels[..., 0] % 2).astype(np.uint8)
    return {
        "image": encode_png(pixels),
        "semantic_map": encode_png(semantic_map),
        "source": f"{index}.png",
        "x": 2,
        "y": 3,
        "size": size,
        "mpp": 0.5 if index else None,
        "fractions": [0.25, 0.75],
        "entropy": 0.5,
        "case": f"case-{index // 2}",
        "split": "train",
    } | changes


def write(folder, rows, split="train") -> int:
    (folder / "tissue.toml").write_text(TABLE.to_toml())
    return store.write_shards(rows, TABLE, folder, split)


def test_what_is_written_comes_back_in_order(tmp_path):
    rows = [row(index) for index in range(5)]
    assert write(tmp_path, rows) == 5
    patches = load_patches(tmp_path, "train")
    assert len(patches) == 5
    assert patches.sources == [f"{index}.png" for index in range(5)]
    assert patches.cases == ["case-0", "case-0", "case-1", "case-1", "case-2"]
    assert patches.places.tolist() == [[2, 3, 16]] * 5
    np.testing.assert_array_equal(patches.mpp, [np.nan, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(patches.images[3], read_image(rows[3]["image"]["bytes"], "3"))
    np.testing.assert_array_equal(patches.semantic_maps[3], read_labels(rows[3]["semantic_map"]["bytes"], "3"))
    assert list(iter_rows(tmp_path, "train")) == rows
    assert read_table(tmp_path) == TABLE


def test_rows_that_were_read_are_given_back(tmp_path):
    columns = pa.schema([("vector", pa.list_(pa.float32(), 512))])
    with pq.ParquetWriter(tmp_path / "vectors.parquet", columns, compression="none", use_dictionary=False) as writer:
        for number in range(40):  # groups of 2 MB
            vectors = np.random.default_rng(number).random(1024 * 512, np.float32)
            writer.write_table(pa.table([pa.FixedSizeListArray.from_arrays(pa.array(vectors), 512)], schema=columns))
    before = pa.total_allocated_bytes()
    with open_parquet(tmp_path / "vectors.parquet") as file:
        for _ in file.iter_batches(1024):
            assert pa.total_allocated_bytes() - before < 20 * 2**20


def test_png_keeps_every_byte_of_images_and_maps():
    for shape, read in (((7, 9, 3), read_image), ((7, 9), read_labels)):
        array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(read(encode_png(array)["bytes"], "x"), array)


def encoded(pixels: np.ndarray, mode: str = "", kind: str = "PNG") -> dict:
    """Pixels as another program may have put them into a shard."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


def test_pixels_of_a_shard_mean_what_they_mean_in_a_file(tmp_path):
    color = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    ids = np.repeat(np.array([0, 1], np.uint8), 6)[None].repeat(12, 0)
    half = np.dstack([color, np.where(ids == 1, 255, 0).astype(np.uint8)])
    write(tmp_path, [row(0, size=12) | {"image": encoded(half), "semantic_map": encoded(ids)}])
    np.testing.assert_array_equal(load_patches(tmp_path, "train").images[0], np.where(ids[..., None] == 1, color, 255))
    for name, value, message in (
        ("image", encoded(color, "L"), "is grayscale, and H&E images have colors"),
        ("image", encoded(color, "CMYK", "TIFF"), "holds CMYK inks"),
        ("image", encoded(color[..., 0].astype(np.uint16) * 257), "is grayscale"),
        ("semantic_map", encoded(ids, "", "JPEG"), "its map is coded by JPEG, a lossy format"),
        ("semantic_map", encoded(color), "its map holds pixels of kind RGB, not ids of 8 bits"),
        ("semantic_map", encoded(ids.astype(np.uint16)), "its map holds pixels of kind I;16"),
    ):
        write(tmp_path, [row(0, size=12) | {"image": encoded(color), "semantic_map": encoded(ids)} | {name: value}])
        with pytest.raises(ImageError, match=message):
            load_patches(tmp_path, "train")


def test_hugging_face_datasets_opens_a_shard_and_decodes_it(tmp_path):
    rows = [row(index) for index in range(3)]
    write(tmp_path, rows)
    shards = str(tmp_path / "data" / "train-*.parquet")
    opened = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(opened.features["image"], datasets.Image)
    assert isinstance(opened.features["semantic_map"], datasets.Image)
    for theirs, ours in zip(opened, rows, strict=True):
        np.testing.assert_array_equal(np.asarray(theirs["image"]), read_image(ours["image"]["bytes"], "image"))
        np.testing.assert_array_equal(
            np.asarray(theirs["semantic_map"]), read_labels(ours["semantic_map"]["bytes"], "map")
        )
        rest = {key: value for key, value in theirs.items() if key not in ("image", "semantic_map")}
        assert rest == {key: ours[key] for key in rest}


def test_rows_beyond_a_shard_go_into_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_SHARD", 2)
    assert write(tmp_path, (row(index) for index in range(5))) == 5
    assert [p.name for p in sorted((tmp_path / "data").iterdir())] == [f"train-0000{i}.parquet" for i in range(3)]
    assert load_patches(tmp_path, "train").sources == [f"{index}.png" for index in range(5)]


def test_a_shard_of_large_images_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BYTES_PER_SHARD", 2 * len(row(0)["image"]["bytes"]) - 1)
    assert write(tmp_path, (row(index) for index in range(5))) == 5
    assert [p.name for p in sorted((tmp_path / "data").iterdir())] == [f"train-0000{i}.parquet" for i in range(3)]


def test_selected_patches_keep_their_columns_together(tmp_path):
    write(tmp_path, [row(index) for index in range(4)])
    patches = load_patches(tmp_path, "train")
    chosen = patches.select([3, 1])
    assert chosen.sources == ["3.png", "1.png"]
    np.testing.assert_array_equal(chosen.images, patches.images[[3, 1]])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (np.arange(5) < 2, "indices hold bool; give whole numbers, such as np.flatnonzero"),
        ([0.7], "indices hold float64"),
        ([0, 99], "indices run from 0 to 99; there are"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_a_mask_is_not_taken_for_the_numbers_0_and_1(small_patches, wrong, reason):
    everything = ImageSet(
        "", "", "", "", small_patches.images, None, small_patches.cases, [str(n) for n in range(len(small_patches))]
    )
    for patches in (small_patches, everything):
        with pytest.raises(InputError, match=reason):
            patches.select(wrong)
        assert len(patches.select([])) == 0
        assert len(patches.select(np.array([1, -1], np.int8))) == 2


def test_the_fingerprint_changes_with_a_pixel_and_with_the_order(tmp_path):
    write(tmp_path, [row(index) for index in range(2)])
    patches = load_patches(tmp_path, "train")
    assert load_patches(tmp_path, "train").fingerprint() == patches.fingerprint()
    assert patches.select([1, 0]).fingerprint() != patches.fingerprint()
    assert replace(patches, mpp=2 * patches.mpp).fingerprint() != patches.fingerprint()
    patches.images[0, 0, 0, 0] ^= 1
    assert load_patches(tmp_path, "train").fingerprint() != patches.fingerprint()


def test_splits_lie_side_by_side(tmp_path):
    write(tmp_path, [row(0)])
    write(tmp_path, [row(2, split="val")], "val")
    assert splits(tmp_path) == ["train", "val"]
    with pytest.raises(InputError, match=r"no shards of split 'test'.*known: train, val"):
        load_patches(tmp_path, "test")


def test_truncated_image_bytes_name_the_patch():
    whole = encode_png(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))["bytes"]
    for length in (0, 10, 40, len(whole) // 2, len(whole) - 100):
        with pytest.raises(ImageError, match=r"slide\.png: cannot read the picture"):
            read_image(whole[:length], "slide.png")


def test_a_truncated_image_in_a_shard_names_the_patch(tmp_path):
    broken = row(1)
    broken["image"]["bytes"] = broken["image"]["bytes"][:100]
    write(tmp_path, [row(0), broken])
    with pytest.raises(ImageError, match=r"1\.png: cannot read the picture"):
        load_patches(tmp_path, "train")


def test_patches_of_two_sizes_are_refused_with_the_cure(tmp_path):
    write(tmp_path, [row(0), row(1, size=8)])
    with pytest.raises(ImageError, match=r"differ in size .*--size"):
        load_patches(tmp_path, "train")


def test_an_index_without_pixels_says_so_unless_it_is_told_how_to_read_them(tmp_path):
    write(tmp_path, [row(index, image=None, semantic_map=None) for index in range(3)])
    with pytest.raises(InputError, match=r"index without pixels.*PlaceReader"):
        load_patches(tmp_path, "train")
    assert not has_pixels(tmp_path, "train")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    patches = load_patches(tmp_path, "train", lambda place: (pixels + int(place["source"][0]), pixels[..., 0] % 2))
    np.testing.assert_array_equal(patches.images, [pixels + index for index in range(3)])
    np.testing.assert_array_equal(patches.semantic_maps, [pixels[..., 0] % 2] * 3)


def test_memory_is_flat_in_the_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "INDEX_ROWS_PER_SHARD", 200)

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        write(folder, (row(index, image=None, semantic_map=None) for index in range(count)))
        assert summarize(folder)[0].patches == sum(1 for _ in iter_rows(folder, "train")) == count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(200)  # what is imported and cached once
    assert peak(2000) < 1.5 * peak(400)


def test_a_folder_that_is_no_dataset_says_so(tmp_path):
    with pytest.raises(InputError, match=r"not a patch dataset.*histoloom import"):
        read_table(tmp_path)


def test_a_run_that_dies_while_writing_leaves_no_half_shard(tmp_path):
    def dying():
        yield row(0)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write(tmp_path, dying())
    assert splits(tmp_path) == []


def test_the_record_is_replaced_whole(tmp_path):
    write_description(tmp_path, {"version": "1"})
    write_description(tmp_path, {"version": "2"})
    assert os.listdir(tmp_path) == ["dataset.json"]
    assert '"version": "2"' in (tmp_path / "dataset.json").read_text()


def test_a_dataset_may_have_a_name_that_is_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"pr\xe4parate")
    folder.mkdir()
    assert write(folder, [row(0)]) == 1
    assert len(load_patches(folder, "train")) == 1


def test_a_dataset_that_lacks_a_shard_or_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_SHARD", 2)
    write(tmp_path, [row(i) for i in range(6)])
    write_description(tmp_path, {"counts": {"train": {"patches": 6, "cases": 3}}})
    assert len(load_patches(tmp_path, "train")) == 6
    _, second, third = sorted((tmp_path / "data").iterdir())
    third.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"split 'train' has 4 patches, but its dataset\.json says 6; copy"):
        load_patches(tmp_path, "train")
    (tmp_path / "away").rename(third)
    second.unlink()
    with pytest.raises(InputError, match=r"split 'train' has 4 patches, but its dataset\.json says 6"):
        load_patches(tmp_path, "train")
    with pytest.raises(InputError, match=r"split 'train' has 4 patches, but its dataset\.json says 6"):
        DatasetMaps(tmp_path, "train", TABLE)


def test_types_keep_the_ids_that_the_shards_were_written_with(tmp_path):
    write(tmp_path, [row(0)])
    (tmp_path / "tissue.toml").write_text(TissueTable.from_names(["stroma", "crypt"]).to_toml())
    assert len(load_patches(tmp_path, "train")) == 1  # another name for the same type
    (tmp_path / "tissue.toml").write_text(TissueTable.from_names(["gland", "stroma"]).to_toml())
    with pytest.raises(
        InputError, match=r"train-00000\.parquet: was written with id 0 for 'stroma', which is 1 in the"
    ):
        load_patches(tmp_path, "train")
    (tmp_path / "tissue.toml").write_text(TissueTable.from_names(["stroma"]).to_toml())
    with pytest.raises(InputError, match=r"0\.png: its map holds 1, which is not in its tissue\.toml"):
        load_patches(tmp_path, "train")


def test_a_few_patches_of_a_split_are_spread_over_it(tmp_path):
    table = TissueTable.from_names(["stroma", "gland"])
    folder = write_drawn_dataset(tmp_path, table, count=8, cases=2, size=32)
    whole, few = load_patches(folder, "train"), load_patches(folder, "train", most=3)
    assert few.sources == [whole.sources[number] for number in (0, 3, 7)]
    np.testing.assert_array_equal(few.images, whole.images[spread(8, 3)])
    assert len(load_patches(folder, "train", most=20)) == 8
