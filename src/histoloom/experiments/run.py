"""A recipe, run from data to a saved model: import, autoencoder, decoder, denoiser, and someone watching.

    RUN/
      recipe.toml            resolved copy
      dataset/               where the recipe names pictures or slides
      autoencoder/ decoder/ denoiser/  checkpoints; latents of the training views
      segmenter/             where the recipe watches with one: reads maps off images
      samples/000400.png     the same maps and crops, woven at each checkpoint
      tensorboard/           losses, rates, map fidelity
      model/                 the finished pipeline

Every stage resumes from its checkpoint, so the same command goes on where a killed run stopped.
"""

from pathlib import Path

import torch
from diffusers import ModelMixin
from torch.utils.tensorboard import SummaryWriter

from histoloom.conditioning.likeness import copy_limit
from histoloom.discovery.levels import Levels
from histoloom.experiments.data import open_dataset, open_levels, open_split
from histoloom.experiments.recipe import Recipe, keep_recipe
from histoloom.experiments.stages import MakeBar, open_autoencoder, reporter, save_model
from histoloom.experiments.watch import Watcher
from histoloom.fitting.processes import process_state
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import Patches, read_table
from histoloom.tissue import TissueTable
from histoloom.training.denoiser import train_denoiser
from histoloom.weights import find_model


def run_recipe(recipe: Recipe, folder: Path, make_bar: MakeBar) -> Path:
    """Train what the recipe says, in `folder`, and return the folder of the finished model.

    `make_bar(label, total, unit, done)` opens a progress bar; only the main process draws it.
    """
    state = process_state()
    with state.main_process_first():
        if state.is_main_process:
            keep_recipe(recipe, folder)
        dataset = open_dataset(recipe.data, folder, make_bar)
    table, patches = read_table(dataset), open_split(dataset, recipe.data.split)
    writer = SummaryWriter(str(folder / "tensorboard")) if state.is_main_process else None
    autoencoder = open_autoencoder(recipe, patches, folder, make_bar, writer)
    watcher = Watcher(recipe.watch, patches, table, autoencoder, folder, writer, make_bar) if writer else None
    state.wait_for_everyone()
    levels = open_levels(recipe.denoiser, dataset, table)
    denoiser = _denoiser(recipe, patches, table, autoencoder, folder, make_bar, writer, watcher, levels)
    if state.is_main_process:
        save_model(denoiser, autoencoder, table, folder / "model", _copy_limit(recipe, patches, make_bar))
    return folder / "model"


def _denoiser(
    recipe: Recipe,
    patches: Patches,
    table: TissueTable,
    autoencoder: ModelMixin,
    folder: Path,
    make_bar: MakeBar,
    writer: SummaryWriter | None,
    watcher: "Watcher | None",
    levels: Levels | None,
) -> Denoiser:
    config = recipe.denoiser
    with (
        make_bar("latents", len(patches), "patches") as caching,
        make_bar("denoiser", config.loop.steps * config.loop.batch_size, "patches") as bar,
    ):
        return train_denoiser(
            patches,
            table.num_ids,
            autoencoder,
            config,
            folder / "denoiser",
            lambda _: caching.advance(),
            reporter(bar, writer, "denoiser", config.loop.batch_size),
            watcher,
            HistoloomPipeline.load(find_model(recipe.initial_model), torch.float32).denoiser
            if recipe.initial_model
            else None,
            levels,
        )


def _copy_limit(recipe: Recipe, patches: Patches, make_bar: MakeBar) -> float | None:
    """How alike crops and what is woven from them may be; none for crops in place, which are copied on purpose."""
    if recipe.denoiser.conditioning not in ("embedding", "crops-as-reference"):
        return None
    with make_bar("copy limit", recipe.copy_limit.pairs, "pairs") as bar:
        return copy_limit(patches, recipe.copy_limit, recipe.denoiser.crops, bar.advance)
