"""What one search for a copied part costs, against the same search with its local mean taken in one pass.

    python benchmarks/copy_search.py DATASET@SPLIT --pairs 40

A crop of 96 px of each patch is searched for in another patch. The mean over a square of 21 px is taken first along
one axis, then along the other; before, `torch` added all 441 pixels. Both are timed in turns, by processor seconds.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from histoloom.metrics import copy_score
from histoloom.patches.store import load_patches


def in_one_pass(image: np.ndarray) -> np.ndarray:
    """The optical density less its local mean, as `copy_score` took it before 2026-11-29."""
    density = torch.from_numpy(copy_score._OD_OF_BYTE[image].mean(axis=-1))[None]
    edge = copy_score.SURROUNDINGS
    around = F.avg_pool2d(density, edge, stride=1, padding=edge // 2, count_include_pad=False)
    return (density - around)[0].numpy()


def main() -> None:
    """Print milliseconds per density and per search, their ratios, and the largest difference of a score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder, _, split = args.dataset.partition("@")
    images = load_patches(Path(folder), split).images[: args.pairs]
    ways, separable = {"in one pass": in_one_pass, "by axes": copy_score._density}, copy_score._density
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    scores = {}
    for _ in range(args.rounds):
        for name, density in ways.items():
            copy_score._density = density
            start = time.process_time()
            scores[name] = [
                copy_score.best_match(image[:96, :96], images[(i + 7) % len(images)]) for i, image in enumerate(images)
            ]
            middle = time.process_time()
            for image in images:
                density(image)
            spent[name].append((middle - start, time.process_time() - middle))
    copy_score._density = separable
    best = {name: np.min(times, axis=0) * 1000 / len(images) for name, times in spent.items()}
    print("| local mean | search, ms | density, ms |\n|---|---|---|")
    for name, (search, density) in best.items():
        print(f"| {name} | {search:.2f} | {density:.2f} |")
    ratio = best["in one pass"] / best["by axes"]
    print(f"| ratio | {ratio[0]:.2f} | {ratio[1]:.2f} |")
    one, other = (np.array(found) for found in scores.values())
    print(f"largest difference of a score: {np.nanmax(abs(one - other)):.1e}")


if __name__ == "__main__":
    main()
