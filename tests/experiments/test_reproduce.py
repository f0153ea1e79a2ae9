"""The paper's comparison, whole, at the size of a thumbnail; and resumed."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from histoloom import precision
from histoloom.conditioning.crops import CropConfig
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.errors import ConfigError, HistoloomError, InputError, ModelError, OutputError
from histoloom.evaluation.downstream import DownstreamConfig
from histoloom.experiments import reproduce as reproduction
from histoloom.experiments.check import check_recipe
from histoloom.experiments.context import record_of
from histoloom.experiments.recipe import Reproduction, read_recipe
from histoloom.experiments.reproduce import equal_orders, reproduce
from histoloom.generation.patches import WeaveConfig
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.progress import silent
from histoloom.tissue import TissueTable

RECIPE = """
[data]
source = "images"
maps = "maps"
tissue = "tissue.toml"
pictures = {{ val_share = {val_share} }}

[autoencoder]
size = 32
model = {{ latent_channels = 4, channels = [8, 8, 16], encoder_blocks = [1, 1, 1], decoder_blocks = [1, 1, 1] }}
loop = {{ steps = 2, batch_size = 2, workers = 0 }}

[denoiser]
window = 32
channels = [32, 64]
blocks = [1, 1]
crops = {{ base = 24, largest = 32 }}
curriculum = {{ levels = "levels.toml" }}
loop = {{ batch_size = 2, workers = 0 }}

[reproduce]
conditionings = ["unconditional", "crops-in-place"]
steps = 2
views = 1
patches = 4
weave = {{ steps = 1 }}
encoders = ["encoder"]
segmenter = {{ steps = 1, batch_size = 2, size = 64, channels = [4, 8] }}
downstream = {{ steps = 1, batch_size = 2, size = 32, seeds = [0, 1] }}
"""


def run(folder, val_share: float = 0.4, bar=silent) -> dict:
    (folder / "tiny.toml").write_text(RECIPE.format(val_share=val_share))
    return reproduce(read_recipe(folder / "tiny.toml"), folder / "run", bar)


@pytest.fixture
def folder(image_folder, monkeypatch):
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=1)).eval(), image_folder / "encoder")
    levels = "[[level]]\ntypes = 1\nof = [0, 0]\n[[level]]\ntypes = 2\nof = [0, 1]\n"
    (image_folder / "levels.toml").write_text(levels)
    monkeypatch.chdir(image_folder)
    return image_folder


def test_all_are_trained_woven_and_measured_alike_and_a_run_that_stopped_makes_nothing_twice(folder):
    found = run(folder)
    kinds = ["unconditional", "crops-in-place"]
    assert list(found["sets"]) == kinds
    assert list(found["downstream"]) == [*kinds, "real"]
    assert all(len(of["of_seed"]) == 2 for of in found["downstream"].values())
    for kind in kinds:
        assert len(list((folder / "run" / kind / "woven" / "images").iterdir())) == 4
        assert found["sets"][kind]["report"]["sets"]["fake"]["images"] == 4
        assert found["sets"][kind]["left_out"]["encoder"]
        card = (folder / "run" / kind / "model" / "README.md").read_text()
        assert "4 windows of 32 px, seed 0, with Histoloom" in card
        assert f"conditioning `{kind}`" in card
    assert found["sets"][kinds[0]]["left_out_share"] == found["sets"][kinds[1]]["left_out_share"]
    tables = (folder / "run" / "tables.md").read_text()
    for words in ("| encoder | floor: real | unconditional | crops-in-place |", "| trained on | mean IoU |",
                  "crops that reappear", "map fidelity", "How much of the gain is copying?"):  # fmt: skip
        assert words in tables
    assert Image.open(folder / "run" / "sheet.png").width > 800
    assert json.loads((folder / "run" / "reproduce.json").read_text()) == found

    kept = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    (folder / "run" / "downstream" / "real-1.json").unlink()
    opened = []

    def bar(label: str, *_):
        opened.append(label)
        return silent(label, *_)

    assert run(folder, bar=bar) == found
    changed = {path.name for path, then in kept.items() if path.stat().st_mtime_ns != then}
    assert changed == {"real-1.json", "recipe.toml", "reproduce.json", "tables.md", "sheet.png"}
    assert not {"unconditional", "crops-in-place", "segmenter", "encoder"} & set(opened)

    # A run of a dataset whose types were called otherwise then.
    table = (folder / "run" / "tissue.toml").read_text()
    (folder / "run" / "tissue.toml").write_text(table.replace("gland", "glnad"))
    with pytest.raises(OutputError, match="run: has begun with the types stroma, glnad, and its tables would mix them"):
        run(folder)


def test_a_run_goes_on_in_its_own_precision_only(folder, make_pipeline, monkeypatch):
    make_pipeline().save_pretrained(str(folder / "model"))
    text = RECIPE.format(val_share=0.4).replace("[reproduce]", '[reproduce]\nautoencoder_of = "model"')
    text = text[: text.index("[autoencoder]")] + text[text.index("[denoiser]") :]
    (folder / "tiny.toml").write_text(text)
    trained = []
    monkeypatch.setattr(reproduction, "_weave_and_measure", lambda *given: trained.append(given) or {})
    recipe = read_recipe(folder / "tiny.toml")
    reproduce(recipe, folder / "run")

    (comparison, models), out = trained[0], folder / "run" / "unconditional" / "woven"
    orders, _ = equal_orders(comparison.run.patches, comparison.budget)
    for dtype in (torch.float32, torch.bfloat16):
        model = HistoloomPipeline.load(models["unconditional"], dtype)
        with nullcontext() if dtype == torch.float32 else pytest.raises(OutputError, match='computed_in was "fp32 on'):
            reproduction._weave(comparison, model, orders, out)

    other = not precision.bf16_is_faster()
    monkeypatch.setattr(precision, "bf16_is_faster", lambda: other)
    with pytest.raises(ModelError, match=r"precision: (bf16|fp32) then, (bf16|fp32) now"):
        reproduce(recipe, folder / "run")


def test_maps_and_crops_are_those_of_the_training_patches_and_no_crop_comes_from_its_own_patch(small_patches):
    (orders, at), (again, _) = (equal_orders(small_patches, Reproduction(patches=5)) for _ in range(2))
    assert len(orders) == len(set(at)) == 5
    assert any(order.crops for order in orders)
    for order, same, index in zip(orders, again, at, strict=True):
        assert order.map_source == same.map_source == small_patches.sources[index]
        np.testing.assert_array_equal(order.semantic_map, small_patches.semantic_maps[index])
        assert all(crop.source != order.map_source for crop in order.crops)


def test_crops_are_as_large_as_those_that_the_networks_learn_from(small_patches):
    orders, at = equal_orders(small_patches, Reproduction(patches=12), CropConfig(base=24, largest=28))
    edges = {max(crop.pixels.shape[:2]) for order in orders for crop in order.crops}
    assert edges
    assert max(edges) <= 28
    assert at == equal_orders(small_patches, Reproduction(patches=12))[1]


def test_patches_of_one_slide_are_told_apart(small_patches):
    slide = replace(small_patches, sources=["slide.svs"] * len(small_patches))
    orders, at = equal_orders(slide, Reproduction(patches=5))
    for order, index in zip(orders, at, strict=True):
        np.testing.assert_array_equal(order.semantic_map, slide.semantic_maps[index])


def test_models_and_encoders_beside_the_recipe_are_found(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    lines = """
        data.dataset = "patches"
        [reproduce]
        autoencoder_of = "{0}"
        encoders = ["uni", "{0}"]
        downstream.start = "{0}"
    """
    for name, found in {"mine/model": str(tmp_path / "mine" / "model"), "ebhi-seg": "ebhi-seg"}.items():
        (tmp_path / "recipe.toml").write_text(lines.format(name))
        compared = read_recipe(tmp_path / "recipe.toml").reproduce
        assert compared.autoencoder_of == compared.downstream.start == found
        assert compared.encoders == ("uni", found)


def test_another_model_lends_its_autoencoder_whatever_size_the_recipes_own_would_need(folder, make_pipeline):
    make_pipeline().save_pretrained(str(folder / "model"))
    text = RECIPE.format(val_share=0.4).replace("[reproduce]", '[reproduce]\nautoencoder_of = "model"')
    own = text[text.index("[autoencoder]") : text.index("[denoiser]")]
    (folder / "tiny.toml").write_text(text.replace(own, "").replace("[64, 96]", "[32, 64]"))
    recipe = read_recipe(folder / "tiny.toml")
    lent = replace(recipe, pretrained_autoencoder=recipe.reproduce.autoencoder_of)
    check_recipe(lent, 80, TissueTable.from_names(["stroma", "gland"]), None)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('encoders = ["encoder"]', 'encoders = ["nowhere"]', "nowhere"),
        ("seeds = [0, 1]", 'seeds = [0, 1], backbone = "resnet18"', "holds weights of tf_efficientnet_lite0"),
        ("[data]", '[data]\nsplit = "val"', "data split is 'val', which everything is measured against"),
        ("[reproduce]", "[distillation]\n[reproduce]", r"\[distillation\] has no effect"),
        ("weave = {", "weave = { seed = 9,", "leave seed out of weave"),
        ("weave = {", 'weave = { sampler = "ddim",', "sampler 'ddim' does not fit a model of kind 'flow'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(folder, old, new, reason):
    text = RECIPE.format(val_share=0.4)
    assert old in text
    (folder / "tiny.toml").write_text(text.replace(old, new))
    with pytest.raises(HistoloomError, match=reason):
        reproduce(read_recipe(folder / "tiny.toml"), folder / "run")
    assert not (folder / "run").exists() or [path.name for path in (folder / "run").glob("*/")] == ["dataset"]
    assert not (folder / "run" / "recipe.toml").exists()


def test_patches_that_are_in_both_splits_are_found_before_training(folder):
    for kind in ("images", "maps"):
        for case in ("P1", "P2"):
            shutil.copy(folder / kind / "P0" / "0.png", folder / kind / case / "again.png")
    (folder / "tiny.toml").write_text(RECIPE.format(val_share=0.4).replace("patches = 4", "patches = 20"))
    with pytest.raises(InputError, match=r"shows the same tissue as .* of the test images"):
        reproduce(read_recipe(folder / "tiny.toml"), folder / "run")
    assert not list((folder / "run").rglob("*.safetensors"))


def test_a_run_goes_on_where_only_its_measuring_changes(folder):
    (folder / "tiny.toml").write_text(RECIPE.format(val_share=0.4))
    recipe = read_recipe(folder / "tiny.toml")
    measured = {"encoders": ("uni",), "pairs": 200, "shown": 1, "downstream": DownstreamConfig(steps=3)}
    for changes, same in ((measured, True), ({"steps": 9}, False), ({"seed": 1}, False)):
        other = replace(recipe, reproduce=replace(recipe.reproduce, **changes))
        assert (record_of(other, "reproduce") == record_of(recipe, "reproduce")) is same


def test_a_budget_without_sense_or_a_dataset_without_val_is_refused(folder):
    with pytest.raises(ConfigError, match="at least one conditioning, each only once"):
        Reproduction(conditionings=("map", "map"))
    with pytest.raises(ConfigError, match="pairs >= 100"):
        Reproduction(pairs=10)
    with pytest.raises(ConfigError, match="leave copy_limit out of weave"):
        Reproduction(weave=WeaveConfig(copy_limit=0.6))
    with pytest.raises(InputError, match="no shards of split 'val'"):
        run(folder, val_share=0.0)
