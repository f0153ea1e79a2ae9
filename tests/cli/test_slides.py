"""What a user of `histoloom patches` and `histoloom overlay` types and reads; every bad input is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_files import write_aperio, write_asap, write_image, write_qupath, write_tiled_tiff

from histoloom.cli.main import run
from histoloom.patches.store import iter_rows, splits
from histoloom.tissue import TissueTable

STROMA_AND_TUMOR = TissueTable.from_names(["stroma", "tumor"]).to_toml()
OPTIONS = (
    "--annotations", "annotations", "--tissue", "tissue.toml", "--rest", "stroma",
    "--mpp", "0.5", "--size", "64", "--stride", "32", "--min-focus", "0",
)  # fmt: skip
WIDTH, HEIGHT = 520, 392


def pixels(seed: int) -> np.ndarray:
    """Pink on the left, purple on the right, with grain."""
    dark = (np.arange(WIDTH) > WIDTH / 2)[None, :, None]
    grain = np.random.default_rng(seed).normal(0, 9, (HEIGHT, WIDTH, 1))
    return np.clip(np.where(dark, (110, 60, 140), (220, 150, 190)) + grain, 0, 255).astype(np.uint8)


RIGHT = [(WIDTH / 2, 0), (WIDTH, 0), (WIDTH, HEIGHT), (WIDTH / 2, HEIGHT)]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Two good slides, a and b, with the right half annotated; the commands run in this folder."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "tissue.toml").write_text(STROMA_AND_TUMOR)
    write_tiled_tiff(tmp_path / "slides" / "a.tif", pixels(0))
    write_qupath(tmp_path / "annotations" / "a.geojson", [("tumor", [RIGHT])])
    write_tiled_tiff(tmp_path / "slides" / "b.tif", pixels(1))
    write_asap(tmp_path / "annotations" / "b.xml", [("tumor", RIGHT)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def histoloom(monkeypatch, capfd):
    """`histoloom(*arguments)`: exit code, lines of stdout, lines of stderr."""

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["histoloom", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        told = capfd.readouterr()
        return ended.value.code or 0, told.out.splitlines(), told.err.splitlines()

    return call


def cut(histoloom, *options: str, out: str = "out"):
    return histoloom("patches", "slides", *OPTIONS, "--out", out, *options)


def test_slides_become_a_dataset_with_pictures_tables_and_a_card(project, histoloom):
    code, told, errors = cut(histoloom)
    assert (code, errors) == (0, [])
    rows = [row for split in splits("out") for row in iter_rows("out", split)]
    assert {row["source"] for row in rows} == {"a.tif", "b.tif"}
    assert sum(line.endswith("of 1 cases") for line in told) == 2
    assert any("tumor" in line and "%" in line for line in told)
    assert "overlays/" in told[-1]
    for name in ("a.tif", "b.tif"):
        with Image.open(project / "out" / "overlays" / f"{name}.jpg") as picture:
            assert picture.size == (WIDTH, HEIGHT)
    assert "| tumor |" in (project / "out" / "README.md").read_text()
    assert "64 x 64 px, 0.5 um per pixel" in (project / "out" / "README.md").read_text()


def test_the_same_command_again_does_nothing_and_another_asks_for_another_folder(project, histoloom):
    cut(histoloom)
    before = {path: path.stat().st_mtime_ns for path in (project / "out").rglob("*")}
    code, told, _ = cut(histoloom)
    assert code == 0
    assert "up to date" in told[-1]
    assert {path: path.stat().st_mtime_ns for path in (project / "out").rglob("*")} == before
    code, _, errors = cut(histoloom, "--seed", "1")
    assert (code, len(errors)) == (1, 1)
    assert "out: was made by another run (config.rules.seed was 0, is now 1); name another folder" in errors[0]


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--slides-are", "x"), "No such option"),
        (("--low", "0.9"), "low 0.9 must not exceed high 0.8"),
        (("--size", "100000"), "are smaller than a patch of 100000 px at 0.5 um/px; lower --size"),
        (("--annotations", "nowhere"), "nowhere: no such folder; give the folder of the annotations"),
        (("--tissue", "slides"), "slides: cannot read the tissue table"),
        (("--workers", "0"), "0 workers; give at least 1"),
        (("--order", "bone"), "unknown tissue 'bone'; known: stroma, tumor"),
        (("--case-pattern", "^(c)"), "finds no case in 'a.tif'"),
    ],
)
def test_a_mistake_is_one_line_with_a_cure(project, histoloom, options, said):
    code, _, errors = cut(histoloom, *options)
    assert code in (1, 2)
    assert said in " ".join(errors)
    assert code == 2 or len(errors) == 1
    assert not (project / "out").exists()


def test_a_folder_that_is_named_as_a_slide_is_no_slide(project, histoloom):
    code, _, errors = histoloom("overlay", "slides", "--out", "a.png")
    assert code == 1
    assert errors == ["histoloom: slides: a folder, not a slide; give the file in it (for DICOM any of its .dcm files)"]


def test_an_overlay_shows_what_a_dataset_took(project, histoloom):
    cut(histoloom)
    taken = sum(row["source"] == "a.tif" for split in splits("out") for row in iter_rows("out", split))
    code, told, errors = histoloom("overlay", "slides/a.tif", "--dataset", "out", "--out", "a.png", "--edge", "300")
    assert (code, told, errors) == (0, [f"wrote a.png: {taken} patches"], [])
    picture = np.asarray(Image.open(project / "a.png")).astype(int)
    assert max(picture.shape[:2]) == 300
    assert (picture.max(-1) < 60).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--annotation", "annotations/a.geojson"), "give --tissue"),
        (("--dataset", "slides"), "not made by `histoloom patches`"),
        (("--out", "tissue.toml/a.png"), "tissue.toml/a.png: cannot be written"),
        (("--out", "a.gif"), "a.gif: cannot be written; give a name that ends in .png or .jpg"),
    ],
)
def test_a_mistake_in_an_overlay_is_one_line(project, histoloom, options, said):
    code, _, errors = histoloom("overlay", "slides/a.tif", "--out", "a.png", *options)
    assert code == 1
    assert len(errors) == 1
    assert said in errors[0]


WITHOUT_OPENSLIDE = """
import sys
sys.modules["openslide"] = None
from histoloom.cli.main import run
run()
"""


def test_a_missing_slide_library_is_named_with_its_extra(project):
    command = [sys.executable, "-c", WITHOUT_OPENSLIDE, "patches", "slides", *OPTIONS, "--out", "out"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "histoloom: openslide is not installed; run: pip install 'histoloom[slides]'\n"


def lines_of(project: Path) -> list[str]:
    """The notes that a dataset keeps."""
    return json.loads((project / "out" / "dataset.json").read_text())["notes"]


def test_what_an_annotation_leaves_out_is_printed_and_kept(project, histoloom):
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*map(list, RIGHT), list(RIGHT[0])]]},
            "properties": {"objectType": kind} | ({"classification": {"name": name}} if name else {}),
        }
        for kind, name in (("annotation", "tumor"), ("annotation", None), ("tile", "tumor"), ("tile", "tumor"))
    ]
    (project / "annotations" / "a.geojson").write_text(json.dumps(features))
    code, _, errors = cut(histoloom)
    assert code == 0
    said = [
        "a.geojson: 2 tiles left out (--detections reads detections, cells and tiles)",
        "a.geojson: 1 polygon(s) without a class left out",
    ]
    assert errors == lines_of(project) == said
    assert "2 tiles left out" in (project / "out" / "README.md").read_text()
    assert cut(histoloom)[2] == said  # a finished dataset says it again
    code, _, errors = cut(histoloom, "--detections", out="all")
    assert (code, errors) == (0, [said[1]])


def test_a_slide_that_gives_nothing_says_why(project, histoloom):
    write_qupath(project / "annotations" / "a.geojson", [])
    write_tiled_tiff(project / "slides" / "c.tif", pixels(3)[:50, :50])
    (project / "annotations" / "c.geojson").write_text("[]")
    code, _, errors = cut(histoloom, "--val-share", "0")
    assert code == 0
    assert any("a.tif: no patch was taken: of " in line and "(--low, --high)" in line for line in errors)
    assert any("c.tif: no patch was taken: 50 x 50 px of 0.25 um are smaller than a patch" in line for line in errors)


def test_an_mpp_that_is_not_used_and_pixels_that_are_enlarged_are_reported(project, histoloom):
    code, _, errors = cut(histoloom, "--slide-mpp", "0.1", "--mpp", "0.2", "--size", "128")
    assert code == 0
    assert "a.tif: --slide-mpp 0.1 is not used, since the file says 0.25 um/px; --overrule-mpp uses it anyway" in errors
    assert "a.tif: 0.2 um/px is finer than the slide's 0.25; its pixels are enlarged 1.25-fold" in errors
    options = ("--slide-mpp", "0.1", "--overrule-mpp")
    code, _, errors = cut(histoloom, *options, "--size", "32", out="over")
    assert (code, errors) == (0, [])
    assert {row["size"] for split in splits("over") for row in iter_rows("over", split)} == {160}


def test_a_list_may_say_the_mpp_of_each_slide(project, histoloom):
    (project / "list.csv").write_text("image_id,patient,um\na,p1,0.5\nb,P1 ,\n")
    options = ("--list", "list.csv", "--list-mpp", "um", "--list-case", "patient", "--val-share", "0")
    code, _, errors = cut(histoloom, *options)
    assert (code, errors) == (0, ["cases 'p1', 'P1' are taken for one patient"])
    rows = list(iter_rows("out", "train"))
    assert {(row["source"], row["size"], row["case"]) for row in rows} == {("a.tif", 64, "p1"), ("b.tif", 128, "p1")}
    (project / "list.csv").write_text("image_id,patient\na,p1\na.tif,p2\n")
    code, _, errors = cut(histoloom, "--list", "list.csv", "--list-case", "patient", out="two")
    assert code == 1
    assert "list.csv line 3: slide a.tif is listed before with another case" in errors[0]


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


@pytest.mark.parametrize("name", [b"Pr\xe4parat", "Präparat".encode(), b"n" * 251])
def test_names_of_any_bytes_and_length_are_taken(project, histoloom, name):
    (project / "slides" / "a.tif").rename(Path(os.fsdecode(bytes(project / "slides") + b"/" + name + b".tif")))
    code, _, errors = histoloom(
        "patches", "slides", "--tissue", "tissue.toml", "--rest", "stroma", "--unannotated", "--high", "1",
        "--size", "64", "--val-share", "0", "--out", "out",
    )  # fmt: skip
    assert (code, errors) == (0, ["no patch holds 'tumor'"])
    shown = name.decode("utf-8", "backslashreplace") + ".tif"
    assert {row["source"] for row in iter_rows("out", "train")} == {shown, "b.tif"}
    assert len(list((project / "out" / "overlays").iterdir())) == 2


def test_annotations_are_found_in_every_spelling_of_the_name(project, histoloom):
    (project / "annotations" / "a.geojson").rename(project / "annotations" / "A.TIF.GEOJSON")
    (project / "annotations" / "b.xml").rename(project / "annotations" / "b-drawn.txt")
    code, _, errors = cut(histoloom, "--annotation-suffix", "-drawn.txt", "--val-share", "0")
    without = "1 of 2 slides have no annotation of their name in annotations"
    assert (code, errors) == (0, [f"{without}: a.tif"])
    assert cut(histoloom, "--val-share", "0", out="other")[2] == [f"{without}: b.tif"]


def test_a_second_run_does_not_take_the_first_for_slides(project, histoloom):
    assert cut(histoloom, out="slides/out")[0] == 0
    histoloom("overlay", "slides/a.tif", "--out", "slides/look.jpg")
    code, said, _ = cut(histoloom, out="slides/out")
    assert (code, "is up to date" in said[-1]) == (0, True)


def test_two_at_once_are_refused_by_one_line(project, histoloom):
    from histoloom.locks import locked

    with locked(project / "out"):
        script = "from histoloom.cli.main import run; run()"
        command = [sys.executable, "-c", script, "patches", "slides", *OPTIONS, "--out", "out"]
        ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "out: is being written by process" in ended.stderr
    assert ended.stderr.count("\n") == 1
