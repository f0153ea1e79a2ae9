import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist

from histoloom.generation.bank import farthest_first, load_bank
from histoloom.generation.export import read_woven
from histoloom.generation.orders import Source, place_orders
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.tissue import TissueTable
from histoloom.weights import find_model

QUICK = ("--steps", 2)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_maps_and_crops_become_annotated_patches(histoloom, tiny_model, maps, crop_folder, tmp_path):
    ended = histoloom("generate", tiny_model, "--maps", maps, "--crops", crop_folder, "--out", "woven", *QUICK)
    assert (ended.code, ended.stderr) == (0, "")
    assert "wrote 3 patches to woven; look at woven/contact-sheet.png" in ended.stdout
    woven = read_woven(tmp_path / "woven")
    for number in range(3):
        np.testing.assert_array_equal(woven.semantic_maps[number], np.asarray(Image.open(maps / f"{number}.png")))
    assert [row["seed"] for row in woven.rows] == [0, 1, 2]
    assert [row["map_source"] for row in woven.rows] == ["0.png", "1.png", "2.png"]
    assert {row["model_hash"] for row in woven.rows} == {HistoloomPipeline.load(tiny_model).fingerprint}
    for row in woven.rows:
        assert {crop["tissue_id"] for crop in row["crops"]} == set(np.unique(woven.semantic_maps[row["seed"]]))
        assert (row["steps"], row["map_guidance"], row["crop_guidance"]) == (2, 1.5, 3.0)
        assert row["guidance_interval"] == [0.4, 0.9]
    assert TissueTable.load(tmp_path / "woven" / "tissue.toml").names == ["stroma", "gland", "tumour"]
    assert Image.open(tmp_path / "woven" / "contact-sheet.png").size[0] > 100


def test_every_option_is_in_the_record(histoloom, tiny_model, tmp_path):
    guidance = ("--map-guidance", 2, "--crop-guidance", 0.5, "--guidance-interval", 0, 1)
    options = (*guidance, "--sampler", "euler", "--seed", 40, "--batch-size", 1)
    ended = histoloom("generate", tiny_model, "--layouts", 2, "--size", 64, "--out", "woven", *QUICK, *options)
    assert ended.code == 0, ended.stderr
    rows = pq.read_table(tmp_path / "woven" / "index.parquet").to_pylist()
    assert [row["seed"] for row in rows] == [40, 41]
    assert {row["scheduler"] for row in rows} == {"FlowMatchEulerDiscreteScheduler"}
    assert {(row["map_guidance"], row["crop_guidance"]) for row in rows} == {(2.0, 0.5)}
    assert [row["guidance_interval"] for row in rows] == [[0.0, 1.0]] * len(rows)
    assert all(row["crops"] == [] for row in rows)  # the tiny model has no bank


def test_the_same_command_again_changes_nothing_and_another_asks_for_another_folder(
    histoloom, fails, tiny_model, maps, tmp_path
):
    command = ("generate", tiny_model, "--maps", maps, "--out", "woven", *QUICK)
    assert histoloom(*command).code == 0
    before = files(tmp_path / "woven")
    assert histoloom(*command).code == 0
    assert files(tmp_path / "woven") == before
    assert "woven: was woven under another record (differs in config, seed)" in fails(*command, "--seed", 1)


@pytest.mark.parametrize(("batch_size", "kept"), [(1, 2), (2, 1)])
def test_a_run_cut_short_goes_on_to_the_same_bytes(histoloom, tiny_model, maps, tmp_path, batch_size, kept):
    command = ("generate", tiny_model, "--maps", maps, "--batch-size", batch_size, *QUICK)
    assert histoloom(*command, "--out", "whole").code == 0
    assert histoloom(*command, "--out", "cut").code == 0
    # As a kill leaves it, perhaps between the patches of a batch: no index, no sheet, not all images.
    aside = tmp_path / "cut.partial"
    (tmp_path / "cut").rename(aside)
    for name in ("index.parquet", "contact-sheet.png", *(f"images/{i:05d}.png" for i in range(kept, 3))):
        (aside / name).unlink()
    assert histoloom(*command, "--out", "cut").code == 0
    assert not aside.exists()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_bank_is_woven_from_the_map_alone_and_read_by_generate(histoloom, tiny_model, tmp_path):
    made = histoloom("bank", tiny_model, "--tries", 3, "--keep", 2, "--out", "bank")
    assert (made.code, made.stderr) == (0, "")
    bank = load_bank(tmp_path / "bank", TissueTable.from_names(["stroma", "gland", "tumour"]))
    assert 1 <= len(bank.sets) <= 2
    assert all(min(crop.pixels.shape[:2]) >= 24 for crops in bank.sets.values() for crop in crops)
    woven = histoloom("generate", tiny_model, "--layouts", 1, "--size", 64, "--crops", "bank", "--out", "woven", *QUICK)
    assert woven.code == 0, woven.stderr


def test_a_model_brings_its_own_bank(histoloom, tiny_model, crop_folder, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(crop_folder, tmp_path / "model" / "crops")
    assert histoloom("generate", "model", "--layouts", 2, "--size", 64, "--out", "woven", *QUICK).code == 0
    rows = pq.read_table(tmp_path / "woven" / "index.parquet").to_pylist()
    assert all(row["crops"] for row in rows)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


MISTAKES = {
    "a map with an id that the model does not know": (
        lambda maps, crops: write(maps / "1.png", np.full((64, 64), 9, np.uint8)), "1.png: map value 9 belongs to no"),
    "a map of another size": (
        lambda maps, crops: write(maps / "1.png", np.zeros((32, 64), np.uint8)), "1.png: differs in size from 0.png"),
    "a truncated map": (
        lambda maps, crops: (maps / "1.png").write_bytes((maps / "1.png").read_bytes()[:70]), "1.png: cannot read the"),
    "no maps": (lambda maps, crops: [p.unlink() for p in maps.iterdir()], "wanted: holds no maps"),
    "no folder of maps": (lambda maps, crops: shutil.rmtree(maps), "wanted: holds no maps"),
    "a crop below 24 px": (
        lambda maps, crops: write(crops / "gland" / "b.png", np.zeros((40, 23, 3), np.uint8)),
        "crops/gland/b.png: is 23 x 40 px; crops need 24 px or more each way"),
    "a crop that is no picture": (
        lambda maps, crops: (crops / "gland" / "a.png").write_bytes(b"x"), "gland/a.png: cannot be read as a picture"),
    "a truncated crop": (
        lambda maps, crops: (crops / "gland" / "a.png").write_bytes((crops / "gland" / "a.png").read_bytes()[:900]),
        "gland/a.png: cannot be read as a picture"),
    "crops of a tissue that no type is": (
        lambda maps, crops: (crops / "gland").rename(crops / "bone"), "bone: is named after no tissue type"),
    "crops without tissues": (
        lambda maps, crops: [(crops / n).rename(crops / f"{n}-1") for n in ("stroma", "gland", "tumour")],
        "gland-1: is named after no tissue type; known: stroma, gland, tumour"),
    "crops of tissues that no map shows": (
        lambda maps, crops: [shutil.rmtree(crops / n) for n in ("stroma", "gland")] + [(maps / "1.png").unlink()] +
        [(maps / "2.png").unlink()], "crops: none of its crops is of a tissue on the maps"),
    "a folder of crops that is empty": (
        lambda maps, crops: [shutil.rmtree(d) for d in crops.iterdir()], "crops: holds no folder named after a tissue"),
    "no folder of crops": (lambda maps, crops: shutil.rmtree(crops), "crops: no such folder of crops"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_maps_and_crops_that_cannot_be_used(fails, tiny_model, maps, crop_folder, mistake):
    make, told = MISTAKES[mistake]
    make(maps, crop_folder)
    assert told in fails("generate", tiny_model, "--maps", maps, "--crops", crop_folder, "--out", "woven", *QUICK)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--steps", 0), "steps must be 1 or more"),
        (("--batch-size", 0), "batch_size, tries and steps must be 1 or more"),
        (("--seed", -1), "seed -1 must be 0 or more and less than 2^62"),
        (("--seed", 2**63 - 4), "less than 2^62"),
        (("--tries", 0), "batch_size, tries and steps must be 1 or more"),
        (("--copy-limit", 0), "copy_limit 0.0 must lie above 0"),
        (("--copy-limit", "nan"), "copy_limit nan must lie above 0"),
        (("--sampler", "ddim"), "'ddim' does not fit objective 'flow'; known: unipc"),
        (("--layouts", 0), "the number of layouts to draw (1 or more)"),
        (("--size", 20), "20"),
    ],
)
def test_options_without_sense(fails, tiny_model, options, told):
    assert told in fails("generate", tiny_model, "--out", "woven", *QUICK, *options)


@pytest.mark.parametrize(
    ("options", "told"), [(("--tries", 0), "tries"), (("--keep", 0), "keep"), (("--seed", -1), "seed")]
)
def test_a_bank_of_nothing(fails, tiny_model, options, told):
    assert told in fails("bank", tiny_model, "--out", "bank", "--tries", 2, *options)


def test_what_is_no_model(fails, tmp_path):
    for command in ("generate", "bank"):
        for name in ("absent", "someone/absent"):
            assert f"{name}: not a Histoloom model" in fails(command, name, "--out", "woven")


def test_weights_that_are_a_pickle(fails, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model" / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({"a": torch.ones(2)}, weights.with_suffix(".bin"))
    told = fails("generate", "model", "--out", "woven")
    assert "model: not a Histoloom model with safetensors weights" in told
    torch.save({"a": torch.ones(2)}, weights)
    assert "model: not a Histoloom model with safetensors weights" in fails("generate", "model", "--out", "woven")


def test_a_folder_that_holds_something_else(fails, tiny_model, tmp_path):
    (tmp_path / "woven").mkdir()
    (tmp_path / "woven" / "thesis.txt").write_text("mine")
    told = fails("generate", tiny_model, "--layouts", 1, "--size", 64, "--out", "woven", *QUICK)
    assert "woven: exists and holds no woven patches; give --out another folder" in told


@pytest.mark.parametrize("largest_file", [100, 2_000])
def test_a_full_disk_while_weaving(fails, histoloom, tiny_model, maps, tmp_path, largest_file):
    command = ("generate", tiny_model, "--maps", maps, "--out", "woven", *QUICK)
    told = fails(*command, largest_file=largest_file, may_leave="woven.partial")
    assert "woven: cannot be written" in told
    assert "free some space" in told
    assert not list(tmp_path.rglob("*.png.partial"))
    assert histoloom(*command).code == 0


def test_a_disk_too_full_for_the_contact_sheet(fails, histoloom, tiny_model, maps, tmp_path):
    command = ("generate", tiny_model, "--maps", maps, "--out", "woven", *QUICK)
    assert histoloom(*command).code == 0
    sheet = (tmp_path / "woven" / "contact-sheet.png").read_bytes()
    (tmp_path / "woven" / "contact-sheet.png").unlink()
    assert "woven/contact-sheet.png: cannot be written" in fails(*command, largest_file=1000)
    assert histoloom(*command).code == 0
    assert (tmp_path / "woven" / "contact-sheet.png").read_bytes() == sheet


def test_debug_shows_where_an_error_came_from(histoloom, tmp_path):
    ended = histoloom("generate", "absent", "--out", "woven", "--debug")
    assert ended.code == 1
    assert "Traceback" in ended.stderr
    assert "ModelError" in ended.stderr


def test_the_demo_weaves_with_the_bundled_model_and_its_bank(histoloom, tmp_path):
    """Fails until the weights lie in src/histoloom/weights/ebhi-seg."""
    assert (Path(find_model("ebhi-seg")) / "model_index.json").is_file()
    ended = histoloom("demo", "--count", 2, "--out", "woven")
    assert (ended.code, ended.stderr) == (0, "")
    rows = pq.read_table(tmp_path / "woven" / "index.parquet").to_pylist()
    assert all(row["crops"] for row in rows)
    named = {"seed", "semantic_map", "crops", "map_guidance", "crop_guidance", "steps", "model_hash", "version"}
    assert named <= rows[0].keys()
    assert Image.open(tmp_path / "woven" / "images" / "00000.png").size == (224, 224)


def test_the_demo_shows_four_stains_and_four_tissue_types_at_least():
    folder = Path(find_model("ebhi-seg"))
    orders = place_orders(Source(None, 16, 224, folder / "crops"), HistoloomPipeline.load(folder).table, 0)
    crops = [crop for order in orders for crop in order.crops]
    colors: dict[str, list[np.ndarray]] = {}
    for crop in crops:
        colors.setdefault(crop.source.split("/")[0], []).append(crop.pixels.mean(axis=(0, 1)))
    means = np.stack([np.mean(of_set, axis=0) for of_set in colors.values()])
    apart = means[farthest_first(means)[:4]]
    assert len(apart) == 4
    assert pdist(apart).min() > 20  # RGB units
    assert len({crop.tissue for crop in crops}) >= 4
