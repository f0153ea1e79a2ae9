"""`histoloom study` as a user meets it: from folders of images to a study, and one line for what is wrong."""

import json

import pytest


@pytest.fixture
def folders(image_folder):
    """Folders `real` and `fake` of nine pictures each."""
    from PIL import Image, ImageOps

    for path in (image_folder / "images").rglob("*.png"):
        for name, picture in (("real", Image.open(path)), ("fake", ImageOps.mirror(Image.open(path)))):
            place = image_folder / name / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            picture.save(place)
    return image_folder


CREATE = ("study", "create", "--real", "real", "--fake", "fake", "--n", 8, "--readers", 2, "--practice", 2, "--out")


def test_a_study_is_made_once_and_its_size_estimated(histoloom, folders):
    done = histoloom(*CREATE, "study")
    assert done.code == 0, done.stderr
    assert "1 control, 4 real, 4 synthetic" in done.stdout
    assert "start it with: histoloom study serve study" in done.stdout
    assert len(json.loads((folders / "study" / "study.json").read_text())["orders"]["reader-1"]) == 12
    assert histoloom(*CREATE, "study").stdout == "study is up to date\n"
    done = histoloom("study", "size", "--margin", 0.8, "--power", 0.5, "--studies", 20)
    assert "fewest answers: 3 readers with --n 40" in done.stdout


def test_what_is_wrong_is_said_in_one_line(fails, folders):
    assert "the study needs 20 synthetic images" in fails(*CREATE[:7], 40, "--practice", 0, "--out", "study")
    assert "n must be even" in fails(*CREATE[:7], 9, "--out", "study")
    assert "no such folder" in fails("study", "create", "--real", "absent", "--fake", "fake", "--out", "study")
    assert "this is the real folder" in fails("study", "create", "--real", "real", "--fake", "real", "--out", "study")
    assert "not a reader study (no study.json)" in fails("study", "serve", "real")
    assert "not a reader study (no study.json)" in fails("study", "report", "real")
    assert "can tell by a margin of 0.6" in fails("study", "size", "--auc", 0.7)
