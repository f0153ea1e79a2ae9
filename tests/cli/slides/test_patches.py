"""What a user of `histoloom patches` types and reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from slide_project import HEIGHT, OPTIONS, RIGHT, WIDTH, cut

from histoloom.patches.store import iter_rows, splits


def test_slides_become_a_dataset_with_pictures_tables_and_a_card(project, histoloom):
    code, said, errors = cut(histoloom)
    assert (code, errors) == (0, [])
    rows = [row for split in splits("out") for row in iter_rows("out", split)]
    assert {row["source"] for row in rows} == {"a.tif", "b.tif"}
    assert sum(line.endswith("of 1 case") for line in said) == 2
    assert any("tumor" in line and "%" in line for line in said)
    assert "overlays/" in said[-1]
    for name in ("a.tif", "b.tif"):
        with Image.open(project / "out" / "overlays" / f"{name}.jpg") as picture:
            assert picture.size == (WIDTH, HEIGHT)
    assert "| tumor |" in (project / "out" / "README.md").read_text()
    assert "64 x 64 px, 0.5 um per pixel" in (project / "out" / "README.md").read_text()


def test_the_same_command_again_does_nothing_and_another_asks_for_another_folder(project, histoloom):
    cut(histoloom)
    before = {path: path.stat().st_mtime_ns for path in (project / "out").rglob("*")}
    code, said, _ = cut(histoloom)
    assert code == 0
    assert "up to date" in said[-1]
    assert {path: path.stat().st_mtime_ns for path in (project / "out").rglob("*")} == before
    code, _, errors = cut(histoloom, "--seed", "1")
    assert (code, len(errors)) == (1, 1)
    assert "out: was made by another run (config.rules.seed was 0, is now 1); name another folder" in errors[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--slides-are", "x"), "No such option"),
        (("--low", "0.9"), "low 0.9 must not exceed high 0.8"),
        (("--stride", "0"), "stride"),
        (("--list-case", "x"), "have no effect without one; give the list"),
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
        "a.geojson: 2 tiles left out (`patches` and `overlay` read them with --detections)",
        "a.geojson: 1 polygon(s) without a class left out",
    ]
    assert errors == lines_of(project) == said
    assert "2 tiles left out" in (project / "out" / "README.md").read_text()
    assert cut(histoloom)[2] == said  # a finished dataset says it again
    code, _, errors = cut(histoloom, "--detections", out="all")
    assert (code, errors) == (0, [said[1]])


def test_an_mpp_that_is_not_used_and_pixels_that_are_enlarged_are_reported(project, histoloom):
    code, _, errors = cut(histoloom, "--slide-mpp", "0.1", "--mpp", "0.2", "--size", "128")
    assert code == 0
    unused = "a.tif: --slide-mpp 0.1 is not used, since the file says 0.25 um/px"
    assert f"{unused}; `patches` and `overlay` use it with --overrule-mpp" in errors
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
