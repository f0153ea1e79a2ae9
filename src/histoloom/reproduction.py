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

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin

from histoloom.conditioning.crops import ReferenceCrops
from histoloom.conditioning.likeness import best_match
from histoloom.encoders.encoder import open_encoder
from histoloom.errors import InputError, OutputError
from histoloom.evaluation.copying import copy_rate, copy_threshold
from histoloom.evaluation.downstream import check_sets, pooled, predict, train_deeplab
from histoloom.evaluation.left_out import measure_left_out, pasted_squares
from histoloom.evaluation.map_fidelity import confusion
from histoloom.evaluation.paper_tables import paper_tables
from histoloom.evaluation.report import Evaluation, EvaluationConfig, evaluate, to_json
from histoloom.evaluation.segmenter import SEGMENTER, Segmenter, load_segmenter, save_segmenter, train_segmenter
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.experiments import (
    MakeBar,
    Recipe,
    Reproduction,
    keep_recipe,
    open_autoencoder,
    open_dataset,
    open_split,
    reporter,
    save_model,
)
from histoloom.generation.contact_sheet import comparison_sheet
from histoloom.generation.export import read_woven, write_patches
from histoloom.generation.patches import Order, weave
from histoloom.models.autoencoder import weights_hash
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import Patches, read_table
from histoloom.tissue import TissueTable
from histoloom.training.denoiser import DenoiserTraining, train_denoiser
from histoloom.training.latents import cache_latents
from histoloom.training.loop import process_state
from histoloom.weights import find_model

HELD = "val"  # the split that everything is measured against
REAL = "real"  # the training set of real patches, whose maps were woven


@dataclass(frozen=True)
class _Ground:
    """What every step of a run stands on."""

    recipe: Recipe
    folder: Path
    table: TissueTable
    train: Patches
    held: Patches
    make_bar: MakeBar

    @property
    def budget(self) -> Reproduction:
        return self.recipe.reproduce

    def key(self, *more: object) -> str:
        """A hash of the data and of what else decides a step."""
        told = json.dumps([self.train.fingerprint(), self.held.fingerprint(), *more], default=str)
        return hashlib.sha256(told.encode()).hexdigest()


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
    ground = _Ground(recipe, folder, read_table(dataset), train, held, make_bar)
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
        orders.append(Order(wanted, patches.sources[index], references.draw(index, nowhere, wanted, None, rng)))
    return orders, at


def _train_all(ground: _Ground) -> dict[str, Path]:
    budget, recipe = ground.budget, ground.recipe
    if budget.autoencoder_of:
        autoencoder = HistoloomPipeline.load(find_model(budget.autoencoder_of), torch.float32).autoencoder
    else:
        autoencoder = open_autoencoder(recipe, ground.train, ground.folder, ground.make_bar, None)
    models = {}
    for kind in budget.conditionings:
        loop = replace(recipe.denoiser.loop, steps=budget.steps, seed=budget.seed)
        config = replace(recipe.denoiser, conditioning=kind, views=budget.views, loop=loop)
        key = ground.key("train", asdict(config), weights_hash(autoencoder))
        home = ground.folder / kind
        _kept(home / "trained.json", key, lambda: _train(ground, autoencoder, config, home))  # noqa: B023 (called here)
        models[kind] = home / "model"
    return models


def _train(ground: _Ground, autoencoder: ModelMixin, config: DenoiserTraining, home: Path) -> dict:
    latents, cached = ground.folder / "latents", home / "denoiser"
    with ground.make_bar("latents", len(ground.train), "patches") as bar:
        cache_latents(
            autoencoder, ground.train, config.views, config.loop.seed, config.stain, latents, lambda _: bar.advance()
        )
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
        )
    if process_state().is_main_process:
        save_model(denoiser, autoencoder, ground.table, home / "model")
    return {"windows": total, "parameters": sum(p.numel() for p in denoiser.parameters())}


def _weave_and_measure(ground: _Ground, models: dict[str, Path]) -> dict:
    budget = ground.budget
    orders, at = place_orders(ground.train, budget)
    segmenter = _segmenter(ground)
    real, held = (_image_set(ground, patches, split) for patches, split in (
        (ground.train, ground.recipe.data.split), (ground.held, HELD)
    ))  # fmt: skip
    sets = {}
    for kind, model in models.items():
        woven, pipeline = ground.folder / kind / "woven", HistoloomPipeline.load(model)
        _weave(ground, pipeline, orders, woven)
        masks = _masks(ground, pipeline, orders)
        parts = (budget.weave, budget.segmenter, budget.patches, budget.pairs, budget.encoders, budget.seed)
        key = ground.key("measure", [str(part) for part in parts], pipeline.fingerprint)
        sets[kind] = _kept(
            ground.folder / kind / "measured.json",
            key,
            lambda: _measure(ground, held, load_images(woven), real, segmenter, orders, at, masks),  # noqa: B023
        )
    result = {
        "budget": _budget(ground, next(iter(models.values()))),
        "sets": sets,
        "downstream": _downstream(ground, real.select(at), held, list(models)),
    }
    _write(ground.folder / "reproduce.json", json.dumps(result, indent=2) + "\n")
    _write(ground.folder / "tables.md", paper_tables(result))
    _sheet(ground, orders, at, list(models))
    return result


def _weave(ground: _Ground, pipeline: HistoloomPipeline, orders: list[Order], out: Path) -> None:
    config = replace(ground.budget.weave, seed=ground.budget.seed)
    record = {"model_hash": pipeline.fingerprint, "config": asdict(config), "key": ground.key(len(orders))}
    with ground.make_bar(f"weaving {out.parent.name}", len(orders), "patches") as bar:

        def weave_from(first: int):
            bar.advance(first)
            return weave(pipeline, orders, config, first, bar.advance)

        write_patches(weave_from, ground.table, out, record)


def _masks(ground: _Ground, pipeline: HistoloomPipeline, orders: list[Order]) -> np.ndarray:
    """Where crops in place lie, in each woven patch; left out of all conditionings alike."""
    multiple, seed = pipeline.denoiser.multiple, ground.budget.seed
    return np.stack([pasted_squares(o.semantic_map, o.crops, seed + i, multiple) for i, o in enumerate(orders)])


def _measure(
    ground: _Ground,
    held: ImageSet,
    fake: ImageSet,
    train: ImageSet,
    segmenter: Segmenter,
    orders: list[Order],
    at: list[int],
    masks: np.ndarray,
) -> dict:
    budget, cache = ground.budget, ground.folder / "features.sqlite"
    config = EvaluationConfig(budget.encoders, max(budget.patches, 2), budget.pairs, budget.seed)
    found = evaluate(held, fake, train, config, segmenter, cache, ground.make_bar)
    return {
        "report": to_json(found),
        "crops": _crop_copies(ground, fake, train.select(at), orders),
        "left_out": _left_out(ground, found, dict(zip(fake.names, masks, strict=True)), cache),
        "left_out_share": float(masks.mean()),
    }


def _left_out(ground: _Ground, found: Evaluation, mask_of: dict[str, np.ndarray], cache: Path) -> dict:
    masks = np.stack([mask_of[name] for name in found.sets.fake.names])
    total = sum(len(getattr(found.sets, side)) for side in ("reference", "control", "fake"))
    results = {}
    for name in ground.budget.encoders:
        with ground.make_bar(f"{name}, crops left out", total, "images") as bar:
            figures = measure_left_out(found.sets, masks, open_encoder(name), cache, bar.advance)
        results[name] = [asdict(figure) for figure in figures]
    return results


def _crop_copies(ground: _Ground, fake: ImageSet, real: ImageSet, orders: list[Order]) -> dict:
    """Crops found again in what was woven from them, and in the `real` patch of the map, whose case they share."""
    budget = ground.budget
    rng, cases = np.random.default_rng((budget.seed, 3)), np.asarray(real.cases)
    used = [(i, crop) for i, order in enumerate(orders) for crop in order.crops]
    if not used:
        return {"woven": None, "same_case": None}
    chosen = [used[i] for i in rng.permutation(len(used))[: budget.pairs]]
    woven, same_case, unrelated = [], [], []
    with ground.make_bar("crops searched for", len(chosen) + budget.pairs, "crops") as bar:
        for i, crop in chosen:
            woven.append(best_match(crop.pixels, fake.images[i]))
            same_case.append(best_match(crop.pixels, real.images[i]))
            bar.advance()
        for n in range(budget.pairs):
            i, crop = used[n % len(used)]
            others = np.flatnonzero(cases != cases[i])
            unrelated.append(best_match(crop.pixels, real.images[rng.choice(others)]))
            bar.advance()
    try:
        threshold = copy_threshold(np.asarray(unrelated))
        rates = {name: copy_rate(np.asarray(s), threshold) for name, s in (("woven", woven), ("same_case", same_case))}
    except InputError:  # too many crops are flat
        return {"woven": None, "same_case": None}
    return {name: asdict(rate) for name, rate in rates.items()}


def _downstream(ground: _Ground, real: ImageSet, held: ImageSet, kinds: list[str]) -> dict:
    config = ground.budget.downstream
    sets = {kind: load_images(ground.folder / kind / "woven") for kind in kinds} | {REAL: real}
    for images in sets.values():
        check_sets(real, images, held)
    found = {}
    with ground.make_bar("segmenters", len(sets) * len(config.seeds) * config.steps, "steps") as bar:
        for name, images in sets.items():
            counts = []
            for seed in config.seeds:
                key = ground.key("downstream", asdict(config), seed, _hash(images))
                kept = _kept(
                    ground.folder / "downstream" / f"{name}-{seed}.json",
                    key,
                    lambda: _judge(images, held, seed, ground, bar.advance),  # noqa: B023
                )
                counts.append(np.asarray(kept["confusion"], np.int64))
            found[name] = asdict(pooled(counts, held.cases))
    return _plain(found)


def _judge(images: ImageSet, held: ImageSet, seed: int, ground: _Ground, on_step: Callable[[int], None]) -> dict:
    types = ground.table.num_ids
    network = train_deeplab([images], types, ground.budget.downstream, seed, on_step)
    return {"confusion": confusion(predict(network, held.images), held.semantic_maps, types).tolist()}


def _segmenter(ground: _Ground) -> Segmenter:
    config, home = ground.budget.segmenter, ground.folder / "segmenter"
    if (home / SEGMENTER).is_file() and load_segmenter(home).config == config:
        return load_segmenter(home)
    with ground.make_bar("segmenter", config.steps, "steps") as bar:
        trained = train_segmenter(
            ground.train.images,
            ground.train.semantic_maps,
            ground.table.num_ids,
            config,
            lambda _, loss: bar.advance(1, f"loss {loss:.3f}"),
        )
    save_segmenter(trained, home)
    return trained


def _sheet(ground: _Ground, orders: list[Order], at: list[int], kinds: list[str]) -> None:
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


def _image_set(ground: _Ground, patches: Patches, split: str) -> ImageSet:
    return ImageSet(
        "dataset", "patch dataset", split, "PNG", patches.images, patches.semantic_maps, patches.cases,
        patches.sources, ground.table,
    )  # fmt: skip


def _budget(ground: _Ground, model: Path) -> dict:
    budget, denoiser = ground.budget, ground.recipe.denoiser
    return {
        "patches": min(budget.patches, len(ground.train)), "split": ground.recipe.data.split, "held": len(ground.held),
        "steps": budget.steps, "batch_size": denoiser.loop.batch_size, "views": budget.views,
        "objective": denoiser.objective, "sampler_steps": budget.weave.steps or "the sampler's usual",
        "map_guidance": budget.weave.map_guidance, "crop_guidance": budget.weave.crop_guidance, "seed": budget.seed,
        "autoencoder": weights_hash(HistoloomPipeline.load(model).autoencoder)[:12], "encoders": list(budget.encoders),
        "downstream_steps": budget.downstream.steps, "downstream_batch": budget.downstream.batch_size,
        "downstream_seeds": len(budget.downstream.seeds),
    }  # fmt: skip


def _hash(images: ImageSet) -> str:
    return hashlib.sha256(b"".join(images.keys()) + images.semantic_maps.tobytes()).hexdigest()


def _kept(path: Path, key: str, make: Callable[[], dict]) -> dict:
    """The result in `path`, where an earlier run with the same `key` has left one; else it is made and written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = _plain(make())
    if process_state().is_main_process:
        _write(path, json.dumps({"key": key, "result": result}) + "\n")
    return result


def _plain(value: object) -> object:
    """As JSON has it: nan becomes null, a tuple a list."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); free some space") from None
