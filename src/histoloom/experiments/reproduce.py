"""The paper's comparison at one's own size: every conditioning at one equal budget, woven, measured, in tables.

    RUN/
      recipe.toml  dataset/  autoencoder/      as in a training run
      latents/                                 one cache, which all conditionings share
      segmenter/                               reads maps off images
      CONDITIONING/denoiser/ model/ woven/     trained, saved, and what it has woven
      CONDITIONING/trained.json measured.json
      downstream/SET-SEED.json                 one DeepLabv3+ each
      reproduce.json  tables.md  sheet.png     what to look at

Every step leaves a finished file or folder, so the same command goes on where a killed run stopped.
"""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin

from histoloom.conditioning.crops import ReferenceCrops
from histoloom.errors import InputError
from histoloom.evaluation.paper_tables import paper_tables
from histoloom.evaluation.sources import load_images
from histoloom.experiments.data import open_dataset, open_levels, open_split
from histoloom.experiments.ground import HELD, Ground, kept, write_text
from histoloom.experiments.measuring import downstream_of, image_set, masks_of, measure
from histoloom.experiments.recipe import Recipe, Reproduction, keep_recipe
from histoloom.experiments.stages import MakeBar, open_autoencoder, open_segmenter, reporter, save_model
from histoloom.fitting.processes import process_state
from histoloom.generation.contact_sheet import comparison_sheet
from histoloom.generation.export import read_woven, write_patches
from histoloom.generation.patches import Order, weave
from histoloom.models.autoencoder import weights_hash
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.store import Patches, read_table
from histoloom.training.denoiser import DenoiserTraining, train_denoiser
from histoloom.training.latents import cache_latents
from histoloom.weights import find_model


def reproduce(recipe: Recipe, folder: Path, make_bar: MakeBar) -> dict:
    """Train, weave and measure what `recipe.reproduce` asks for, in `folder`; returns what `reproduce.json` holds.

    Training takes all processes that `accelerate launch` has started, the rest the main one. Raises InputError for a
    dataset without the split `val`.
    """
    state = process_state()
    with state.main_process_first():
        if state.is_main_process:
            keep_recipe(recipe, folder)
        dataset = open_dataset(recipe.data, folder, make_bar)
    train, held = open_split(dataset, recipe.data.split), open_split(dataset, HELD)
    table = read_table(dataset)
    levels = open_levels(recipe.denoiser, dataset, table)
    ground = Ground(recipe, folder, table, train, held, levels, make_bar)
    if shared := sorted(set(train.cases) & set(held.cases)):
        raise InputError(f"{dataset}: case {shared[0]!r} is in {recipe.data.split} and in {HELD}; split by case")
    models = _train_all(ground)
    state.wait_for_everyone()
    return _weave_and_measure(ground, models) if state.is_main_process else {}


def place_orders(patches: Patches, budget: Reproduction) -> tuple[list[Order], list[int]]:
    """The same maps and crops for every conditioning, and the numbers of the patches whose maps they are; crops come
    from other patches of the map's case."""
    rng = np.random.default_rng((budget.seed, 1))
    references = ReferenceCrops(patches)
    nowhere = np.zeros(patches.semantic_maps.shape[1:], bool)  # no crop from the patch itself
    orders, at = [], rng.permutation(len(patches))[: budget.patches].tolist()
    for index in at:
        wanted = patches.semantic_maps[index]
        orders.append(Order(wanted, patches.names[index], references.draw(index, nowhere, wanted, None, rng)))
    return orders, at


def _train_all(ground: Ground) -> dict[str, Path]:
    budget, recipe = ground.budget, ground.recipe
    if budget.autoencoder_of:
        autoencoder = HistoloomPipeline.load(find_model(budget.autoencoder_of), torch.float32).autoencoder
    else:
        autoencoder = open_autoencoder(recipe, ground.train, ground.folder, ground.make_bar, None)
    models = {}
    for kind in budget.conditionings:
        loop = replace(recipe.denoiser.loop, steps=budget.steps, seed=budget.seed)
        config = replace(recipe.denoiser, conditioning=kind, views=budget.views, loop=loop)
        nested = ground.levels and ground.levels.of.tolist()
        key = ground.key("train", asdict(config), weights_hash(autoencoder), nested)
        home = ground.folder / kind
        kept(home / "trained.json", key, lambda: _train(ground, autoencoder, config, home))  # noqa: B023 (called here)
        models[kind] = home / "model"
    return models


def _train(ground: Ground, autoencoder: ModelMixin, config: DenoiserTraining, home: Path) -> dict:
    latents, cached = ground.folder / "latents", home / "denoiser"
    with ground.make_bar("latents", len(ground.train), "patches") as bar:
        cache_latents(
            autoencoder, ground.train, config.views, config.loop.seed, config.stain, latents, lambda _: bar.advance()
        )
    with process_state().main_process_first():
        cached.mkdir(parents=True, exist_ok=True)
        for name in ("latents.npy", "latents.json"):
            if not (cached / name).exists():
                (cached / name).unlink(missing_ok=True)
                (cached / name).symlink_to(os.path.relpath(latents / name, cached))
    total = config.loop.steps * config.loop.batch_size
    with ground.make_bar(config.conditioning, total, "windows") as bar:
        denoiser = train_denoiser(
            ground.train,
            ground.table.num_ids,
            autoencoder,
            config,
            cached,
            on_step=reporter(bar, None, config.conditioning, config.loop.batch_size),
            levels=ground.levels,
        )
    if process_state().is_main_process:
        # Without a copy limit: a conditioning that copies shall be seen to copy.
        save_model(denoiser, autoencoder, ground.table, home / "model")
    return {"windows": total, "parameters": sum(p.numel() for p in denoiser.parameters())}


def _weave_and_measure(ground: Ground, models: dict[str, Path]) -> dict:
    budget = ground.budget
    orders, at = place_orders(ground.train, budget)
    segmenter = open_segmenter(
        ground.folder / "segmenter", ground.train, ground.table, budget.segmenter, ground.make_bar
    )
    real, held = (image_set(ground, patches, split) for patches, split in (
        (ground.train, ground.recipe.data.split), (ground.held, HELD)
    ))  # fmt: skip
    sets = {}
    for kind, model in models.items():
        woven, pipeline = ground.folder / kind / "woven", HistoloomPipeline.load(model)
        _weave(ground, pipeline, orders, woven)
        masks = masks_of(ground, orders)
        parts = (budget.weave, budget.segmenter, budget.patches, budget.pairs, budget.encoders, budget.seed)
        key = ground.key("measure", [str(part) for part in parts], pipeline.fingerprint)
        sets[kind] = kept(
            ground.folder / kind / "measured.json",
            key,
            lambda: measure(ground, held, load_images(woven), real, segmenter, orders, at, masks),  # noqa: B023
        )
    result = {
        "budget": _budget(ground, next(iter(models.values()))),
        "sets": sets,
        "downstream": downstream_of(ground, real.select(at), held, list(models)),
    }
    write_text(ground.folder / "reproduce.json", json.dumps(result, indent=2) + "\n")
    write_text(ground.folder / "tables.md", paper_tables(result))
    _sheet(ground, orders, at, list(models))
    return result


def _weave(ground: Ground, pipeline: HistoloomPipeline, orders: list[Order], out: Path) -> None:
    config = replace(ground.budget.weave, seed=ground.budget.seed)
    record = {"model_hash": pipeline.fingerprint, "config": asdict(config), "key": ground.key(len(orders))}
    with ground.make_bar(f"weaving {out.parent.name}", len(orders), "patches") as bar:

        def weave_from(first: int):
            bar.advance(first)
            return weave(pipeline, orders, config, first, bar.advance)

        write_patches(weave_from, ground.table, out, record)


def _sheet(ground: Ground, orders: list[Order], at: list[int], kinds: list[str]) -> None:
    shown = range(min(ground.budget.shown, len(orders)))
    woven = {kind: read_woven(ground.folder / kind / "woven").images for kind in kinds}
    rows = [
        (orders[i].semantic_map, [(c.tissue, c.pixels) for c in orders[i].crops],
         [ground.train.images[at[i]], *(images[i] for images in woven.values())])
        for i in shown
    ]  # fmt: skip
    sheet = comparison_sheet(rows, ["real", *woven], ground.table)
    path = ground.folder / "sheet.png"
    aside = path.with_suffix(".partial")
    sheet.save(aside, "PNG")
    os.replace(aside, path)


def _budget(ground: Ground, model: Path) -> dict:
    budget, denoiser = ground.budget, ground.recipe.denoiser
    _, usual = make_sampler(denoiser.objective, budget.weave.sampler)
    return {
        "patches": min(budget.patches, len(ground.train)), "split": ground.recipe.data.split, "held": len(ground.held),
        "steps": budget.steps, "batch_size": denoiser.loop.batch_size, "views": budget.views,
        "objective": denoiser.objective, "sampler_steps": budget.weave.steps or usual,
        "map_guidance": budget.weave.map_guidance, "crop_guidance": budget.weave.crop_guidance,
        "guidance_interval": list(budget.weave.guidance_interval), "seed": budget.seed,
        "autoencoder": weights_hash(HistoloomPipeline.load(model).autoencoder)[:12], "encoders": list(budget.encoders),
        "downstream_steps": budget.downstream.steps, "downstream_batch": budget.downstream.batch_size,
        "downstream_seeds": len(budget.downstream.seeds),
    }  # fmt: skip
