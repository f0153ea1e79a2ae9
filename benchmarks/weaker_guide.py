"""Does guidance by a weaker model (autoguidance, Karras et al. 2024) bring woven patches nearer to tissue?

    python benchmarks/weaker_guide.py DATASET@SPLIT MODEL --weak WEAKER --ways 8,1.5,3,1 8,1.5,3,2.5,flat

A way is steps, map guidance, crop guidance and the weight of the weaker model; at 1 it has no effect. The weaker model
guides the prediction that sees map and crops, as `[denoiser.guide]` trains it: v_mc becomes v_weak + weight (v_mc -
v_weak), and guidance by map and crops, within its interval, goes on from there. With `flat`, (weight - 1) (v_mc -
v_weak) is added to the guided prediction instead, and with `all`, each prediction that guidance takes is guided by the
same prediction of the weaker model. With `color`, the weaker model guides nothing but the mean of each latent channel:
a weight below 1 takes back what a trained guide does to colors. With `crop-color`, the weaker model has no part: what
the weight exceeds the crop guidance by is added to the crop guidance of these means, at all steps. Patches are those of
`few_steps.py` (crops of other patches of the case, seed 0), every second of 200; distance, precision, recall and
coverage are from all real patches of the split (`histoloom-small`). Stain is the correlation of the mean color of crop
and woven region; above the table, that of crop and real region.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from quality_measures import measure_stain
from quality_task import Task, make_task

from histoloom.encoders.encoder import open_encoder
from histoloom.generation.order import Order
from histoloom.metrics import frechet_distance, prdc
from histoloom.models.guided import predict, weights_of
from histoloom.models.pipeline import HistoloomPipeline, to_images
from histoloom.models.sampling import Sampling
from histoloom.models.schedulers import noise_shares
from histoloom.patches.store import load_patches
from histoloom.weights import find_model

BATCH = 8


@dataclass(frozen=True)
class Way:
    """How patches are woven."""

    sampling: Sampling
    weight: float
    kind: str

    @classmethod
    def read(cls, text: str) -> "Way":
        """From STEPS,MAP,CROP,WEIGHT[,flat|all|color|crop-color]."""
        steps, by_map, by_crop, weight, *kind = text.split(",")
        sampling = Sampling(steps=int(steps), map_guidance=float(by_map), crop_guidance=float(by_crop))
        return cls(sampling, float(weight), kind[0] if kind else "")


def weave(
    pipeline: HistoloomPipeline, weaker: HistoloomPipeline, orders: Sequence[Order], seeds: list[int], way: Way
) -> list[np.ndarray]:
    """A batch of patches whose maps have one shape."""
    maps, crops = [order.semantic_map for order in orders], [order.crops for order in orders]
    scheduler, sampling = pipeline.resolve(way.sampling)
    denoiser = pipeline.denoiser
    rows, columns = denoiser.margins(maps[0].shape)
    height, width = maps[0].shape
    draws = [np.random.default_rng(seed) for seed in seeds]
    latents = pipeline._noise(draws, (height + sum(rows), width + sum(columns)))
    shown = {(True, True), (True, False), (False, False)}
    contexts = {
        side: {s: side._read(maps, crops if s[1] else [[]] * len(maps), s[0], seeds) for s in shown}
        for side in (pipeline, weaker)
    }

    def one(side: HistoloomPipeline, t: torch.Tensor, weights: dict) -> torch.Tensor:
        return predict(side.denoiser, latents, t, [([w], contexts[side][s]) for s, w in weights.items()])

    scheduler.set_timesteps(sampling.steps, device=latents.device)
    for t, share in zip(scheduler.timesteps, noise_shares(scheduler, denoiser.objective), strict=True):
        weights = weights_of(denoiser, sampling, True, sampling.acts(share))
        predicted, further = one(pipeline, t, weights), way.weight - 1
        if way.kind == "crop-color":
            difference = one(pipeline, t, {(True, True): 1.0, (True, False): -1.0})
            predicted = predicted + (way.weight - sampling.crop_guidance) * _mean(difference)
        elif further and way.kind == "all":
            predicted = predicted + further * (predicted - one(weaker, t, weights))
        elif further:
            full = {(True, True): 1.0}
            further *= 1.0 if way.kind == "flat" else weights[True, True]
            difference = one(pipeline, t, full) - one(weaker, t, full)
            predicted = predicted + further * (_mean(difference) if way.kind == "color" else difference)
        latents = scheduler.step(predicted, t, latents, return_dict=False)[0]
    images = to_images(pipeline.decode_latents(latents))
    return list(images[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width].cpu().numpy())


def _mean(latents: torch.Tensor) -> torch.Tensor:
    return latents.mean((-2, -1), keepdim=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="FOLDER@SPLIT")
    parser.add_argument("model")
    parser.add_argument("--weak", required=True, help="an earlier or smaller model with the same encoder")
    parser.add_argument("--ways", nargs="+", required=True, metavar="STEPS,MAP,CROP,WEIGHT[,KIND]")
    arguments = parser.parse_args()
    folder, _, split = arguments.dataset.partition("@")
    patches = load_patches(Path(folder), split)
    task = make_task(patches, 200, 0, 1)
    task = replace(task, chosen=task.chosen[::2], orders=task.orders[::2])
    orders = task.orders
    pipeline, weaker = (HistoloomPipeline.load(find_model(name)) for name in (arguments.model, arguments.weak))
    encoder = open_encoder("histoloom-small")
    real = encoder(patches.images)
    print(f"stain of real regions: {_stain(task, patches.images[task.chosen], 'real')}\n")
    print("| way | CPU s per patch | distance | precision, recall, coverage | stain L / a / b |\n|---|---|---|---|---|")
    for text in arguments.ways:
        way, begun, made = Way.read(text), time.process_time(), []
        with torch.no_grad():
            for start in range(0, len(orders), BATCH):
                part = orders[start : start + BATCH]
                made += weave(pipeline, weaker, part, list(range(start, start + len(part))), way)
        cost = (time.process_time() - begun) / len(made)
        features = encoder(np.stack(made))
        means = prdc(real, features).means()
        likeness = ", ".join(f"{means[key]:.2f}" for key in ("precision", "recall", "coverage"))
        stain = _stain(task, np.stack(made), "woven")
        print(f"| {text} | {cost:.2f} | {frechet_distance(real, features):.1f} | {likeness} | {stain} |", flush=True)


def _stain(task: Task, images: np.ndarray, which: str) -> str:
    return " / ".join(f"{value:.3f}" for value in measure_stain(task, images)[which].correlation)


if __name__ == "__main__":
    main()
