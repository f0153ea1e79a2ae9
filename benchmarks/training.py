"""Patches per second of the denoiser's training, plain against as `histoloom train` runs it, each in its own process.

    python benchmarks/training.py DATASET [--model ebhi-seg] [--steps 60] [--patches 128]

Plain: fp32, NCHW, batches made in the loop, glibc's own ways with freed memory. Ours: `training.loop.fit`, precision
chosen by the machine. Same network, same batches of the recipe's size, same latents; the first third of the steps is
warm-up.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches, read_table
from histoloom.training.denoiser import DenoiserObjective, DenoiserTraining, collate, prepare
from histoloom.training.loop import LoopConfig, Progress, fit, use_bf16
from histoloom.weights import find_model


def plain(objective: DenoiserObjective, draw, config: LoopConfig) -> tuple[float, float]:
    """Patches per second, and the share of the time that batches were waited for."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=config.learning_rate)
    waited = start = 0.0
    for step in range(config.steps):
        if step == config.steps // 3:
            waited, start = 0.0, time.perf_counter()
        began = time.perf_counter()
        batch = collate([draw(step * config.batch_size + i) for i in range(config.batch_size)])
        waited += time.perf_counter() - began
        objective(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    elapsed = time.perf_counter() - start
    return (config.steps - config.steps // 3) * config.batch_size / elapsed, waited / elapsed


def ours(objective: DenoiserObjective, draw, config: LoopConfig, folder: Path) -> tuple[float, float]:
    """The same by `fit`, without its checkpoints."""
    marks: list[float] = []
    shares: list[float] = []

    def on_step(progress: Progress) -> None:
        marks.append(time.perf_counter())
        shares.append(progress.waiting)

    fit(objective, draw, collate, config, folder, {}, on_step)
    counted = marks[config.steps // 3 - 1 :]
    return (len(counted) - 1) * config.batch_size / (counted[-1] - counted[0]), shares[-2]


def measure(kind: str, arguments: argparse.Namespace) -> dict:
    """One way, in this process."""
    table, patches = read_table(Path(arguments.dataset)), load_patches(Path(arguments.dataset), "train")
    patches = patches.select(range(arguments.patches))
    pipeline = HistoloomPipeline.load(find_model(arguments.model), torch.float32)
    config = DenoiserTraining(views=2, loop=LoopConfig(steps=arguments.steps, batch_size=32, workers=1))
    with tempfile.TemporaryDirectory() as folder:
        denoiser, sampler = prepare(patches, table.num_ids, pipeline.autoencoder, config, Path(folder))
        objective = DenoiserObjective(denoiser, pipeline.autoencoder)
        if kind == "plain":
            rate, waiting = plain(objective, sampler, config.loop)
        else:
            rate, waiting = ours(objective, sampler, replace(config.loop, checkpoint_minutes=1e9), Path(folder) / "run")
    return {"kind": kind, "rate": rate, "waiting": waiting, "bf16": kind == "ours" and use_bf16("auto")}


def main() -> None:
    """Run both, each in a process of its own, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--model", default="ebhi-seg")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--patches", type=int, default=128)
    parser.add_argument("--only", choices=("plain", "ours"))
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    found = {}
    for kind in ("plain", "ours"):
        done = subprocess.run(
            [sys.executable, *sys.argv, "--only", kind], check=True, capture_output=True, text=True
        )  # fmt: skip
        found[kind] = json.loads(done.stdout.splitlines()[-1])
        row = found[kind]
        print(f"{kind}: {row['rate']:.1f} patches/s, {row['waiting']:.1%} waiting for data, bf16 {row['bf16']}")
    print(f"ratio {found['ours']['rate'] / found['plain']['rate']:.2f}")


if __name__ == "__main__":
    main()
