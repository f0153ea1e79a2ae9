"""What a user of `histoloom discover` types and reads, from slides to types; every bad input is one line."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_tissue
from slide_files import write_tiled_tiff

from histoloom.discovery.embedding_run import read_embedding
from histoloom.discovery.embeddings import open_table
from histoloom.discovery.tree import TypeTree
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder

CUT = ("--mpp", "0.5", "--size", "32", "--min-focus", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two slides of tissue beside glass, one of glass alone, and an encoder."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=3)), folder / "encoder")
    (folder / "slides").mkdir()
    pixels = np.full((640, 900, 3), 245, np.uint8)
    write_tiled_tiff(folder / "slides" / "glass.tif", pixels)
    for number in range(2):
        pixels[:, :640] = draw_tissue(np.random.default_rng(number), 640, 3)[0]
        write_tiled_tiff(folder / "slides" / f"{number}.tif", pixels)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """The folder in which commands run; its slides may be removed, not changed."""
    (tmp_path / "slides").mkdir()
    for slide in (made / "slides").iterdir():
        os.link(slide, tmp_path / "slides" / slide.name)
    (tmp_path / "encoder").symlink_to(made / "encoder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def histoloom(call_here):
    """`histoloom(*arguments)`: exit code, lines of stdout, lines of stderr."""
    return call_here


def test_three_commands_lead_from_slides_to_types(project, histoloom):
    code, said, errors = histoloom("discover", "embed", "slides", "--out", "found", "--encoder", "encoder", *CUT)
    assert code == 3
    assert errors[-2].startswith(
        f"skipped: {project}/slides/glass.tif: no patch of 32 px at 0.5 um/px holds 50% tissue"
    )
    assert errors[-1] == "1 of 3 slides were skipped"
    count = open_table("found").rows
    assert said == [f"wrote found: {count} patches in 2 parts; next: histoloom discover choose found"]
    code, said, _ = histoloom("discover", "choose", "found", "--per-slide", "60")
    assert (code, said) == (0, [f"chose 120 of {count} patches; next: histoloom discover cluster found"])
    code, said, errors = histoloom("discover", "cluster", "found", "--levels", "3,6,100")
    assert code == 0
    assert said[0].startswith("wrote found: types at levels 3, 6; the finest have ")
    assert errors[-1] == "120 different patches are too few for levels 100; embed more slides for them"
    assert TypeTree.load("found").levels == (3, 6)


def test_the_chosen_patches_can_be_embedded_by_another_encoder(project, histoloom):
    (project / "slides" / "glass.tif").unlink()
    histoloom("discover", "embed", "slides", "--out", "found", "--encoder", "encoder", *CUT)
    histoloom("discover", "choose", "found", "--per-slide", "7")
    again = ("discover", "embed", "slides", "--out", "fine", "--encoder", "encoder", "--of-chosen", "found")
    code, said, _ = histoloom(*again, *CUT)
    assert (code, said[0].split(";")[0]) == (0, "wrote fine: 14 patches in 2 parts")
    _, _, errors = histoloom(*again[:4], "wide", *again[5:], "--mpp", "0.5", "--size", "64")
    assert "span 64 level-0 pixels, not 128; give the --mpp and --size of the chosen patches" in errors[-1]


def test_an_encoder_in_a_folder_is_found_again_from_any_other(project, histoloom, monkeypatch):
    (project / "slides" / "glass.tif").unlink()
    histoloom("discover", "embed", "slides", "--out", "found", "--encoder", "encoder", *CUT)
    assert read_embedding("found")[1].encoder == str(project / "encoder")
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    for step in (("choose",), ("cluster", "--levels", "2,3")):
        assert histoloom("discover", step[0], "../found", *step[1:])[0] == 0
    code, _, errors = histoloom("discover", "maps", "../slides", "--by", "../found", "--out", "maps", "--stride", "32")
    assert code == 0, errors
    assert (project / "elsewhere" / "maps" / "3" / "maps" / "0.tif").is_file()


def test_a_plan_is_a_table(project, histoloom):
    code, said, _ = histoloom("discover", "plan", "--slides", "11765", "--patches", "634000000", "--encoder", "uni")
    assert code == 0
    assert said[0] == "634,000,000 patches of 11,765 slides; 11,765,000 of them chosen for clustering"
    assert said[-1].startswith("| uni | 812 |")
    code, said, errors = histoloom("discover", "plan", "slides", "--size", "32", "--mpp", "0.5", "--per-slide", "50")
    assert said[0].endswith(" patches of 2 slides; 100 of them chosen for clustering")
    assert errors[-1].startswith(f"skipped: {project}/slides/glass.tif: no patch")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("embed", "nowhere", "--out", "found"), "/nowhere: no such folder; give a slide or a folder of slides"),
        (("choose", "slides"), "slides: has no embeddings; make them with `histoloom discover embed`"),
        (("cluster", "slides"), "slides: has no chosen.parquet; make it with `histoloom discover choose`"),
        (("cluster", "slides", "--levels", "5,many"), "levels '5,many': write numbers of types, such as 5,10,20"),
        (("plan",), "give a folder of slides to count, or both --slides and --patches"),
        (("plan", "slides", "--measure"), "--measure needs exactly one --encoder, and no --rate"),
        (
            ("embed", "slides", "--out", "found", "--encoder", "encoder", "--ray", "127.0.0.1:1"),
            "--ray 127.0.0.1:1: no Ray cluster answers",
        ),
        (("embed", "slides", "--out", "found", "--workers", "0"), "0 workers; give at least 1"),
        (("embed", "slides", "--out", "found", "--mpp", "nan"), "mpp nan"),
        (("embed", "slides", "--out", "found", "--mpp", "1e-9"), "give micrometers in [0.001, 1000]"),
        (("embed", "slides", "--out", "found", "--size", str(10**18)), "need size >= 8, and at most 16384"),
        (("embed", "slides", "--out", "found", "--batch-size", str(10**18)), "must be in [1, 65536]"),
        (("embed", "slides", "--out", "found", "--slide-mpp", "-1"), "slide_mpp -1.0: give micrometers"),
        (("choose", "slides", "--per-slide", str(10**18)), "must be at least 1 and below 2^31"),
        (("cluster", "slides", "--seed", "-1"), "seed -1 must be at least 0"),
        (("cluster", "slides", "--starts", str(10**18)), "must be in [1, 1000]"),
        (("cluster", "slides", "--levels", f"5,{10**18}"), "must be numbers of types from 2 to 4096"),
        (("plan", "--slides", "1", "--patches", "1", "--tflops", "nan"), "tflops is nan; give a finite number"),
        (("classify", "slides", "--out", "new", "--depth", str(10**6)), "at most 2048"),
        (("classify", "slides", "--out", "new", "--val-share", "nan"), "val_share is nan; give a finite number"),
        (("maps", "slides", "--by", "slides", "--out", "new", "--smooth", "nan"), "smooth is nan; give a finite"),
        (("look", "slides", "--out", "new", "--windows", str(10**18)), "must be in [1, 1000]"),
        (("look", "slides", "--out", "new", "--seed", "-1"), "seed -1 in [0, 2^53)"),
    ],
)
def test_bad_input_is_one_line(project, histoloom, words, line):
    code, said, errors = histoloom("discover", *words)
    assert (code, said, len(errors)) == (1, [], 1)
    assert line in errors[0]
    assert not (project / "found").exists()  # nothing is left of a run that could not begin
