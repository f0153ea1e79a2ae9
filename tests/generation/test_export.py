"""Exports of woven patches: each is opened by the tool that it is for, or by an independent reader of its format."""

import getpass
import json
import os
import shutil
import socket
from pathlib import Path

import datasets
import numpy as np
import pytest
import shapely
import yaml
from folders import files
from PIL import Image
from pycocotools.coco import COCO
from skimage.draw import polygon2mask
from woven_folders import RECORD, TABLE, make_patch

from histoloom.errors import ConfigError, ImageError, InputError, OutputError
from histoloom.experiments.data import open_split
from histoloom.generation.export import export_woven
from histoloom.generation.woven_patch import SOURCES
from histoloom.generation.woven_reader import read_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.license import License
from histoloom.patches.dataset import read_description
from histoloom.patches.store import read_table
from histoloom.slides.annotations import read_annotations

CARD = """---
license: cc-by-4.0
---
# 3 woven patches

## License

Inherited from the model: cc-by-4.0. Attribution: R&amp;D of Somebody 2023

## Before you share this folder
"""
COUNT = 3


@pytest.fixture(scope="module")
def woven(tmp_path_factory) -> Path:
    """Three patches of 24 px whose types change from pixel to pixel, so that regions have holes in holes."""
    folder = tmp_path_factory.mktemp("work") / "woven"
    patches = [make_patch(number) for number in range(COUNT)]
    patches[1].semantic_map[4:20, 4:20] = 2
    patches[1].semantic_map[8:16, 8:16] = 0
    write_patches(
        lambda first: patches[first:],
        TABLE,
        folder,
        RECORD,
        {"maps": {"abc": ["/home/someone/a.png"]}},
        lambda aside: (aside / "README.md").write_text(CARD),
    )
    return folder


def exported(woven: Path, kind: str) -> Path:
    """The export, made once; it names its license, and nothing of this machine."""
    out = woven.parent / kind
    assert export_woven(woven, kind, out) == COUNT
    assert License.of_card(out) == License("cc-by-4.0", "R&D of Somebody 2023")
    assert "Attribution: R&amp;D of Somebody 2023" in (out / "README.md").read_text()
    for name, data in files(out).items():
        for private in (str(woven.parent), os.getcwd(), "/home/", f"/{getpass.getuser()}/", f"{socket.gethostname()}."):
            assert private.encode() not in data, (name, private)
    assert SOURCES not in files(out)
    return out


def test_a_dataset_is_opened_by_what_train_opens(woven):
    out, expected = exported(woven, "dataset"), read_woven(woven)
    patches = open_split(out, "train")
    np.testing.assert_array_equal(patches.images, expected.images)
    np.testing.assert_array_equal(patches.semantic_maps, expected.semantic_maps)
    assert len(set(patches.cases)) == COUNT
    assert read_table(out) == TABLE
    assert License.of(read_description(out)) == License("cc-by-4.0", "R&D of Somebody 2023")


def test_datasets_opens_what_is_for_hugging_face(woven, tmp_path):
    out, expected = exported(woven, "huggingface"), read_woven(woven)
    opened = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path))
    for number, row in enumerate(opened):
        np.testing.assert_array_equal(np.asarray(row["image"]), expected.images[number])
        np.testing.assert_array_equal(np.asarray(row["semantic_map"]), expected.semantic_maps[number])
        assert {name: row[name] for name in ("seed", "crops", "steps")} == {
            name: expected.rows[number][name] for name in ("seed", "crops", "steps")
        }


def test_pycocotools_reads_masks_that_make_up_the_map(woven):
    out, expected = exported(woven, "coco"), read_woven(woven)
    coco = COCO(out / "instances.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(TABLE.names)
    for number, image_id in enumerate(coco.getImgIds()):
        image = coco.loadImgs(image_id)[0]
        np.testing.assert_array_equal(
            np.asarray(Image.open(out / "images" / image["file_name"])), expected.images[number]
        )
        categories, covered = np.zeros((24, 24), int), np.zeros((24, 24), int)
        for annotation in coco.loadAnns(coco.getAnnIds(image_id)):
            mask = coco.annToMask(annotation)
            y, x = np.nonzero(mask)
            assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert annotation["area"] == mask.sum()
            categories += annotation["category_id"] * mask
            covered += mask
        assert covered.max() == 1
        np.testing.assert_array_equal(categories, (expected.semantic_maps[number].astype(int) + 1) % 256)
        np.testing.assert_array_equal(categories, np.asarray(Image.open(out / "semantic" / image["file_name"])))


def test_polygons_for_yolo_make_up_the_map(woven):
    """Read as YOLO's format is described: class, then x and y as shares of the edges; filled by even and odd."""
    out, expected = exported(woven, "yolo"), read_woven(woven)
    described = yaml.safe_load((out / "data.yaml").read_text())
    assert described["names"] == dict(enumerate(TABLE.names))
    for image, semantic_map in zip(sorted((out / described["train"]).iterdir()), expected.semantic_maps, strict=True):
        drawn = np.full((24, 24), 255, np.uint8)
        for line in (out / "labels" / f"{image.stem}.txt").read_text().splitlines():
            kind, *values = line.split()
            corners = np.array(values, float).reshape(-1, 2)
            assert 0 <= corners.min() <= corners.max() <= 1
            inside = polygon2mask((24, 24), corners[:, ::-1] * 24 - 0.5)
            assert (drawn[inside] == 255).all()
            drawn[inside] = int(kind)
        np.testing.assert_array_equal(drawn, semantic_map)


def test_ultralytics_loads_the_polygons(woven, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    reason = "ultralytics is AGPL and no dependency of ours; install it to run this test"
    dataset = pytest.importorskip("ultralytics.data.dataset", reason=reason)
    described = yaml.safe_load((exported(woven, "yolo") / "data.yaml").read_text())
    copied = tmp_path / "yolo"
    shutil.copytree(exported(woven, "yolo"), copied)  # it writes a cache beside the labels
    loaded = dataset.YOLODataset(
        img_path=str(copied / described["train"]), data=described | {"channels": 3}, task="segment", imgsz=24
    )
    maps = read_woven(woven).semantic_maps
    assert len(loaded.labels) == len(maps)
    for label, semantic_map in zip(sorted(loaded.labels, key=lambda one: one["im_file"]), maps, strict=True):
        assert set(label["cls"].ravel().astype(int)) == set(np.unique(semantic_map)) - {255}
        assert len(label["segments"]) == len(label["cls"])


def test_shapely_and_our_reader_open_geojson(woven):
    out, expected = exported(woven, "geojson"), read_woven(woven)
    for path, semantic_map in zip(sorted((out / "annotations").iterdir()), expected.semantic_maps, strict=True):
        features = json.loads(path.read_text())["features"]
        shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
        names = [feature["properties"]["classification"]["name"] for feature in features]
        assert shapely.is_valid(shapes).all()
        for tissue in TABLE.types:
            mine = [name == tissue.name for name in names]
            assert shapely.area(shapes)[mine].sum() == (semantic_map == tissue.id).sum()
        again = read_annotations(path, TABLE, (24, 24), 0.5).read(0, 0, (24, 24), 0.5)
        np.testing.assert_array_equal(again, semantic_map)


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(woven, tmp_path):
    with pytest.raises(ConfigError, match="--as png is unknown; known: dataset, huggingface, coco, yolo, geojson"):
        export_woven(woven, "png", tmp_path / "out")
    with pytest.raises(InputError, match=r"holds no woven patches \(no index.parquet\)"):
        export_woven(tmp_path, "coco", tmp_path / "out")
    with pytest.raises(OutputError, match="as was"):
        export_woven(woven, "yolo", exported(woven, "geojson"))
    mixed = tmp_path / "mixed"
    write_patches(lambda first: [make_patch(0), make_patch(1, 32)][first:], TABLE, mixed, RECORD)
    with pytest.raises(ImageError, match=r"00000.png is 24 x 24 px and 00001.png is 32 x 32 px; export as huggingface"):
        export_woven(mixed, "dataset", tmp_path / "out")
    assert export_woven(mixed, "coco", tmp_path / "coco") == 2
    assert "Inherited from the model: unknown." in (tmp_path / "coco" / "README.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["coco", "mixed"]
