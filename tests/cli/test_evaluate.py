import json
import shutil

import pytest
import torch
from PIL import Image

from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.generation.woven_patch import AnnotatedPatch, CropUse, Provenance
from histoloom.generation.woven_writer import write_patches
from histoloom.records import Record
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])


@pytest.fixture
def folders(tmp_path, make_patches):
    """real/CASE/*.png, fake/*.png and a tiny encoder in the folder in which the command runs."""
    for name, seed in (("real", 0), ("fake", 1)):
        drawn = make_patches(24, 6, 64, 3, seed)
        for i, image in enumerate(drawn.images):
            path = tmp_path / name / (drawn.cases[i] if name == "real" else "") / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=2)).eval(), tmp_path / "encoder")
    return tmp_path


COMMON = ("--encoder", "encoder", "--pairs", 2, "--cache", "cache.sqlite", "--out", "report")


def test_two_folders_of_images_become_a_report(histoloom, folders):
    done = histoloom("evaluate", "--real", "real", "--fake", "fake", *COMMON)
    assert done.code == 0, done.stderr
    assert "True? " in done.stdout
    assert "wrote report/report.html and report/report.json" in done.stdout
    written = json.loads((folders / "report" / "report.json").read_text())
    assert written["sets"]["reference"]["cases"] == 3
    assert (folders / "report" / "report.html").stat().st_size > 50_000


def test_the_same_report_is_not_made_twice_and_another_does_not_replace_it(histoloom, folders):
    command = ("evaluate", "--real", "real", "--fake", "fake", *COMMON)
    first = histoloom(*command)
    before = {path.name: path.read_bytes() for path in (folders / "report").iterdir()}
    assert set(before) == {"record.json", "report.html", "report.json"}
    again = histoloom(*command)
    assert (again.code, again.stdout.splitlines()[-1]) == (0, "report is up to date")
    assert again.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    other = histoloom(*command, "--seed", 1)
    assert other.code == 1
    assert "report: was made by another run (seed was 0, is now 1)" in other.stderr
    Image.open(folders / "fake" / "00.png").rotate(90).save(folders / "fake" / "00.png")
    changed = histoloom(*command)
    assert "report: was made by another run (input fake was changed)" in changed.stderr
    assert {path.name: path.read_bytes() for path in (folders / "report").iterdir()} == before


def test_a_place_that_cannot_be_written_is_found_before_the_work(histoloom, folders):
    (folders / "file").touch()
    done = histoloom("evaluate", "--real", "real", "--fake", "fake", *COMMON[:-1], "file/report")
    assert done.code == 1
    assert "file/report: cannot be written" in done.stderr
    assert not (folders / "cache.sqlite").exists()
    done = histoloom("downstream", "--real", "real", "--fake", "fake", "--out", "file/found.json")
    assert done.code == 1
    assert "file/found.json: cannot be written" in done.stderr


def test_the_real_folder_as_fake_is_one_line(histoloom, folders):
    done = histoloom("evaluate", "--real", "real", "--fake", "real", *COMMON)
    assert done.code == 1
    assert done.stderr.startswith("histoloom: real: all 24 images are images of real, pixel by pixel")
    assert done.stderr.count("\n") == 1
    assert not (folders / "report").exists()


def save_woven(folder, drawn, crops):
    """Write drawn patches as woven ones; patch i names `crops[i]`."""

    def weave(first: int):
        for i in range(first, len(crops)):
            made = Provenance(i, f"layout {i}", tuple(crops[i]), "crops-as-reference", 1.0, 1.0, 5, "unipc", "abc", "0")
            yield AnnotatedPatch(drawn.images[i], drawn.semantic_maps[i], made)

    write_patches(weave, TABLE, folder, Record(command="test", format=1, settings={}))


def test_crops_of_a_bank_are_searched_for_where_its_folder_is_named(histoloom, folders, make_patches):
    (folders / "bank" / "gland").mkdir(parents=True)
    drawn = make_patches(24, 6, 64, 2, 1)
    Image.fromarray(drawn.images[3, :40, :36]).save(folders / "bank" / "gland" / "a.png")
    used, absent = CropUse("bank/gland/a.png", 1, 0, 0, 36, 40), CropUse("../real/case 0/00.png", 1, 0, 0, 24, 24)
    save_woven(folders / "woven", drawn, [[used, absent]] * 24)
    for options, found in (((), 0), (("--crops", "bank"), 12)):
        out = f"report {found}"
        done = histoloom("evaluate", "--real", "real", "--fake", "woven", *options, *COMMON[:-1], out)
        assert done.code == 0, done.stderr
        crops = json.loads((folders / out / "report.json").read_text())["crops"]
        assert (crops["named"], crops["found"]) == (24, found)  # of the 12 patches that are compared
    assert crops["woven"]["n"] == 2
    assert (folders / "report 12" / "report.html").read_text().count(", crop of bank/gland/a.png, part score") == 2


def test_a_bank_beside_images_that_were_not_woven_is_one_line(histoloom, folders):
    done = histoloom("evaluate", "--real", "real", "--fake", "fake", "--crops", "bank", *COMMON)
    assert done.code == 1
    assert done.stderr == "histoloom: fake: holds no woven patches, so none was made from bank; leave out --crops\n"


def test_an_encoder_that_does_not_exist_is_one_line(histoloom, folders):
    done = histoloom("evaluate", "--real", "real", "--fake", "fake", "--encoder", "timm:nosuch", "--out", "report")
    assert done.code == 1
    assert "encoder timm:nosuch: Unknown model" in done.stderr


def save_dataset(histoloom, folder, drawn):
    """Write drawn patches as images and maps of two types, and import them as `set`, with splits train and val."""
    for i, (image, semantic_map) in enumerate(zip(drawn.images, drawn.semantic_maps, strict=True)):
        for kind, pixels in (("images", image), ("maps", semantic_map)):
            (folder / kind / drawn.cases[i]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / drawn.cases[i] / f"{i}.png")
    (folder / "tissue.toml").write_text(TABLE.to_toml())
    made = histoloom(
        "import", "images", "--maps", "maps", "--tissue", "tissue.toml", "--val-share", 0.4, "--out", "set"
    )
    assert made.code == 0, made.stderr


def test_deeplab_is_trained_on_real_synthetic_and_both_and_the_figures_are_written(histoloom, tmp_path, make_patches):
    save_dataset(histoloom, tmp_path, make_patches(8, 4, 192, 2))
    save_woven(tmp_path / "fake", make_patches(4, 1, 192, 2, seed=1), [()] * 4)
    short = ("--steps", 1, "--batch-size", 2, "--seeds", 1, "--control", "pasted")
    done = histoloom("downstream", "--real", "set", "--fake", "fake", *short, "--out", "found/downstream.json")
    assert done.code == 0, done.stderr
    written = json.loads((tmp_path / "found" / "downstream.json").read_text())
    assert written["config"]["steps"] == 1
    names = {"real", "synthetic", "synthetic, adapted", "both", "both, adapted", "real, pasted"}
    assert set(written["results"]) == names
    for name, result in written["results"].items():
        assert 0 <= result["mean_iou"] <= 1
        assert result["low"] is result["high"] is None  # of too few cases
        assert f"{name}: mean IoU {result['mean_iou']:.3f} [no interval]" in done.stdout
    assert done.stdout.endswith("wrote found/downstream.json\n")
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"downstream.json", "downstream.json.parts"}


def test_a_damaged_shard_is_refused_before_training_and_evaluation(histoloom, fails, tmp_path, make_patches):
    save_dataset(histoloom, tmp_path, make_patches(12, 4, 96, 2))
    shard = tmp_path / "set" / "data" / "train-00000.parquet"
    shutil.copy(shard, shard.with_name("train-00001.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    (tmp_path / "r.toml").write_text('[data]\ndataset = "set"\n')
    for words in (
        ("train", "r.toml", "--out", "run"),
        ("train-encoder", "set", "--out", "mine"),
        ("downstream", "--real", "set", "--fake", "set", "--out", "found.json"),
        ("evaluate", "--real", "set", "--fake", "images", "--split", "train", "--out", "report"),
    ):
        assert "set/data/train-00000.parquet: is not a readable Parquet file" in fails(*words)


def test_an_encoder_is_trained_on_patches_of_one_type_without_a_probe(histoloom, tmp_path, make_patches):
    drawn = make_patches(12, 4, 96, 2)
    drawn.semantic_maps[:] = 0
    save_dataset(histoloom, tmp_path, drawn)
    done = histoloom("train-encoder", "set", "--steps", 1, "--out", "mine")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == "wrote mine; there is no probe without a split val and two tissue types\n"


def test_an_encoder_is_trained_probed_and_described(histoloom, tmp_path, make_patches):
    save_dataset(histoloom, tmp_path, make_patches(12, 4, 96, 2))
    done = histoloom("train-encoder", "set", "--steps", 1, "--out", "mine")
    assert done.code == 0, done.stderr
    assert "linear probe on color statistics" in done.stdout
    assert "| features |" in (tmp_path / "mine" / "README.md").read_text()
    assert (tmp_path / "mine" / "encoder.safetensors").stat().st_size < 12e6
    record = json.loads((tmp_path / "mine" / "record.json").read_text())
    assert (record["command"], record["settings"]["start"]) == ("train-encoder", "histoloom-small")
    assert set(record["inputs"]) == {"patches", "start", "test patches"}
    again = histoloom("train-encoder", "set", "--steps", 1, "--out", "mine")
    assert (again.code, again.stdout) == (0, done.stdout)
    other = histoloom("train-encoder", "set", "--steps", 1, "--seed", 1, "--out", "mine")
    assert "mine: was made by another run (loop.seed was 0, is now 1)" in other.stderr


def test_a_hidden_type_that_no_set_knows_is_one_line(histoloom, fails, tmp_path, make_patches):
    save_dataset(histoloom, tmp_path, make_patches(8, 4, 32, 2))
    words = "evaluate --real set --split train --fake set --out report --hide bone"
    assert "hide: no set has a tissue type 'bone'; known: " in fails(*words.split())
