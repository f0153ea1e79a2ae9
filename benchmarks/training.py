"""Seconds of the processor per patch of the denoiser's training, plain against as `histoloom train` runs it.

    python benchmarks/training.py DATASET [--model ebhi-seg] [--steps 30] [--patches 64]

Plain: fp32, NCHW, eager, batches made in the loop. Ours: `training.loop.fit`, precision chosen by the machine, one
worker that makes batches. Same network, same batches of the recipe's size, same latents. Each step of ours is followed
by a plain one, so that whatever else the machine does befalls both; the ratio is the median over the steps, of which
the first third is warm-up. Both keep the memory that `fit` tells glibc to keep.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from histoloom.fitting.loop import LoopConfig, Step, fit
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches, read_table
from histoloom.precision import use_bf16
from histoloom.training.denoiser import DenoiserObjective, DenoiserTraining, collate, prepare
from histoloom.weights import find_model


class Plain:
    """One step after the other, without what `fit` does to be fast."""

    def __init__(self, objective: DenoiserObjective, draw: Callable[[int], dict], config: LoopConfig):
        self.objective, self.draw, self.config = objective, draw, config
        self.optimizer = torch.optim.AdamW(objective.parameters(), lr=config.learning_rate)

    def step(self, number: int) -> tuple[float, float]:
        """Seconds of the processor for the step, and for its batch."""
        began, size = time.process_time(), self.config.batch_size
        batch = collate([self.draw(number * size + i) for i in range(size)])
        drawn = time.process_time()
        self.objective(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.process_time() - drawn, drawn - began


@dataclass
class Turns:
    """Called after each step of `fit`: times it, and lets the plain loop make the same step."""

    plain: Plain
    rows: list[tuple[float, float, float]] = field(default_factory=list)  # ours, plain, its batch

    def __post_init__(self):
        self._began = time.process_time()

    def __call__(self, progress: Step) -> None:
        """Seconds of the processor since the last call are the step's."""
        ours = time.process_time() - self._began
        self.rows.append((ours, *self.plain.step(progress.step - 1)))
        self._began = time.process_time()


def main() -> None:
    """Print seconds per patch and their ratio, with and without the batches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--model", default="ebhi-seg")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--patches", type=int, default=64)
    arguments = parser.parse_args()
    table, patches = read_table(Path(arguments.dataset)), load_patches(Path(arguments.dataset), "train")
    patches = patches.select(range(arguments.patches))
    autoencoder = HistoloomPipeline.load(find_model(arguments.model), torch.float32).autoencoder
    config = DenoiserTraining(views=2)
    loop = replace(config.loop, steps=arguments.steps, checkpoint_minutes=1e9)
    with tempfile.TemporaryDirectory() as folder:
        denoiser, sampler = prepare(patches, table.num_ids, autoencoder, config, Path(folder))
        objective = DenoiserObjective(denoiser, autoencoder)
        turns = Turns(Plain(copy.deepcopy(objective), sampler, loop))
        fit(objective, sampler, collate, loop, Path(folder) / "run", {}, turns)
    ours, plain, batches = zip(*turns.rows[arguments.steps // 3 :], strict=True)
    size, batch = loop.batch_size, statistics.median(batches)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {size}, bf16 {use_bf16(loop.precision)}"
    )
    for name, seconds in (("plain", plain), ("ours", ours), ("making batches, either way", batches)):
        print(f"{name}: {1e3 * statistics.median(seconds) / size:.1f} ms of the processor per patch")
    for name, more in (("the step", 0.0), ("the step and its batch", batch)):
        ratios = sorted((slow + more) / (fast + more) for slow, fast in zip(plain, ours, strict=True))
        middle = ratios[len(ratios) // 4 : -(len(ratios) // 4) or None]
        print(
            f"{name}: {statistics.median(ratios):.2f} times as fast (middle half: {middle[0]:.2f} to {middle[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
