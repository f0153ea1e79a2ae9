"""A broken slide is named and costs no other; what cannot be read is one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_files import write_aperio, write_image, write_qupath, write_tiled_tiff
from slide_project import HEIGHT, RIGHT, WIDTH, cut, pixels

from histoloom.patches.store import iter_rows, splits

ENTITIES = {
    "laughs": '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">',
    "external entity": '<!ENTITY b SYSTEM "file:///etc/passwd">',
}


def bad_slide(project: Path, kind: str) -> str:
    """Make slide c bad; returns what its line must say beside the file."""
    slide, annotation = project / "slides" / "c.tif", project / "annotations" / "c.geojson"
    write_tiled_tiff(slide, pixels(2))
    write_qupath(annotation, [("tumor", [RIGHT])])
    outline = [[0, 0], [99, 0], [99, 99], [0, 0]]

    def geojson(*rings) -> None:
        geometry = {"type": "Polygon", "coordinates": list(rings)}
        properties = {"classification": {"name": "tumor"}}
        annotation.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}))

    if kind == "cut short":
        slide.unlink()
        write_aperio(project / "slides" / "c.svs", pixels(2))
        data = (project / "slides" / "c.svs").read_bytes()
        (project / "slides" / "c.svs").write_bytes(data[: len(data) // 2])
        return "c.svs: damaged or cut short"
    if kind == "no mpp":
        slide.unlink()
        write_image(project / "slides" / "c.png", pixels(2))
        return "c.png: the file does not say its micrometers per pixel; give them with --slide-mpp"
    if kind in ENTITIES:
        annotation.unlink()
        text = f"<?xml version='1.0'?><!DOCTYPE z [{ENTITIES[kind]}]><ASAP_Annotations>&b;</ASAP_Annotations>"
        (project / "annotations" / "c.xml").write_text(text)
        return "c.xml: declares XML entities"
    if kind == "NaN":
        geojson([[0, 0], [float("nan"), 0], [99, 99], [0, 0]])
        return "c.geojson: feature 1 (tumor): a coordinate is NaN"
    if kind == "off the slide":
        geojson([[x + 9000, y] for x, y in outline])
        return "c.geojson: feature 1 (tumor): is off the slide"
    if kind == "class in no table":
        write_qupath(annotation, [("necrosis", [RIGHT])])
        return "class 'necrosis' is in no tissue table (known: stroma, tumor); add it to tissue.toml"
    if kind == "mask of another slide":
        annotation.unlink()
        Image.fromarray(np.ones((300, 100), np.uint8)).save(project / "annotations" / "c.png")
        return "c.png: the mask is 100 x 300, which does not scale to the slide's 520 x 392 pixels"
    raise ValueError(kind)


BAD = [
    "cut short", "no mpp", "laughs", "external entity", "NaN", "off the slide", "class in no table",
    "mask of another slide",
]  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_broken_slide_is_named_skipped_and_counted(project, histoloom, kind):
    said = bad_slide(project, kind)
    code, _, errors = cut(histoloom)
    assert code == 3
    assert len(errors) == 2
    assert errors[0].startswith("skipped: ")
    assert said in errors[0]
    assert errors[1] == "1 of 3 slides were skipped"
    rows = [row for split in splits("out") for row in iter_rows("out", split)]
    assert {row["source"] for row in rows} == {"a.tif", "b.tif"}
    assert "skipped: " in (project / "out" / "README.md").read_text()
    assert cut(histoloom)[0] == 3


def test_a_self_crossing_outline_is_repaired_not_skipped(project, histoloom):
    bow = [(0, 0), (WIDTH, HEIGHT), (WIDTH, 0), (0, HEIGHT)]
    write_qupath(project / "annotations" / "a.geojson", [("tumor", [bow])])
    assert cut(histoloom)[0] == 0
    code, _, errors = histoloom(
        "overlay", "slides/a.tif", "--annotation", "annotations/a.geojson", "--tissue", "tissue.toml", "--out", "a.png"
    )
    assert code == 0
    assert len(errors) == 1
    assert "the outline crosses itself; repaired" in errors[0]


def test_a_folder_that_is_named_as_a_slide_is_no_slide(project, histoloom):
    code, _, errors = histoloom("overlay", "slides", "--out", "a.png")
    assert code == 1
    assert errors == ["histoloom: slides: a folder, not a slide; give the file in it (for DICOM any of its .dcm files)"]


def test_a_slide_that_gives_nothing_says_why(project, histoloom):
    write_qupath(project / "annotations" / "a.geojson", [])
    write_tiled_tiff(project / "slides" / "c.tif", pixels(3)[:50, :50])
    (project / "annotations" / "c.geojson").write_text("[]")
    code, _, errors = cut(histoloom, "--val-share", "0")
    assert code == 0
    assert any("a.tif: no patch was taken: of " in line and "(--low, --high)" in line for line in errors)
    assert any("c.tif: no patch was taken: 50 x 50 px of 0.25 um are smaller than a patch" in line for line in errors)


def test_slides_that_cannot_be_reached_do_not_finish_the_dataset(project, histoloom, monkeypatch):
    from histoloom.patches import from_slides

    whole = from_slides.write_part

    def gone(job, **options):
        if job.source == "a.tif":
            (project / "slides" / "a.tif").rename(project / "a.tif")
        whole(job, **options)

    monkeypatch.setattr(from_slides, "write_part", gone)
    code, _, errors = cut(histoloom)
    assert code == 1
    assert "a.tif: 1 of 2 slides cannot be reached" in errors[0]
    assert not (project / "out").exists()
    (project / "a.tif").rename(project / "slides" / "a.tif")
    monkeypatch.setattr(from_slides, "write_part", whole)
    assert cut(histoloom)[0] == 0
    assert {row["source"] for split in splits("out") for row in iter_rows("out", split)} == {"a.tif", "b.tif"}


def test_any_error_over_one_slide_costs_this_slide_and_debug_shows_it(project, histoloom, monkeypatch):
    from histoloom.patches import from_slides

    def broken(slide):
        if slide.path.name == "a.tif":
            raise ZeroDivisionError("on purpose")
        return find(slide)

    find = from_slides.find_tissue
    monkeypatch.setattr(from_slides, "find_tissue", broken)
    code, _, errors = cut(histoloom)
    assert code == 3
    assert errors[-2].startswith("skipped: a.tif: unexpected ZeroDivisionError (on purpose)")
    code, _, errors = cut(histoloom, "--debug", out="again")
    assert any("ZeroDivisionError: on purpose" in line for line in errors)
