import csv
import shutil

import numpy as np
import pytest
from picture_folders import labels, pixels, row, save, write_manifest, write_pairs
from PIL import Image

from histoloom.errors import ConfigError, InputError
from histoloom.patches.folder import FolderImport, find_pictures, patch_rows
from histoloom.pictures import read_image, read_labels
from histoloom.recipes import FOLDER
from histoloom.tissue import TissueTable


def test_a_manifest_gives_order_case_and_split(tmp_path):
    write_pairs(tmp_path, ["a", "b", "c"])
    rows = [
        row("c", tissue="gland", tissue_id=1, case_id="9", split="val"),
        row("a", tissue="gland", tissue_id=1, case_id="7", split="train"),
        row("b", tissue="fat", tissue_id=2, case_id="9", split="val"),
    ]
    pictures = find_pictures(write_manifest(tmp_path, rows), None, FolderImport())
    assert [(p.source, p.case, p.split) for p in pictures] == [
        ("images/c.png", "9", "val"), ("images/a.png", "7", "train"), ("images/b.png", "9", "val")
    ]  # fmt: skip
    drawn = find_pictures(tmp_path / "manifest.csv", None, FolderImport(val_share=0.34))
    assert [picture.split for picture in drawn] == ["train", "val", "train"]


def test_a_manifest_needs_image_and_map_only(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    pictures = find_pictures(write_manifest(tmp_path, [row("a"), row("b")]), None, FolderImport())
    assert [picture.case for picture in pictures] == ["a", "b"]
    assert {picture.split for picture in pictures} == {"train", "val"}


def test_another_column_may_name_the_case(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    manifest = write_manifest(tmp_path, [row("a", patient="x"), row("b", patient="y")])
    pictures = find_pictures(manifest, None, FolderImport(case_column="patient"))
    assert [picture.case for picture in pictures] == ["x", "y"]
    pictures = find_pictures(manifest, None, FolderImport(case_column="Patient"))
    assert [picture.case for picture in pictures] == ["x", "y"]
    with pytest.raises(InputError, match="has no column 'patint'; known: image"):
        find_pictures(manifest, None, FolderImport(case_column="patint"))
    with pytest.raises(ConfigError, match="--map-suffix has no effect"):
        find_pictures(manifest, None, FolderImport(map_suffix="_mask"))


def test_columns_are_found_however_they_are_spelled(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    text = "Image,MAP,Case_ID,Split\nimages/a.png,maps/a.png,x,Val\nimages/b.png,maps/b.png,y,train\n"
    (tmp_path / "manifest.csv").write_text(text)
    pictures = find_pictures(tmp_path / "manifest.csv", None, FolderImport())
    assert [(picture.case, picture.split) for picture in pictures] == [("x", "val"), ("y", "train")]


@pytest.mark.parametrize("column", ["image", "map"])
@pytest.mark.parametrize("path", ["../outside.png", "images/../../outside.png", "/outside.png"])
def test_a_manifest_path_out_of_its_folder_is_not_followed(tmp_path, column, path):
    root = tmp_path / "data"
    write_pairs(root, ["a", "b"])
    save(tmp_path / "outside.png", pixels(0))
    manifest = write_manifest(root, [row("a"), row("b") | {column: path}])
    with pytest.raises(InputError, match=r"manifest\.csv line 3: .*(leads out of|not a relative path).*relative"):
        find_pictures(manifest, None, FolderImport())


def test_a_row_given_twice_names_both_lines(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    manifest = write_manifest(tmp_path, [row("a"), row("b"), row("a") | {"image": "images/../images/a.png"}])
    with pytest.raises(InputError, match=r"manifest\.csv line 4: images/a\.png is on line 2 already"):
        find_pictures(manifest, None, FolderImport())


def test_a_case_in_two_splits_is_named(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    rows = [row("a", case_id="7", split="train"), row("b", case_id="7", split="val")]
    with pytest.raises(InputError, match="case '7' is in 'train' and in 'val'"):
        find_pictures(write_manifest(tmp_path, rows), None, FolderImport())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,tissue\na.png,1\n", "lacks the column 'map'"),
        ("image,map\n", "has no rows"),
        ("image,map\na.png,\n", "line 2: image or map is empty"),
        ("image,map\nnone.png,none.png\n", "none.png: no such file"),
        ("image,map,case_id\na.png,m.png,\n", "line 2: case_id is empty"),
        ("image,map,case_id\na.png,m.png,NaN\n", "line 2: case_id is 'NaN'"),
        ("image,map,split\na.png,m.png,holdout\n", "line 2: split is 'holdout'"),
        ("", "lacks the column 'image'"),
        ("\x00\x01", "lacks the column|neither a folder"),
    ],
)
def test_a_broken_manifest_names_the_line(tmp_path, text, message):
    save(tmp_path / "a.png", pixels(0))
    save(tmp_path / "m.png", labels(0))
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_pictures(tmp_path / "manifest.csv", None, FolderImport())


def test_a_source_that_is_nothing_of_the_kind_says_so(tmp_path):
    with pytest.raises(InputError, match=r"missing\.csv: neither a folder of images nor a readable manifest"):
        find_pictures(tmp_path / "missing.csv", None, FolderImport())
    with pytest.raises(InputError, match=r"manifest\.csv: neither a folder of images nor a readable manifest"):
        find_pictures(tmp_path / "nowhere" / "manifest.csv", None, FolderImport())
    with pytest.raises(InputError, match="name the folder of their maps with --maps"):
        find_pictures(tmp_path, None, FolderImport())
    with pytest.raises(InputError, match="no such folder of maps"):
        find_pictures(tmp_path, tmp_path / "maps", FolderImport())


def test_real_tissue_is_read_as_its_manifest_says(shared_data, tmp_path):
    root = shared_data / "ebhi-seg"
    with (root / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::150]
    for name in (line[key] for line in rows for key in ("image", "map")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    config, table = (
        FolderImport(trim=2),
        TissueTable.load(FOLDER / "ebhi-seg.tissue.toml"),
    )
    found = list(patch_rows(find_pictures(write_manifest(tmp_path, rows), None, config), table, config))
    assert [(p["source"], p["case"], p["split"]) for p in found] == [
        (r["image"], r["case_id"], r["split"]) for r in rows
    ]
    for patch, named in zip(found, rows, strict=True):
        with Image.open(root / named["image"]) as image, Image.open(root / named["map"]) as semantic_map:
            np.testing.assert_array_equal(read_image(patch["image"]["bytes"], ""), np.asarray(image)[2:-2, 2:-2])
            ids = read_labels(patch["semantic_map"]["bytes"], "")
            np.testing.assert_array_equal(ids, np.asarray(semantic_map)[2:-2, 2:-2])
        assert set(np.unique(ids)) <= {0, int(named["tissue_id"])}
