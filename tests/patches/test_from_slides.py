"""Small slides with QuPath annotations become datasets; what is checked is the dataset, not the steps."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scanner_files import write_dicom, write_mrxs, write_ndpi, write_scn
from slide_files import coordinate_image, write_qupath

from histoloom.distributed import Workers
from histoloom.errors import ConfigError, InputError, OutputError, SlideError
from histoloom.patches.from_slides import extract_slides, write_part
from histoloom.patches.places import PlaceReader
from histoloom.patches.rules import PatchRules, SlideDataset
from histoloom.patches.slide_jobs import find_jobs
from histoloom.patches.store import iter_rows, load_patches
from histoloom.pictures import read_image
from histoloom.slides.labeling import AnnotationConfig
from histoloom.tissue import TissueTable

WIDTH, HEIGHT = 520, 392
TABLE = TissueTable.from_names(["stroma", "tumour", "fat"])
COLORS = np.array([(200, 120, 160), (110, 60, 140), (235, 190, 210)], np.uint8)
RULES = PatchRules(mpp=1.0, size=64, stride=32, min_focus=0.0)
CONFIG = SlideDataset(rules=RULES, slide_mpp=0.5, val_share=0.3)


def tissue_at(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """The tissue id drawn at level-0 places: two slanted borders that differ from slide to slide."""
    return (x + 0.5 * y > 220 + 30 * seed).astype(int) + (x - 0.3 * y > 330 + 10 * seed)


def write_slide(folder: Path, name: str, seed: int) -> None:
    """A slide whose color is its tissue, and the same borders as QuPath polygons."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    noise = np.random.default_rng(seed).integers(-12, 13, (HEIGHT, WIDTH, 1))
    pixels = (COLORS[tissue_at(columns, rows, seed)] + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "slides" / f"{name}.png")
    first, second = 220 + 30 * seed, 330 + 10 * seed
    shapes = {
        "stroma": [(0, 0), (first, 0), (first - 0.5 * HEIGHT, HEIGHT), (0, HEIGHT)],
        "tumour": [(first, 0), (second, 0), (second + 0.3 * HEIGHT, HEIGHT), (first - 0.5 * HEIGHT, HEIGHT)],
        "fat": [(second, 0), (WIDTH, 0), (WIDTH, HEIGHT), (second + 0.3 * HEIGHT, HEIGHT)],
    }
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])]]},
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": [1, 2, 3]}},
        }
        for name, ring in shapes.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (folder / "annotations" / f"{name}.geojson").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three slides of two cases."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "annotations").mkdir()
    for seed, name in enumerate(("P1_a", "P1_b", "P2_a")):
        write_slide(tmp_path, name, seed)
    return tmp_path


def extract(folder: Path, out: str, config: SlideDataset = CONFIG, **way):
    jobs, notes = find_jobs(folder / "slides", folder / "annotations", config)
    return extract_slides(jobs, notes, TABLE, config, folder / out, **way)


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset; its name is all that two equal ones may differ in."""
    name = f'"{folder.name}"'.encode()
    title = f"# {folder.name}".encode()
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(name, b"NAME").replace(title, b"NAME")
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(folder: Path) -> list[dict]:
    return [row for split in ("train", "val") for row in iter_rows(folder, split)]


def test_patches_keep_the_rules_and_the_richest_come_first(folder):
    result = extract(folder, "out")
    rows = rows_of(folder / "out")
    assert len(rows) == sum(count["patches"] for count in result.record["counts"].values()) > 10
    for row in rows:
        assert 0.2 <= max(row["fractions"]) <= 0.8
        assert row["image"] is None
        assert (row["size"], row["mpp"]) == (128, 1.0)
    for source in {row["source"] for row in rows}:
        entropies = [row["entropy"] for row in rows if row["source"] == source]
        assert np.diff(entropies).max() < 0.05  # ranked on the coarse map, exact within its error
    assert len({(row["source"], row["x"], row["y"]) for row in rows}) == len(rows)


def test_maps_agree_with_pixels_and_an_index_gives_the_same_pixels(folder):
    extract(folder, "index")
    extract(folder, "pixels", dataclasses.replace(CONFIG, pixels=True))
    reader = PlaceReader(folder / "index")
    for split in ("train", "val"):
        index, written = list(iter_rows(folder / "index", split)), load_patches(folder / "pixels", split)
        assert [(r["x"], r["y"], r["source"]) for r in index] == [
            (x, y, source) for (x, y, _), source in zip(written.places.tolist(), written.sources, strict=True)
        ]
        for row, image, semantic_map in zip(index, written.images, written.semantic_maps, strict=True):
            again_image, again_map = reader.read(row)
            assert np.array_equal(again_image, image)
            assert np.array_equal(again_map, semantic_map)
            nearest = np.abs(image[:, :, None].astype(int) - COLORS.astype(int)).sum(-1).argmin(-1)
            assert (nearest == semantic_map).mean() > 0.97  # all but the one-pixel border between two tissues


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", [Workers(2), Workers(ray="local")])
def test_the_number_of_workers_changes_no_byte(folder, workers):
    extract(folder, "one")
    extract(folder, "many", workers=workers)
    assert all_bytes(folder / "one") == all_bytes(folder / "many")


KILLED = """
import os, signal
from pathlib import Path
from histoloom.patches.from_slides import extract_slides
from histoloom.patches.slide_jobs import find_jobs

def dies(source, target, replace=os.replace, moves=[]):
    moves += [target] if Path(target).match(pattern) else []
    if len(moves) == times:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = dies
jobs, notes = find_jobs(folder / "slides", folder / "annotations", config)
extract_slides(jobs, notes, table, config, folder / "out")
"""


@pytest.mark.parametrize(
    ("pattern", "times"),
    [("record.json", 1), ("parts/*", 1), ("parts/*", 3), ("data/val*", 1), ("dataset.json", 1), ("README.md", 1)],
)
def test_a_killed_run_ends_with_the_bytes_of_a_whole_one(folder, start, pattern, times):
    config = dataclasses.replace(CONFIG, pixels=True)
    extract(folder, "whole", config)
    killed = start(KILLED, folder=folder, config=config, table=TABLE, pattern=pattern, times=times)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (folder / "out").exists()
    extract(folder, "out", config)
    assert all_bytes(folder / "out") == all_bytes(folder / "whole")
    places = [(row["source"], row["x"], row["y"]) for row in rows_of(folder / "out")]
    assert len(set(places)) == len(places) > 10
    assert not (folder / "out.partial").exists()


def test_a_resumed_run_opens_no_finished_slide_again(folder, monkeypatch):
    started = []

    def stopped_at_the_second(job, **options):
        started.append(job.source)
        if len(started) == 2:
            raise KeyboardInterrupt
        write_part(job, **options)

    monkeypatch.setattr("histoloom.patches.from_slides.write_part", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, "out")
    extract(folder, "out")
    assert started == ["P1_a.png", "P1_b.png", "P1_b.png", "P2_a.png"]
    with pytest.raises(OutputError, match="exists already"):
        extract(folder, "out")


def test_other_settings_do_not_resume(folder, monkeypatch):
    monkeypatch.setattr("histoloom.patches.from_slides._join_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(folder, "out")
    with pytest.raises(OutputError, match=r"config\.pixels was false, is now true"):
        extract(folder, "out", dataclasses.replace(CONFIG, pixels=True))


def test_a_broken_slide_is_named_skipped_and_counted(folder):
    path = folder / "slides" / "P1_b.png"
    path.write_bytes(path.read_bytes()[:5000])
    result = extract(folder, "out")
    assert len(result.failures) == 1
    assert "P1_b.png" in result.failures[0]
    assert {row["source"] for row in rows_of(folder / "out")} == {"P1_a.png", "P2_a.png"}


def test_slides_of_every_scanner_lie_in_one_dataset(tmp_path):
    slides, annotations = tmp_path / "slides", tmp_path / "annotations"
    (slides / "dicom").mkdir(parents=True)
    annotations.mkdir()
    names = ["a.scn", "b.ndpi", "c.mrxs", "dicom/level-0.dcm"]
    for name, write in zip(names, (write_scn, write_ndpi, write_mrxs, write_dicom), strict=True):
        write(slides / name, coordinate_image(501, 373))
    for stem in ("a", "b", "c", "dicom"):
        square = [(60, 40), (420, 40), (420, 330), (60, 330)]
        write_qupath(annotations / f"{stem}.geojson", [("tumour", [square])])
    rules = dataclasses.replace(RULES, mpp=0.5, min_tissue=0.0, per_slide=6)
    config = SlideDataset(rules=rules, annotations=AnnotationConfig(rest="stroma"), val_share=0.3)
    assert extract(tmp_path, "index", config).failures == []
    extract(tmp_path, "pixels", dataclasses.replace(config, pixels=True))
    rows = rows_of(tmp_path / "pixels")
    assert {row["source"] for row in rows} == set(names)
    reader = PlaceReader(tmp_path / "index")
    for row in rows:
        assert np.array_equal(reader.read(row)[0], read_image(row["image"]["bytes"], row["source"]))


def test_no_case_lies_on_both_sides(folder):
    config = dataclasses.replace(CONFIG, case_pattern="^(P[0-9])_")
    extract(folder, "out", config)
    cases = {split: {row["case"] for row in iter_rows(folder / "out", split)} for split in ("train", "val")}
    assert cases["train"] | cases["val"] == {"P1", "P2"}
    assert not cases["train"] & cases["val"]


def test_caps_hold_and_the_seed_moves_the_grid(folder):
    few = dataclasses.replace(CONFIG, rules=dataclasses.replace(RULES, per_slide=5, per_type=2))
    moved = dataclasses.replace(CONFIG, rules=dataclasses.replace(RULES, seed=1))
    extract(folder, "few", few)
    extract(folder, "moved", moved)
    rows = rows_of(folder / "few")
    for source in {row["source"] for row in rows}:
        commonest = [int(np.argmax(row["fractions"])) for row in rows if row["source"] == source]
        assert len(commonest) <= 5
        assert max(np.bincount(commonest)) <= 2
    assert {(r["x"], r["y"]) for r in rows} - {(r["x"], r["y"]) for r in rows_of(folder / "moved")}


def test_blurred_slides_give_nothing_when_focus_is_asked_for(folder):
    flat = dataclasses.replace(CONFIG, rules=dataclasses.replace(RULES, min_focus=50.0))
    with pytest.raises(InputError, match="no patch of 3 slides"):
        extract(folder, "out", flat)


def test_bad_input_names_file_and_cure(folder):
    with pytest.raises(InputError, match="no slides here"):
        find_jobs(folder / "annotations", folder / "annotations", CONFIG)
    with pytest.raises(InputError, match="rename them"):
        find_jobs(folder / "slides", folder / "slides", CONFIG)
    with pytest.raises(ConfigError, match="case pattern"):
        find_jobs(folder / "slides", folder / "annotations", dataclasses.replace(CONFIG, case_pattern="^(X)"))
    with pytest.raises(InputError, match=r"P1_a\.png.*--slide-mpp") as caught:
        extract(folder, "out", dataclasses.replace(CONFIG, slide_mpp=None))
    assert not isinstance(caught.value, SlideError)
