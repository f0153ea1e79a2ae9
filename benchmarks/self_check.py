"""How many pixels a judge calls lossy: real patches that it did not learn from, woven ones, both with wrong maps.

    python benchmarks/self_check.py JUDGE DATASET WOVEN [--every 6]

The real patches are those of split train that the judge held out (its seed must be 0), every sixth of them.
"""

import argparse
from pathlib import Path

import numpy as np

from histoloom.evaluation.judge import HELD_OUT, load_judge
from histoloom.generation.settings import CheckConfig
from histoloom.generation.woven_reader import iter_woven
from histoloom.patches.split import hold_out
from histoloom.patches.store import load_patches


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("judge", "dataset", "woven"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--every", type=int, default=6)
    given = parser.parse_args()
    judge, check = load_judge(given.judge), CheckConfig()
    patches = load_patches(given.dataset, "train")
    held = np.flatnonzero(hold_out(patches.cases, HELD_OUT, 0))[:: given.every]
    woven = list(iter_woven(given.woven))
    sides = {
        "real, held out": [(patches.images[i], patches.semantic_maps[i]) for i in held],
        "woven": [(image, semantic_map) for _, image, semantic_map in woven],
    }
    print("| patches | n | lossy pixels | patches that fail |\n|---|---|---|---|")
    for name, pairs in sides.items():
        images, maps = [image for image, _ in pairs], [semantic_map for _, semantic_map in pairs]
        shift = 5 if name == "woven" else len(maps) - 7
        for what, others in ((name, maps), (f"{name}, map of another", maps[shift:] + maps[:shift])):
            shares = np.array([
                (judge.relative_loss(image, m) > check.lossy_above)[m != 255].mean()
                for image, m in zip(images, others, strict=True)
            ])  # fmt: skip
            print(f"| {what} | {len(shares)} | {shares.mean():.2f} | {(shares > check.most_lossy).sum()} |")


if __name__ == "__main__":
    main()
