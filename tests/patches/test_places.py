"""An index gives the pixels it was made from, or says why it cannot."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from slide_files import write_qupath, write_tiled_tiff

from histoloom.errors import InputError, SlideError
from histoloom.patches import places
from histoloom.patches.from_slides import extract_slides
from histoloom.patches.places import PlaceReader
from histoloom.patches.rules import PatchRules, SlideDataset
from histoloom.patches.slide_jobs import find_jobs
from histoloom.patches.store import iter_rows, load_patches
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["left", "right"])
CONFIG = SlideDataset(rules=PatchRules(mpp=0.4, size=48, stride=24, min_focus=0.0), val_share=0.0)


@pytest.fixture
def home(tmp_path) -> Path:
    """Three slides with a border that differs, and the dataset `index` of their places."""
    for folder in ("slides", "annotations"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        border = 180 + 40 * seed
        grain = np.random.default_rng(seed).normal(0, 9, (300, 400, 1))
        tissue = np.where((np.arange(400) < border)[None, :, None], (220, 150, 190), (110, 60, 140))
        write_tiled_tiff(tmp_path / "slides" / f"{seed}.tif", np.clip(tissue + grain, 0, 255).astype(np.uint8))
        halves = [("left", 0, border), ("right", border, 400)]
        areas = [(name, [[(a, 0), (b, 0), (b, 300), (a, 300)]]) for name, a, b in halves]
        write_qupath(tmp_path / "annotations" / f"{seed}.geojson", areas)
    cut(tmp_path, "index", CONFIG)
    return tmp_path


def cut(home: Path, out: str, config: SlideDataset) -> None:
    jobs, notes = find_jobs(home / "slides", home / "annotations", config)
    extract_slides(jobs, notes, TABLE, config, home / out)


def test_an_index_loads_as_a_dataset_with_pixels_does(home):
    cut(home, "pixels", dataclasses.replace(CONFIG, pixels=True))
    written = load_patches(home / "pixels", "train")
    read = load_patches(home / "index", "train", PlaceReader(home / "index").read)
    assert len(written) > 10
    assert read.fingerprint() == written.fingerprint()
    for name in ("mpp", "places", "sources"):
        assert np.array_equal(getattr(read, name), getattr(written, name))


def test_slides_are_opened_once_and_only_some_stay_open(home, monkeypatch):
    monkeypatch.setattr(places, "OPEN_SLIDES", 2)
    reader = PlaceReader(home / "index")
    rows = list(iter_rows(home / "index", "train"))
    images = [reader.read(row)[0] for row in [*rows, rows[0]]]
    assert np.array_equal(images[0], images[-1])
    assert len(reader._open) == 2
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read(rows[0])[0], images[0])


def test_places_of_a_slide_are_found_by_its_path_or_name(home):
    reader = PlaceReader(home / "index")
    assert reader.source_of(home / "slides" / "1.tif") == reader.source_of(Path("elsewhere/1.tif")) == "1.tif"
    rows = [row for row in iter_rows(home / "index", "train") if row["source"] == "1.tif"]
    assert reader.places("1.tif") == [(row["x"], row["y"], row["size"]) for row in rows]
    with pytest.raises(InputError, match=r"index: has 0 slides named 9\.tif; it was made of 0\.tif"):
        reader.source_of(Path("9.tif"))


def test_what_changed_since_is_refused(home):
    row = next(iter_rows(home / "index", "train"))
    write_qupath(home / "annotations" / "0.geojson", [("left", [[(0, 0), (400, 0), (400, 300)]])])
    with pytest.raises(InputError, match=r"0\.tif: it or its annotation changed since .*index was made"):
        PlaceReader(home / "index").read(row)
    (home / "slides" / "0.tif").unlink()
    with pytest.raises(SlideError, match=r"0\.tif: no such file; if .* moved, write .*paths\.local\.json"):
        PlaceReader(home / "index").read(row)


def test_another_slide_of_the_same_size_is_refused(home):
    row = next(iter_rows(home / "index", "train"))
    path = home / "slides" / row["source"]
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="it or its annotation changed"):
        PlaceReader(home / "index").read(row)


def test_slides_that_moved_are_read_from_their_new_folder(home, tmp_path):
    row = next(iter_rows(home / "index", "train"))
    image, semantic_map = PlaceReader(home / "index").read(row)
    shutil.copytree(home / "slides", tmp_path / "disk" / "slides")
    shutil.move(home / "annotations", tmp_path / "disk" / "annotations")
    shutil.rmtree(home / "slides")
    with pytest.raises(SlideError, match="have moved"):
        PlaceReader(home / "index").read(row)
    there = PlaceReader(home / "index", tmp_path / "disk" / "slides", tmp_path / "disk" / "annotations")
    assert np.array_equal(there.read(row)[0], image)
    paths = {name: str(tmp_path / "disk" / name) for name in ("slides", "annotations")}
    (home / "index" / "paths.local.json").write_text(json.dumps(paths))
    assert np.array_equal(PlaceReader(home / "index").read(row)[1], semantic_map)


def test_nothing_but_the_local_paths_names_a_folder_of_this_machine(home):
    for path in (home / "index").rglob("*"):
        if path.is_file() and path.name != "paths.local.json":
            assert str(home).encode() not in path.read_bytes(), path


def test_a_folder_without_slides_behind_it_is_refused(home):
    with pytest.raises(InputError, match="not made by `histoloom patches`"):
        PlaceReader(home / "slides")
