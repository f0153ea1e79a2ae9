"""Measure what every conditioning of a reproduction has woven against the same real patches."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from histoloom.encoders.encoder import open_encoders
from histoloom.errors import InputError
from histoloom.evaluation.copy_search import UNRELATED
from histoloom.evaluation.crop_search import REDRAWN
from histoloom.evaluation.deeplab import make_network
from histoloom.evaluation.downstream import check_sets, judge, pooled, train_deeplab
from histoloom.evaluation.left_out import measure_left_out, pasted_squares
from histoloom.evaluation.plain import plain
from histoloom.evaluation.report import Evaluation, EvaluationConfig, evaluate, to_json
from histoloom.evaluation.segmenter import Segmenter
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.experiments.context import Run
from histoloom.experiments.recipe import Reproduction
from histoloom.fitting.results import cached_result
from histoloom.generation.order import Order
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import copy_rate, copy_threshold
from histoloom.models.schedulers import make_sampler
from histoloom.patches.store import Patches
from histoloom.progress import Bar

REAL = "real"  # the training set of real patches whose maps were woven
HELD_OUT = "val"  # the split that everything is measured against


@dataclass(frozen=True)
class Comparison:
    """A run and the held-out patches that its results are measured against."""

    run: Run
    held: Patches

    @property
    def budget(self) -> Reproduction:
        """What the recipe says about the comparison."""
        return self.run.recipe.reproduce

    def key(self, *more: object) -> str:
        """A hash of all patches and of whatever else decides a result."""
        return self.run.key(self.held.fingerprint(), *more)


def check_measuring(comparison: Comparison) -> None:
    """Raise, before any training, what weaving and measuring would raise after it."""
    make_sampler(comparison.run.recipe.denoiser.objective, comparison.budget.weave.sampler)
    open_encoders(comparison.budget.encoders)
    make_network(comparison.budget.downstream, comparison.run.table.num_ids)
    if len(comparison.held) < 2:
        raise InputError(f"split {HELD_OUT} has one patch, which measures nothing; give it 2 or more")


def check_training_sets(comparison: Comparison, at: list[int]) -> None:
    """Raise, before any training, what `downstream_of` would raise after it: for training patches that the held-out
    ones show again, and for patches too small. `at` are the numbers of the patches whose maps will be woven."""
    run = comparison.run
    real = image_set(run, run.patches.select(at), run.recipe.data.split)
    woven = replace(real, cases=real.names)  # as woven patches name their maps
    check_sets(real, woven, image_set(run, comparison.held, HELD_OUT))


def masks_of(orders: list[Order], seed: int) -> np.ndarray:
    """The places of crops in each woven patch; they are left out for all conditionings alike."""
    return np.stack([pasted_squares(o.semantic_map, o.crops, seed + i) for i, o in enumerate(orders)])


def measure(
    comparison: Comparison,
    held: ImageSet,
    fake: ImageSet,
    train: ImageSet,
    segmenter: Segmenter,
    orders: list[Order],
    at: list[int],
    masks: np.ndarray,
) -> dict:
    """The report on `fake`, the share of its crops that reappear, and its distance with `masks` left out.

    `orders` were woven from the maps of the patches `at` of `train`.
    """
    budget, cache = comparison.budget, comparison.run.folder / "features.sqlite"
    config = EvaluationConfig(
        encoders=budget.encoders, most=max(budget.patches, 2), pairs=budget.pairs, seed=budget.seed
    )
    found = evaluate(held, fake, train, config, segmenter, cache, comparison.run.progress)
    return {
        "report": to_json(found),
        "crops": _crop_copies(comparison, fake, train.select(at), orders),
        "left_out": _left_out(comparison, found, dict(zip(fake.names, masks, strict=True)), cache),
        "left_out_share": float(masks.mean()),
    }


def _left_out(comparison: Comparison, found: Evaluation, mask_of: dict[str, np.ndarray], cache: Path) -> dict:
    masks = np.stack([mask_of[name] for name in found.sets.fake.names])
    total = sum(len(getattr(found.sets, side)) for side in ("reference", "control", "fake"))
    results = {}
    for encoder in open_encoders(comparison.budget.encoders):
        with comparison.run.progress(f"{encoder.name}, crops left out", total, "images") as bar:
            figures = measure_left_out(found.sets, masks, encoder, cache, bar)
        results[encoder.name] = [asdict(figure) for figure in figures]
    return results


def _crop_copies(comparison: Comparison, fake: ImageSet, real: ImageSet, orders: list[Order]) -> dict:
    """How many crops reappear in what was woven from them, and in the `real` patch of their case with the same map."""
    budget = comparison.budget
    rng, cases = np.random.default_rng((budget.seed, 3)), np.asarray(real.cases)
    used = [(i, crop) for i, order in enumerate(orders) for crop in order.crops]
    if not used:
        return {"woven": None, "same_case": None}
    chosen = [used[i] for i in rng.permutation(len(used))[: budget.pairs]]
    woven, same_case, unrelated = [], [], []
    with comparison.run.progress("crops searched for", len(chosen) + UNRELATED, "crops") as bar:
        for i, crop in chosen:
            woven.append(best_match(crop.pixels, fake.images[i]))
            same_case.append(best_match(crop.pixels, real.images[i]))
            bar.advance()
        for n in range(REDRAWN * UNRELATED):
            i, crop = used[n % len(used)]
            others = np.flatnonzero(cases != cases[i])
            if not others.size or len(unrelated) == UNRELATED:
                break
            score = best_match(crop.pixels, real.images[rng.choice(others)])
            if np.isfinite(score):
                unrelated.append(score)
                bar.advance()
    try:
        threshold = copy_threshold(np.asarray(unrelated))
        rates = {name: copy_rate(np.asarray(s), threshold) for name, s in (("woven", woven), ("same_case", same_case))}
    except InputError:  # too many crops are flat, or all maps are of one case
        return {"woven": None, "same_case": None}
    return {name: asdict(rate) for name, rate in rates.items()}


def downstream_of(comparison: Comparison, real: ImageSet, held: ImageSet, kinds: list[str]) -> dict:
    """How well DeepLabv3+ learns from the patches that each of `kinds` has woven, and from `real` ones."""
    config = comparison.budget.downstream
    sets = {kind: load_images(comparison.run.folder / kind / "woven") for kind in kinds} | {REAL: real}
    for images in sets.values():
        check_sets(real, images, held)
    found = {}
    with comparison.run.progress("segmenters", len(sets) * len(config.seeds) * config.steps, "steps") as bar:
        for name, images in sets.items():
            counts = []
            for seed in config.seeds:
                key = comparison.key("downstream", config.identity(), seed, _hash(images))
                judged = cached_result(
                    comparison.run.folder / "downstream" / f"{name}-{seed}.json",
                    key,
                    lambda: _judge(images, held, seed, comparison, bar),  # noqa: B023
                )
                counts.append(np.asarray(judged["confusion"], np.int64))
            found[name] = asdict(pooled(counts, held.cases))
    return cast(dict, plain(found))


def _judge(images: ImageSet, held: ImageSet, seed: int, comparison: Comparison, bar: Bar) -> dict:
    types = comparison.run.table.num_ids
    network = train_deeplab([images], types, comparison.budget.downstream, seed, bar)
    return {"confusion": judge(network, held, types).tolist()}


def image_set(run: Run, patches: Patches, split: str) -> ImageSet:
    """Patches in the form that the metrics take."""
    return ImageSet(
        "dataset", "patch dataset", split, "PNG", patches.images, patches.semantic_maps, patches.cases,
        patches.names, run.table,
    )  # fmt: skip


def _hash(images: ImageSet) -> str:
    return hashlib.sha256(b"".join(images.keys()) + images.maps.tobytes()).hexdigest()
