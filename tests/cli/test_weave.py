import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from folders import files
from PIL import Image
from scipy.spatial.distance import pdist

from histoloom.conditioning.inputs import content_id
from histoloom.experiments.data import open_split
from histoloom.generation.bank import farthest_first, load_bank
from histoloom.generation.orders import make_orders
from histoloom.generation.settings import DrawnMaps, Source
from histoloom.generation.woven_reader import read_woven
from histoloom.license import License
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.tissue import TissueTable
from histoloom.weights import find_model

QUICK = ("--steps", 2)


def test_maps_and_crops_become_annotated_patches(histoloom, tiny_model, maps, crop_folder, tmp_path):
    ended = histoloom("generate", tiny_model, "--maps", maps, "--crops", crop_folder, "--out", "woven", *QUICK)
    assert (ended.code, ended.stderr) == (0, "")
    assert "wrote 3 patches to woven; look at woven/contact-sheet.png" in ended.stdout
    woven = read_woven(tmp_path / "woven")
    for number in range(3):
        np.testing.assert_array_equal(woven.semantic_maps[number], np.asarray(Image.open(maps / f"{number}.png")))
    assert [row["seed"] for row in woven.rows] == [0, 1, 2]
    assert [row["map_source"] for row in woven.rows] == [
        content_id(semantic_map) for semantic_map in woven.semantic_maps
    ]
    assert {row["model_hash"] for row in woven.rows} == {HistoloomPipeline.load(tiny_model).fingerprint}
    for row in woven.rows:
        assert {crop["tissue_id"] for crop in row["crops"]} == set(np.unique(woven.semantic_maps[row["seed"]]))
        assert (row["steps"], row["map_guidance"], row["crop_guidance"]) == (2, 1.5, 2.0)
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
    assert "woven: was made by another run (seed was 0, is now 1); name another folder" in fails(*command, "--seed", 1)


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
    counts = [sum(crop.tissue == tissue for crops in bank.sets.values() for crop in crops) for tissue in range(3)]
    assert f"sets of crops to bank: {counts[0]} stroma, {counts[1]} gland, {counts[2]} tumour" in made.stdout
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


def test_file_names_of_patients_stay_in_the_key_file(histoloom, tiny_model, maps, crop_folder, tmp_path):
    (maps / "0.png").rename(maps / "Jane Doe.png")
    (crop_folder / "gland" / "a.png").rename(crop_folder / "gland" / "Jane Doe.png")
    command = ("generate", tiny_model, "--maps", maps, "--crops", crop_folder, *QUICK)
    assert histoloom(*command, "--out", "woven").code == 0
    written = files(tmp_path / "woven")
    assert [name for name, data in written.items() if b"Jane Doe" in data] == ["sources.local.json"]
    key = json.loads(written["sources.local.json"])
    rows = read_woven(tmp_path / "woven").rows
    assert sorted(name for row in rows for name in key["maps"][row["map_source"]]) == ["1.png", "2.png", "Jane Doe.png"]
    named = {name for row in rows for crop in row["crops"] for name in key["crops"][crop["source"]]}
    assert named == {"crops/stroma/a.png", "crops/gland/Jane Doe.png", "crops/tumour/a.png"}
    assert histoloom(*command, "--out", "named", "--record-names").code == 0
    assert "Jane Doe.png" in [row["map_source"] for row in read_woven(tmp_path / "named").rows]


@pytest.mark.parametrize("options", [(), ("--record-names",)])
def test_names_that_are_not_utf8_are_written_as_escapes(histoloom, tiny_model, maps, tmp_path, options):
    name = b"gr\xfcn".decode(errors="surrogateescape")
    (maps / "0.png").rename(maps / f"{name}.png")
    (maps / "1.png").rename(maps / "._1.png")  # what a Mac leaves is not a map
    command = ("generate", tiny_model, "--maps", maps, "--out", name, *QUICK, *options)
    ended = histoloom(*command)
    assert (ended.code, ended.stderr) == (0, f"{maps}: 1 hidden files were left out: ._1.png\n")
    assert "wrote 2 patches to gr\\xfcn" in ended.stdout
    assert histoloom(*command).stdout == ended.stdout
    named = [row["map_source"] for row in read_woven(tmp_path / name).rows]
    assert ("gr\\xfcn.png" in named) == bool(options)


def test_the_scale_of_a_model_travels_to_layouts_index_and_pictures(histoloom, fails, tiny_model, maps, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mpp": 0.5}))
    drawn = ("generate", "model", "--layouts", 2, *QUICK)
    assert histoloom(*drawn, "--out", "fine").code == 0
    assert histoloom(*drawn, "--mpp", 0.52, "--out", "near").code == 0
    assert histoloom("generate", tiny_model, "--layouts", 2, *QUICK, "--out", "unknown").code == 0
    for out, mpp in (("fine", 0.5), ("near", 0.52), ("unknown", None)):
        assert [row["mpp"] for row in read_woven(tmp_path / out).rows] == [mpp, mpp]
        for kind in ("images", "maps"):
            density = Image.open(tmp_path / out / kind / "00000.png").info.get("dpi")
            assert density is None if mpp is None else density == pytest.approx((25_400 / mpp,) * 2, rel=1e-4)
    borders = {
        out: (np.diff(read_woven(tmp_path / out).semantic_maps, axis=1) != 0).sum() for out in ("fine", "unknown")
    }
    assert borders["fine"] < 0.6 * borders["unknown"]  # glands are three times as wide as at 1.5 um per pixel
    said = fails("generate", "model", "--maps", maps, "--mpp", 1.0, "--out", "woven", *QUICK)
    assert "mpp is 1, but the model was trained at 0.5 um per pixel and draws tissue at that scale" in said


def test_datasets_opens_a_woven_folder_with_a_column_of_images_and_one_of_maps(
    histoloom, tiny_model, maps, crop_folder, tmp_path
):
    import datasets

    shutil.copytree(tiny_model, tmp_path / "model")
    card = "---\nlicense: cc-by-4.0\nattribution: Doe et al. 2023\n---\n# A model\n"
    (tmp_path / "model" / "README.md").write_text(card)
    command = ("generate", "model", "--maps", maps, "--crops", crop_folder, "--out", "woven", *QUICK)
    assert histoloom(*command).code == 0
    opened = datasets.load_dataset(str(tmp_path / "woven"), split="train", cache_dir=str(tmp_path / "cache"))
    woven = read_woven(tmp_path / "woven")
    assert opened.num_rows == 3
    for number, row in enumerate(opened):
        np.testing.assert_array_equal(np.asarray(row["image"]), woven.images[number])
        np.testing.assert_array_equal(np.asarray(row["semantic_map"]), woven.semantic_maps[number])
        assert row["seed"] == number
    written = (tmp_path / "woven" / "README.md").read_text()
    assert "UniPCMultistepScheduler with 2 steps; map guidance 1.5, crop guidance 2" in " ".join(written.split())
    assert "Inherited from the model: cc-by-4.0. Attribution: Doe et al. 2023" in written
    assert License.of_card(tmp_path / "woven") == License("cc-by-4.0", "Doe et al. 2023")
    assert "`sources.local.json` holds the file names of the maps and crops" in written


def test_generate_exports_what_it_wove_and_does_so_once(call_here, tiny_model, maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("generate", str(tiny_model), "--maps", str(maps), "--as", "dataset", "--out", "new", "--steps", "2")
    for _ in range(2):
        assert call_here(*command)[1][-1] == "wrote 3 patches as dataset to new"
    assert len(open_split(tmp_path / "new", "train")) == 3
    assert len(read_woven(tmp_path / "new.woven").rows) == 3
    assert "--as jpeg is unknown" in call_here(*command, "--as", "jpeg")[2][0]
    shutil.rmtree("new.woven")
    assert 'new: was made by another run (as was "dataset", is now "coco")' in call_here(*command, "--as", "coco")[2][0]
    assert call_here("generate", str(tiny_model), "--maps", str(maps), "--out", "woven", "--steps", "2")[0] == 0
    refused = call_here(*command, "--out", "woven")
    assert 'woven: was made by another run (command was "generate", is now "export")' in refused[2][0]
    assert not [*tmp_path.glob("*.woven")]  # refused before anything is woven


def test_a_plan_says_what_is_left_and_writes_nothing(call_here, tiny_model, maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("generate", str(tiny_model), "--maps", str(maps), "--out", "new", "--steps", "2")
    code, said, _ = call_here(*command, "--plan", "--as", "coco")
    assert code == 0
    assert said[0].startswith("3 patches, 3 left; measured on 3 of them, in one process")
    hours, rate = (float(word) for word in re.findall(r"[\d.]+", said[1]))
    assert hours == pytest.approx(3 / rate / 3600, abs=0.01)
    assert re.fullmatch(r"disk: [\d.]+ kB of [\d.,]+ GB that are free", said[2])
    assert said[3] == "not measured: the export"
    assert not list(tmp_path.glob("new*"))
    assert call_here(*command)[0] == 0
    assert call_here(*command, "--plan")[1] == ["3 patches, all of which are woven"]
    code, _, said = call_here(*command, "--seed", "1", "--plan")
    assert (code, len(said)) == (1, 1)
    assert "made by another run (seed was 0, is now 1" in said[0]


@pytest.mark.parametrize("moment", [".bank.partial/record.json", "gland", "bank"])
def test_a_bank_killed_at_any_moment_is_woven_by_the_same_command(start, histoloom, tiny_model, tmp_path, moment):
    command = ["bank", str(tiny_model), "--tries", "3", "--keep", "2", "--out", "bank"]
    process = start(KILLED, folder=str(tmp_path), moment=moment, arguments=command)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "bank").exists()
    ended = histoloom(*command)
    assert (ended.code, ended.stderr) == (0, "")
    assert histoloom(*command[:-1], "again").code == 0
    assert files(tmp_path / "bank") == files(tmp_path / "again")
    assert histoloom(*command).stdout == ended.stdout  # finished: nothing is woven again


KILLED = """
import os, signal, sys
from pathlib import Path
os.chdir(folder)

def dies(source, target, replace=os.replace):
    if moment in (Path(target).name, Path(target).parent.name, "/".join(Path(target).parts[-2:])):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = dies
sys.argv = ["histoloom", *arguments]
from histoloom.cli.main import run
run()
"""


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


def test_the_bundled_student_weaves_what_its_teacher_weaves_in_two_predictions():
    woven, predictions = {}, {}
    for name in ("ebhi-seg", "ebhi-seg-few-steps"):
        folder = Path(find_model(name))
        pipeline, counts = HistoloomPipeline.load(folder), []
        pipeline.denoiser.register_forward_pre_hook(lambda _, given, counts=counts: counts.append(len(given[0])))
        source = Source(maps=DrawnMaps(count=2), crops=folder / "crops")
        orders = make_orders(source, pipeline.table, 0, None, own_bank=True)
        given = [o.semantic_map for o in orders], [o.crops for o in orders]
        woven[name] = pipeline(*given, seed=0).astype(int)
        predictions[name] = sum(counts) / len(orders)
    assert predictions == {"ebhi-seg": 22, "ebhi-seg-few-steps": 2}
    teacher, student = woven.values()
    another = pipeline(*given, seed=7)
    assert np.abs(student - teacher).mean() < 0.5 * np.abs(student - another).mean()


def test_the_demo_shows_four_stains_and_four_tissue_types_at_least():
    folder = Path(find_model("ebhi-seg"))
    source, table = Source(maps=DrawnMaps(count=16), crops=folder / "crops"), HistoloomPipeline.load(folder).table
    crops = [crop for order in make_orders(source, table, 0, None, own_bank=True) for crop in order.crops]
    colors: dict[str, list[np.ndarray]] = {}
    for crop in crops:
        colors.setdefault(crop.source.split("/")[0], []).append(crop.pixels.mean(axis=(0, 1)))
    means = np.stack([np.mean(of_set, axis=0) for of_set in colors.values()])
    apart = means[farthest_first(means)[:4]]
    assert len(apart) == 4
    assert pdist(apart).min() > 20  # RGB units
    assert len({crop.tissue for crop in crops}) >= 4
