"""Does further training still pay? The flow loss of denoisers on patches that none of them saw, on the same samples.

    python benchmarks/held_out_loss.py DATASET@val --out DIR ebhi-seg RUN/denoiser/checkpoint.safetensors

A model is a folder, the name of a bundled model, or the checkpoint of a training run, whose running average is read
with the shape of the first model. Every model sees the same windows, crops, noises and times. Also printed: the loss
without crops and without either condition, which tells how much a denoiser reads from them. With `--times`, the loss
with map and crops at these shares of noise instead: where glands take shape (0.9 and more), and where texture does.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from histoloom.conditioning.crops import CropConfig
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches
from histoloom.stain import StainJitter
from histoloom.training.denoiser import DenoiserObjective, DenoiserTraining, collate, prepare
from histoloom.weights import find_model

AVERAGE = "average.module.denoiser."
BATCH = 32


def main() -> None:
    """Print a row per model and kind of condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="FOLDER@SPLIT")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="keeps the latents of the split")
    parser.add_argument("--windows", type=int, default=1280)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--window", type=int, default=DenoiserTraining.window, help="px")
    parser.add_argument("--times", type=float, nargs="+", default=[], help="shares of noise")
    args = parser.parse_args()
    folder, _, split = args.data.partition("@")
    patches = load_patches(Path(folder), split or None)
    first = HistoloomPipeline.load(find_model(args.models[0]), torch.float32)
    shared = DenoiserTraining(stain=StainJitter(shift=0.015, brightness=0.08), texture_dropout=0.0, window=args.window)
    kinds: dict[str, tuple[float, float, float | None]] = {
        f"map and crops, {time:g} noise": (0.0, 0.0, time) for time in args.times
    }
    kinds = kinds or {"map and crops": (0.0, 0.0, None), "map": (0.0, 1.0, None), "nothing": (1.0, 1.0, None)}
    print(f"{len(patches)} patches of {len(set(patches.cases))} cases, {args.windows} windows, seed {args.seed}")
    print("| model | shown | loss | less than the first [95 %, over windows] |\n|---|---|---|---|")
    base: dict[str, np.ndarray] = {}
    for name in args.models:
        denoiser = read(name, first)
        for kind, (no_map, no_crops, time) in kinds.items():
            config = replace(shared, map_dropout=no_map, crop_dropout=no_crops)
            config = replace(config, loop=replace(config.loop, seed=args.seed))
            _, sampler = prepare(patches, denoiser.num_types, first.autoencoder, config, args.out)
            sampler.cache.mean[:], sampler.cache.std[:] = denoiser.config["latent_mean"], denoiser.config["latent_std"]
            losses = measure(denoiser, sampler, first.autoencoder, args.windows, time)
            less = base.setdefault(kind, losses) - losses
            reach = 1.96 * less.std() / len(less) ** 0.5
            print(f"| {name} | {kind} | {losses.mean():.4f} | {less.mean():+.4f} +- {reach:.4f} |", flush=True)


def read(name: str, first: HistoloomPipeline) -> Denoiser:
    """The denoiser of a model, or of a checkpoint."""
    if not name.endswith(".safetensors"):
        return HistoloomPipeline.load(find_model(name), torch.float32).denoiser
    tensors = {k.removeprefix(AVERAGE): v for k, v in load_file(name).items() if k.startswith(AVERAGE)}
    denoiser = HistoloomPipeline.load(find_model("ebhi-seg"), torch.float32).denoiser
    denoiser.load_state_dict(tensors)
    return denoiser.eval()


@torch.inference_mode()
def measure(denoiser: Denoiser, sampler, autoencoder, windows: int, time: float | None) -> np.ndarray:
    """The mean loss of every batch, at one time or at drawn ones."""
    objective, losses = DenoiserObjective(denoiser, autoencoder), []
    for start in range(0, windows, BATCH):
        batch = collate([sampler(n) for n in range(start, start + BATCH)], CropConfig.largest)
        if time is not None:
            batch["time_draw"] = torch.full_like(batch["time_draw"], time).logit()
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(float(objective(batch)["loss"]))
    return np.asarray(losses)


if __name__ == "__main__":
    main()
