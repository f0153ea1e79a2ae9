import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import files
from PIL import Image

QUICK = ("--steps", 2)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


MISTAKES = {
    "a map with an id that the model does not know": (
        lambda maps, crops: write(maps / "1.png", np.full((64, 64), 9, np.uint8)), "1.png: map value 9 belongs to no"),
    "a truncated map": (
        lambda maps, crops: (maps / "1.png").write_bytes((maps / "1.png").read_bytes()[:70]), "1.png: cannot read the"),
    "no maps": (lambda maps, crops: [p.unlink() for p in maps.iterdir()], "wanted: holds no maps"),
    "no folder of maps": (lambda maps, crops: shutil.rmtree(maps), "wanted: holds no maps"),
    "a crop below 24 px": (
        lambda maps, crops: write(crops / "gland" / "b.png", np.zeros((40, 23, 3), np.uint8)),
        "crops/gland/b.png: is 23 x 40 px; crops need 24 px or more each way"),
    "a crop that is no picture": (
        lambda maps, crops: (crops / "gland" / "a.png").write_bytes(b"x"), "gland/a.png: cannot read the picture"),
    "a truncated crop": (
        lambda maps, crops: (crops / "gland" / "a.png").write_bytes((crops / "gland" / "a.png").read_bytes()[:900]),
        "gland/a.png: cannot read the picture"),
    "crops of a tissue that no type is": (
        lambda maps, crops: (crops / "gland").rename(crops / "bone"), "bone: is not named after a tissue type"),
    "crops without tissues": (
        lambda maps, crops: [(crops / n).rename(crops / f"{n}-1") for n in ("stroma", "gland", "tumour")],
        "gland-1: is not named after a tissue type; known: stroma, gland, tumour"),
    "crops of tissues that no map shows": (
        lambda maps, crops: [shutil.rmtree(crops / n) for n in ("stroma", "gland")] + [(maps / "1.png").unlink()] +
        [(maps / "2.png").unlink()], "crops: none of its crops is of a tissue on the maps"),
    "a folder of crops that is empty": (
        lambda maps, crops: [shutil.rmtree(d) for d in crops.iterdir()], "crops: holds no folder that is named after"),
    "no folder of crops": (lambda maps, crops: shutil.rmtree(crops), "crops: no such folder of crops"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_maps_and_crops_that_cannot_be_used(fails, tiny_model, maps, crop_folder, mistake):
    make, said = MISTAKES[mistake]
    make(maps, crop_folder)
    assert said in fails("generate", tiny_model, "--maps", maps, "--crops", crop_folder, "--out", "woven", *QUICK)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--steps", 0), "steps is 0; give a whole number from 1 to 1000"),
        (("--batch-size", 0), "batch_size is 0; give a whole number from 1"),
        (("--seed", -1), "seed is -1; give a whole number, 0 or more"),
        (("--seed", 2**63 - 4), "seed is 9223372036854775804, which is too large"),
        (("--seed", 10**400), "seed is 1000"),
        (("--tries", 0), "tries is 0; give a whole number from 1"),
        (("--copy-limit", 0), "copy_limit is 0.0; give a number above 0"),
        (("--copy-limit", "nan"), "copy_limit is nan; give a finite number"),
        (("--sampler", "ddim"), "'ddim' does not fit a model of kind 'flow'; known: unipc"),
        (("--layouts", 0), "layouts is 0; give a whole number from 1"),
        (("--size", 20), "20"),
        (("--size", 10**9), "size is 1000000000; give a whole number from 1 to 4096"),
        (("--mpp", 0), "mpp is 0.0; give 0.01 to 100 micrometers per pixel"),
        (("--map-guidance", "nan"), "map_guidance is nan; give a finite number"),
        (("--crop-guidance", "inf"), "crop_guidance is inf; give a finite number"),
        (("--guidance-interval", "nan", 1), "guidance_interval is nan; give a finite number"),
        (("--maps", "wanted", "--size", 64), "--size has no effect with --maps"),
        (("--maps", "wanted", "--layouts", 2), "--layouts has no effect with --maps"),
        (("--maps", "wanted", "--style", "gland=field"), "--style has no effect with --maps"),
        (("--style", "gland"), "--style 'gland' names no style; write it as TYPE=STYLE"),
        (("--style", "gland=zigzag"), "tissue 'gland' has style 'zigzag'; known: crypts, glands"),
        (("--style", "bone=field"), "unknown tissue 'bone'; known: stroma, gland, tumour"),
        (("--background", "bone"), "unknown tissue 'bone'"),
        (("--two-types", 2), "two_types is 2.0; give a share from 0 to 1"),
        (("--split", "val"), "split 'val' has no effect without --maps"),
    ],
)
def test_options_without_sense(fails, tiny_model, options, said):
    assert said in fails("generate", tiny_model, "--out", "woven", *QUICK, *options)


@pytest.mark.parametrize(
    ("options", "said"), [(("--tries", 0), "tries"), (("--keep", 0), "keep"), (("--seed", -1), "seed")]
)
def test_a_bank_of_nothing(fails, tiny_model, options, said):
    assert said in fails("bank", tiny_model, "--out", "bank", "--tries", 2, *options)


def test_what_is_no_model(fails, tmp_path):
    for command in ("generate", "bank"):
        assert "absent: is not a folder; give the folder of a model" in fails(command, "absent", "--out", "woven")
        said = fails(command, "someone/absent", "--out", "woven")
        assert "someone/absent: is not a folder here, and the hub is not reachable: offline" in said


def test_weights_that_are_a_pickle(fails, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model" / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({"a": torch.ones(2)}, weights.with_suffix(".bin"))
    assert "a pickle is never opened" in fails("generate", "model", "--out", "woven")
    torch.save({"a": torch.ones(2)}, weights)
    assert f"{weights.name}: is truncated, damaged, or not a safetensors file" in fails(
        "generate", "model", "--out", "woven"
    )


def test_a_folder_that_holds_something_else(fails, tiny_model, tmp_path):
    (tmp_path / "woven").mkdir()
    (tmp_path / "woven" / "thesis.txt").write_text("mine")
    said = fails("generate", tiny_model, "--layouts", 1, "--size", 64, "--out", "woven", *QUICK)
    assert "woven: exists already; name another folder, or move it away" in said


@pytest.mark.parametrize("largest_file", [300, 2_000])
def test_a_full_disk_while_weaving(fails, histoloom, tiny_model, maps, tmp_path, largest_file):
    command = ("generate", tiny_model, "--maps", maps, "--out", "woven", *QUICK)
    said = fails(*command, largest_file=largest_file, may_leave="woven.partial")
    assert "cannot be written" in said
    assert "free some space" in said
    assert not list(tmp_path.rglob("*.png*.partial"))
    assert histoloom(*command).code == 0


def test_inputs_that_changed_are_refused_by_name_and_nothing_is_lost(
    histoloom, fails, tiny_model, maps, crop_folder, tmp_path
):
    command = ("generate", tiny_model, "--maps", maps, "--crops", crop_folder, "--out", "woven", *QUICK)
    assert histoloom(*command).code == 0
    before = files(tmp_path / "woven")
    changed = np.asarray(Image.open(maps / "1.png")).copy()
    changed[:8] = 0
    original = (maps / "1.png").read_bytes()
    write(maps / "1.png", changed)
    assert "woven: was made from other files (maps/1.png was changed); name another folder" in fails(*command)
    (maps / "1.png").write_bytes(original)
    write(crop_folder / "gland" / "b.png", np.asarray(Image.open(crop_folder / "gland" / "a.png"))[::-1])
    assert "(crops/crops/gland/b.png was added)" in fails(*command)
    (crop_folder / "gland" / "b.png").unlink()
    (tmp_path / "woven" / "sources.local.json").unlink()  # a folder that was made fit for sharing
    write(maps / "1.png", changed)
    assert "woven: was made by another run (input maps was changed)" in fails(*command)
    (maps / "1.png").write_bytes(original)
    assert histoloom(*command).code == 0
    assert files(tmp_path / "woven") == {name: data for name, data in before.items() if name != "sources.local.json"}


def test_a_run_cut_short_is_not_finished_with_other_maps(histoloom, fails, tiny_model, maps, tmp_path):
    command = ("generate", tiny_model, "--maps", maps, "--out", "woven", *QUICK)
    assert histoloom(*command).code == 0
    (tmp_path / "woven").rename(tmp_path / "woven.partial")
    for name in ("index.parquet", "images/00002.png"):
        (tmp_path / "woven.partial" / name).unlink()
    write(maps / "0.png", np.zeros((64, 64), np.uint8))
    assert "woven.partial: was made from other files (maps/0.png was changed)" in fails(*command)


def test_crops_for_a_model_that_reads_none_are_refused(fails, make_pipeline, crop_folder, tmp_path):
    make_pipeline("map").save_pretrained(str(tmp_path / "model"))
    said = fails("generate", "model", "--crops", crop_folder, "--layouts", 1, "--out", "woven", *QUICK)
    assert "model: is a model that reads no crops; leave out --crops" in said
