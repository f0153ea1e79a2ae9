"""Reproduce the paper's comparison at any size: every conditioning at one equal budget, woven, measured, in tables.

    RUN/
      record.json  recipe.toml  tissue.toml  dataset/  autoencoder/   as in a training run
      latents/                                 one cache that all conditionings share
      segmenter/                               reads maps off images
      CONDITIONING/denoiser/ model/ woven/     trained, saved, and what it has woven
      CONDITIONING/trained.json measured.json
      downstream/SET-SEED.json                 one DeepLabv3+ each
      reproduce.json  tables.md  sheet.png     the results

Every step leaves a finished file or folder, so the same command continues a run that was killed.
"""

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from diffusers.models.modeling_utils import ModelMixin

from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.encoders.encoder import distinct_names, open_encoders
from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.evaluation.paper_tables import paper_tables
from histoloom.evaluation.sources import load_images
from histoloom.experiments.context import record_of
from histoloom.experiments.data import open_split
from histoloom.experiments.measuring import (
    HELD_OUT,
    Comparison,
    check_measuring,
    check_training_sets,
    downstream_of,
    image_set,
    masks_of,
    measure,
)
from histoloom.experiments.model_card import model_card
from histoloom.experiments.recipe import Recipe, Reproduction
from histoloom.experiments.run import open_run, types_at_start, write_settings
from histoloom.experiments.stages import open_autoencoder, open_segmenter, reporter, save_model
from histoloom.files import run_folder, write_json, write_text
from histoloom.fitting.processes import process_state
from histoloom.fitting.results import cached_result
from histoloom.generation.contact_sheet import comparison_sheet
from histoloom.generation.order import Order
from histoloom.generation.patches import weave
from histoloom.generation.woven_patch import FORMAT
from histoloom.generation.woven_reader import read_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.models.autoencoder import weights_hash
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.store import Patches
from histoloom.pictures import write_picture
from histoloom.precision import resolved
from histoloom.progress import Progress, silent
from histoloom.records import Record
from histoloom.training.denoiser import DenoiserTraining, train_denoiser


def reproduce(recipe: Recipe, folder: Path | str, progress: Progress = silent) -> dict:
    """Train, weave and measure what `recipe.reproduce` asks for; returns the content of `reproduce.json`.

    Training uses all processes that `accelerate launch` has started, the rest only the main one. Raises InputError for
    a dataset without the split `val`, OutputError where `folder` belongs to another run.
    """
    folder, state = Path(folder), process_state()
    for name, given in (("denoiser guide", recipe.denoiser.guide), ("[distillation]", recipe.distillation)):
        if given is not None:
            raise ConfigError(f"{name} has no effect in a comparison of conditionings; leave it out")
    if recipe.data.split == HELD_OUT:
        raise ConfigError(f"data split is {HELD_OUT!r}, which everything is measured against; train on another split")
    if recipe.reproduce.autoencoder_of:
        recipe = replace(recipe, pretrained_autoencoder=recipe.reproduce.autoencoder_of, decoder=None)
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(run_folder(folder, record_of(recipe, "reproduce")))
        run, dataset = open_run(recipe, folder, progress)
        began = types_at_start(folder)
        if began is not None and began.names != run.table.names:
            raise OutputError(
                f"{folder}: has begun with the types {', '.join(began.names)}, and its tables would mix them with "
                f"{', '.join(run.table.names)}; restore the tissue.toml of {dataset}, or name another folder"
            )
        held = open_split(dataset, HELD_OUT)
        if shared := sorted(set(run.patches.cases) & set(held.cases)):
            raise InputError(
                f"{dataset}: case {shared[0]!r} is in {recipe.data.split} and in {HELD_OUT}; split by case"
            )
        comparison = Comparison(replace(run, curves=None), held)
        if state.is_main_process:
            check_measuring(comparison)
            check_training_sets(comparison, _draw_maps(run.patches, recipe.reproduce)[1])
            write_settings(run)
        state.wait_for_everyone()
        models = _train_all(comparison, dataset)
        state.wait_for_everyone()
        return _weave_and_measure(comparison, models) if state.is_main_process else {}


def equal_orders(
    patches: Patches, budget: Reproduction, crops: CropConfig | None = None
) -> tuple[list[Order], list[int]]:
    """Maps and crops that every conditioning weaves from, and the numbers of the patches that the maps belong to.

    Crops come from other patches of the same case, drawn as `crops` says: as those were that the networks learned from.
    """
    rng, at = _draw_maps(patches, budget)
    references = ReferenceCrops(patches, crops)
    nowhere = np.zeros(patches.semantic_maps.shape[1:], bool)  # no crop from the patch itself
    orders = []
    for index in at:
        wanted = patches.semantic_maps[index]
        orders.append(Order(wanted, patches.names[index], references.draw(index, nowhere, wanted, None, rng)))
    return orders, at


def _draw_maps(patches: Patches, budget: Reproduction) -> tuple[np.random.Generator, list[int]]:
    """The numbers of the patches whose maps are woven, and what draws their crops."""
    rng = np.random.default_rng((budget.seed, 1))
    return rng, rng.permutation(len(patches))[: budget.patches].tolist()


def _train_all(comparison: Comparison, dataset: Path) -> dict[str, Path]:
    run, budget = comparison.run, comparison.budget
    autoencoder, models = open_autoencoder(run), {}
    for kind in budget.conditionings:
        loop = replace(run.recipe.denoiser.loop, steps=budget.steps, seed=budget.seed)
        config = replace(run.recipe.denoiser, conditioning=kind, views=budget.views, loop=loop)
        nested = run.levels and run.levels.of.tolist()
        # The precision, since one conditioning in bf16 and another in fp32 are not compared at one equal budget.
        precision = resolved(loop.precision)
        key = comparison.key("train", asdict(config), precision, weights_hash(autoencoder), nested)
        home = run.folder / kind
        cached_result(home / "trained.json", key, lambda: _train(comparison, dataset, autoencoder, config, home))  # noqa: B023
        models[kind] = home / "model"
    return models


def _train(
    comparison: Comparison, dataset: Path, autoencoder: ModelMixin, config: DenoiserTraining, home: Path
) -> dict:
    run, total = comparison.run, config.loop.steps * config.loop.batch_size
    with (
        run.progress("latents", len(run.patches), "patches") as caching,
        run.progress(config.conditioning, total, "windows") as bar,
    ):
        denoiser = train_denoiser(
            run.patches,
            run.table.num_ids,
            autoencoder,
            config,
            home / "denoiser",
            latents=run.folder / "latents",
            caching=caching,
            on_step=reporter(bar, None, config.conditioning, config.loop.batch_size),
            levels=run.levels,
            hidden=run.hidden,
        )
    if process_state().is_main_process:
        # Without a copy limit: a conditioning that copies must be seen to copy.
        mine = replace(run, folder=home, recipe=replace(run.recipe, denoiser=config, initial_model=""))
        card = model_card(mine, denoiser, dataset, None)
        save_model(denoiser, autoencoder, run.table, home / "model", card=card)
    return {"windows": total, "parameters": sum(p.numel() for p in denoiser.parameters())}


def _weave_and_measure(comparison: Comparison, models: dict[str, Path]) -> dict:
    run, budget = comparison.run, comparison.budget
    orders, at = equal_orders(run.patches, budget, run.recipe.denoiser.crops)
    segmenter = open_segmenter(run.folder / "segmenter", run.patches, run.table, budget.segmenter, run.progress)
    real = image_set(run, run.patches, run.recipe.data.split)
    held = image_set(run, comparison.held, HELD_OUT)
    masks, sets = masks_of(orders, budget.seed), {}
    encoders = [(encoder.name, encoder.fingerprint) for encoder in open_encoders(budget.encoders)]
    for kind, model in models.items():
        woven, pipeline = run.folder / kind / "woven", HistoloomPipeline.load(model)
        _weave(comparison, pipeline, orders, woven)
        parts = (budget.weave, budget.segmenter, budget.patches, budget.pairs, encoders, budget.seed)
        key = comparison.key("measure", [str(part) for part in parts], pipeline.fingerprint)
        sets[kind] = cached_result(
            run.folder / kind / "measured.json",
            key,
            lambda: measure(comparison, held, load_images(woven), real, segmenter, orders, at, masks),  # noqa: B023
        )
    result = {
        "budget": _budget(comparison, next(iter(models.values()))),
        "sets": sets,
        "downstream": downstream_of(comparison, real.select(at), held, list(models)),
    }
    write_json(run.folder / "reproduce.json", result)
    write_text(run.folder / "tables.md", paper_tables(result))
    _draw_sheet(comparison, orders, at, list(models))
    return result


def _weave(comparison: Comparison, pipeline: HistoloomPipeline, orders: list[Order], out: Path) -> None:
    config = replace(comparison.budget.weave, seed=comparison.budget.seed)
    inputs = {"model": pipeline.fingerprint, "data": comparison.key(len(orders))}
    settings = asdict(config) | {"computed_in": pipeline.computed_in}
    record = Record(command="reproduce", format=FORMAT, settings=settings, inputs=inputs)
    with comparison.run.progress(f"weaving {out.parent.name}", len(orders), "patches") as bar:

        def weave_from(first: int):
            bar.advance(first)
            return weave(pipeline, orders, config, first, bar)

        write_patches(weave_from, comparison.run.table, out, record)


def _draw_sheet(comparison: Comparison, orders: list[Order], at: list[int], kinds: list[str]) -> None:
    run, shown = comparison.run, range(min(comparison.budget.shown, len(orders)))
    woven = {kind: read_woven(run.folder / kind / "woven").images for kind in kinds}
    rows = [
        (
            orders[i].semantic_map,
            [(c.tissue, c.pixels) for c in orders[i].crops],
            [run.patches.images[at[i]], *(images[i] for images in woven.values())],
        )
        for i in shown
    ]
    write_picture(run.folder / "sheet.png", comparison_sheet(rows, ["real", *woven], run.table))


def _budget(comparison: Comparison, model: Path) -> dict:
    run, budget, denoiser = comparison.run, comparison.budget, comparison.run.recipe.denoiser
    _, usual = make_sampler(denoiser.objective, budget.weave.sampler)
    return {
        "patches": min(budget.patches, len(run.patches)),
        "split": run.recipe.data.split,
        "held": len(comparison.held),
        "steps": budget.steps,
        "batch_size": denoiser.loop.batch_size,
        "views": budget.views,
        "objective": denoiser.objective,
        "sampler_steps": budget.weave.steps or usual,
        "map_guidance": budget.weave.map_guidance,
        "crop_guidance": budget.weave.crop_guidance,
        "guidance_interval": list(budget.weave.guidance_interval),
        "seed": budget.seed,
        "autoencoder": weights_hash(HistoloomPipeline.load(model).autoencoder)[:12],
        "encoders": distinct_names(budget.encoders),
        "downstream_steps": budget.downstream.steps,
        "downstream_batch": budget.downstream.batch_size,
        "downstream_seeds": len(budget.downstream.seeds),
    }
