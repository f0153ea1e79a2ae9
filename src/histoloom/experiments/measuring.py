"""What the conditionings of a reproduction have woven, measured against the same real patches."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from histoloom.encoders.encoder import open_encoder
from histoloom.errors import InputError
from histoloom.evaluation.crop_search import REDRAWN
from histoloom.evaluation.downstream import check_sets, pooled, predict, train_deeplab
from histoloom.evaluation.left_out import measure_left_out, pasted_squares
from histoloom.evaluation.report import Evaluation, EvaluationConfig, evaluate, to_json
from histoloom.evaluation.segmenter import Segmenter
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.experiments.ground import Ground, kept, plain
from histoloom.generation.patches import Order
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import copy_rate, copy_threshold
from histoloom.metrics.map_fidelity import confusion
from histoloom.patches.store import Patches

REAL = "real"  # the training set of real patches, whose maps were woven


def masks_of(ground: Ground, orders: list[Order]) -> np.ndarray:
    """Where crops in place lie, in each woven patch; left out of all conditionings alike."""
    seed = ground.budget.seed
    return np.stack([pasted_squares(o.semantic_map, o.crops, seed + i) for i, o in enumerate(orders)])


def measure(
    ground: Ground,
    held: ImageSet,
    fake: ImageSet,
    train: ImageSet,
    segmenter: Segmenter,
    orders: list[Order],
    at: list[int],
    masks: np.ndarray,
) -> dict:
    """The whole report on `fake`, how many of its crops reappear, and its distance with `masks` left out.

    `orders` are what was woven, from the maps of the patches `at` of `train`.
    """
    budget, cache = ground.budget, ground.folder / "features.sqlite"
    config = EvaluationConfig(budget.encoders, max(budget.patches, 2), budget.pairs, budget.seed)
    found = evaluate(held, fake, train, config, segmenter, cache, ground.make_bar)
    return {
        "report": to_json(found),
        "crops": _crop_copies(ground, fake, train.select(at), orders),
        "left_out": _left_out(ground, found, dict(zip(fake.names, masks, strict=True)), cache),
        "left_out_share": float(masks.mean()),
    }


def _left_out(ground: Ground, found: Evaluation, mask_of: dict[str, np.ndarray], cache: Path) -> dict:
    masks = np.stack([mask_of[name] for name in found.sets.fake.names])
    total = sum(len(getattr(found.sets, side)) for side in ("reference", "control", "fake"))
    results = {}
    for name in ground.budget.encoders:
        with ground.make_bar(f"{name}, crops left out", total, "images") as bar:
            figures = measure_left_out(found.sets, masks, open_encoder(name), cache, bar.advance)
        results[name] = [asdict(figure) for figure in figures]
    return results


def _crop_copies(ground: Ground, fake: ImageSet, real: ImageSet, orders: list[Order]) -> dict:
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
        for n in range(REDRAWN * budget.pairs):
            i, crop = used[n % len(used)]
            others = np.flatnonzero(cases != cases[i])
            if not others.size or len(unrelated) == budget.pairs:
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


def downstream_of(ground: Ground, real: ImageSet, held: ImageSet, kinds: list[str]) -> dict:
    """What DeepLabv3+ learns from what each of `kinds` has woven, and from the `real` patches of the same maps."""
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
                judged = kept(
                    ground.folder / "downstream" / f"{name}-{seed}.json",
                    key,
                    lambda: _judge(images, held, seed, ground, bar.advance),  # noqa: B023
                )
                counts.append(np.asarray(judged["confusion"], np.int64))
            found[name] = asdict(pooled(counts, held.cases))
    return plain(found)


def _judge(images: ImageSet, held: ImageSet, seed: int, ground: Ground, on_step: Callable[[int], None]) -> dict:
    types = ground.table.num_ids
    network = train_deeplab([images], types, ground.budget.downstream, seed, on_step)
    return {"confusion": confusion(predict(network, held.images), held.semantic_maps, types).tolist()}


def image_set(ground: Ground, patches: Patches, split: str) -> ImageSet:
    """Patches as the metrics take them."""
    return ImageSet(
        "dataset", "patch dataset", split, "PNG", patches.images, patches.semantic_maps, patches.cases,
        patches.names, ground.table,
    )  # fmt: skip


def _hash(images: ImageSet) -> str:
    return hashlib.sha256(b"".join(images.keys()) + images.semantic_maps.tobytes()).hexdigest()
