"""The recipes for discovered types as shipped, on small data, trained for moments."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slide_files import write_aperio

from histoloom.conditioning.likeness import CopyLimitConfig
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.draw import draw_maps
from histoloom.discovery.names import name_types
from histoloom.discovery.parts import find_parts
from histoloom.discovery.pseudo_maps import MapConfig
from histoloom.discovery.pseudo_patches import Kept, draw_patches
from histoloom.errors import ConfigError, InputError
from histoloom.experiments.recipe import Recipe, Watch, read_recipe
from histoloom.experiments.run import run_recipe
from histoloom.fitting.loop import LoopConfig
from histoloom.models.autoencoder import AutoencoderConfig
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import iter_rows
from histoloom.recipes import FOLDER as RECIPES
from histoloom.training.autoencoder import AutoencoderTraining
from histoloom.training.curriculum import Curriculum
from histoloom.training.decoder import DecoderTraining
from histoloom.training.denoiser import DenoiserTraining


def tiny(recipe: Recipe) -> Recipe:
    """The recipe with its data and curriculum as they are, and a few steps of a small model."""
    loop = LoopConfig(steps=2, batch_size=2, workers=0)
    autoencoder = AutoencoderTraining(
        size=32,
        model=AutoencoderConfig(
            latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
        ),
        loop=loop,
    )
    decoder = DecoderTraining(size=32, channels=8, loop=loop)
    denoiser = DenoiserTraining(
        window=64, views=1, channels=(32, 64), blocks=(1, 1), loop=loop, curriculum=recipe.denoiser.curriculum
    )
    none = CopyLimitConfig(pairs=0)
    return replace(
        recipe,
        autoencoder=autoencoder,
        decoder=decoder,
        denoiser=denoiser,
        watch=Watch(patches=1, steps=1, map_fidelity=False),
        copy_limit=none,
    )


@pytest.fixture
def recipes(tmp_path) -> Path:
    """A folder for recipes, apart from their data."""
    folder = tmp_path / "checkout" / "recipes"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def named(tree):
    return name_types(tree.ancestors, tree.levels)


def test_a_dataset_with_drawn_maps_is_trained_on_from_coarse_to_fine(recipes, known_dataset, by_color, named, tmp_path):
    draw_patches(known_dataset, lambda: by_color, "m", named, 1, MapConfig(), Kept(), tmp_path / "discovered-ebhi")
    (recipes / "r.toml").write_text((RECIPES / "discovered-ebhi.toml").read_text())
    recipe = tiny(read_recipe(recipes / "r.toml", tmp_path / "discovered-ebhi"))
    assert recipe.denoiser.curriculum == Curriculum(warmup_steps=3000)
    model = run_recipe(recipe, tmp_path / "run")
    assert HistoloomPipeline.load(model).table.names == ["type 0", "type 1", "type 2"]
    assert "[denoiser.curriculum]" in (tmp_path / "run" / "recipe.toml").read_text()


def test_slides_with_drawn_maps_are_cut_and_trained_on(recipes, known_pixels, by_color, named, tmp_path):
    for number, case in enumerate(("TCGA-AA-0001", "TCGA-BB-0002")):
        folder = tmp_path / "gdc" / f"{number}f5e-uuid"
        folder.mkdir(parents=True)
        write_aperio(folder / f"{case}-01Z-00-DX1.{number}F5E.svs", np.roll(known_pixels, 8 * number, axis=1))
    parts, _ = find_parts(tmp_path / "gdc", Cutting())
    draw_maps(parts, lambda: by_color, "m", named, MapConfig(), tmp_path / "maps")
    text = (RECIPES / "discovered-tcga.toml").read_text().replace("/100/", "/3/")
    (recipes / "r.toml").write_text(text.replace("size = 256", "size = 96\nstride = 32").replace("0.9", "0.5"))
    recipe = tiny(read_recipe(recipes / "r.toml", tmp_path / "gdc"))
    run_recipe(recipe, tmp_path / "run")
    rows = [r for split in ("train", "val") for r in iter_rows(tmp_path / "run" / "dataset", split)]
    assert {row["case"] for row in rows} == {"TCGA-AA-0001", "TCGA-BB-0002"}
    assert all(0.2 <= max(row["fractions"]) <= 0.8 for row in rows)


def test_a_curriculum_on_types_that_are_not_nested_says_what_is_missing(recipes, known_dataset, tmp_path):
    (recipes / "r.toml").write_text(f'[data]\ndataset = "{known_dataset}"\n[denoiser.curriculum]\n')
    recipe = tiny(read_recipe(recipes / "r.toml"))
    with pytest.raises(InputError, match=r"levels\.toml: not found; a curriculum needs it"):
        run_recipe(recipe, tmp_path / "run")
    (recipes / "levels.toml").write_text("[[level]]\ntypes = 2\nof = [0, 1]\n")
    text = f'[data]\ndataset = "{known_dataset}"\n[denoiser.curriculum]\nlevels = "levels.toml"\n'
    (recipes / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"recipes/levels\.toml: does not know type 2 of"):
        run_recipe(tiny(read_recipe(recipes / "r.toml")), tmp_path / "other")
