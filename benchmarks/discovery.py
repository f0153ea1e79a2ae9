"""Do types that were found without labels agree with tissue that was drawn by hand?

    python benchmarks/discovery.py DATASET [--encoder histoloom-small] [--window 96] [--seeds 3]

Types are found on split train of a patch dataset, its maps hidden, and compared with the maps of split val, whose
cases are others. With `--window 0` the unit is a whole patch, whose tissue is the most common one that is not of id 0
(stroma, of which every patch of EBHI-Seg has some); else the window in each corner, whose tissue covers most of it.
Purity is the share of patches that are of the most common tissue of their type; NMI and ARI are those of scikit-learn.
Brackets are 95 % intervals over cases, as wide as draws of cases scatter and centered on the figure, since cases drawn
twice push all three up. `case` is the NMI of types with cases: what stain and patient, and not tissue,
would explain.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from histoloom.discovery.choose import coverage, diverse
from histoloom.discovery.cluster import ClusterConfig, grow_tree
from histoloom.discovery.kmeans import KMeansConfig, lloyd
from histoloom.discovery.tree import nearest, unit
from histoloom.encoders.cache import features
from histoloom.encoders.encoder import open_encoder
from histoloom.patches.store import Patches, load_patches
from histoloom.stain import rgb_to_hed
from histoloom.tissue import UNLABELLED

DRAWS = 200  # of cases, for intervals


def units_of(patches: Patches, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, their tissue and their case: whole patches, or the windows in them that lie side by side."""
    images, tissues, cases = [], [], []
    for image, semantic_map, case in zip(patches.images, patches.semantic_maps, patches.cases, strict=True):
        far = image.shape[0] - window
        corners = [(y, x) for y in (0, far) for x in (0, far)] if window else [(0, 0)]
        for y, x in corners:
            area = np.s_[y : y + window, x : x + window] if window else np.s_[:, :]
            counts = np.bincount(semantic_map[area].ravel(), minlength=256)
            counts[UNLABELLED] = 0
            if not window:
                counts[0] = 0
            if counts.any():
                images.append(image[area])
                tissues.append(int(counts.argmax()))
                cases.append(case)
    return np.stack(images), np.array(tissues), np.array(cases)


def colors(images: np.ndarray) -> np.ndarray:
    """Mean and spread of hematoxylin, eosin and the rest: all that color alone can say, standardized later."""
    return np.stack([np.concatenate([hed.mean((0, 1)), hed.std((0, 1))]) for hed in map(rgb_to_hed, images)])


def purity(truth: np.ndarray, types: np.ndarray) -> float:
    """Share of patches that are of the most common tissue of their type."""
    table = np.zeros((types.max() + 1, truth.max() + 1), int)
    np.add.at(table, (types, truth), 1)
    return table.max(1).sum() / len(truth)


def row(name: str, level: int, truth: np.ndarray, types: np.ndarray, cases: np.ndarray) -> str:
    """Figures with intervals over cases."""
    rng, names = np.random.default_rng(0), np.unique(cases)
    members = {case: np.flatnonzero(cases == case) for case in names}
    drawn = [np.concatenate([members[c] for c in rng.choice(names, len(names))]) for _ in range(DRAWS)]
    cells = []
    for score in (purity, normalized_mutual_info_score, adjusted_rand_score):
        value = score(truth, types)
        half = 1.96 * np.std([score(truth[i], types[i]) for i in drawn], ddof=1)
        cells.append(f"{value:.3f} [{value - half:.3f}, {value + half:.3f}]")
    return f"| {level} | {name} | {' | '.join(cells)} | {normalized_mutual_info_score(cases, types):.3f} |"


def mean_agreement(runs: list[np.ndarray]) -> float:
    """Mean ARI between the types of any two seeds."""
    pairs = [adjusted_rand_score(a, b) for i, a in enumerate(runs) for b in runs[:i]]
    return float(np.mean(pairs))


def flat(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Plain k-means by faiss from random vectors, at this number of types alone."""
    rng = np.random.default_rng(seed)
    return lloyd(vectors, vectors[rng.choice(len(vectors), count, replace=False)], 50, rng)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--encoder", default="histoloom-small")
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="file of features that were computed before")
    arguments = parser.parse_args()
    encoder, start = open_encoder(arguments.encoder), time.process_time()
    sides = [units_of(load_patches(arguments.dataset, split), arguments.window) for split in ("train", "val")]
    (images, known, _), (held, truth, cases) = sides
    kind = f"windows of {arguments.window} px" if arguments.window else "whole patches"
    print(f"{arguments.encoder} ({encoder.fingerprint[:8]}), {kind}: types from {len(images):,} of split train,")
    print(f"judged on {len(held):,} of split val ({len(np.unique(cases))} cases), seeds 0 to {arguments.seeds - 1}\n")
    vectors, judged = (unit(features(encoder, part, arguments.cache)) for part in (images, held))
    color, colour_judged = colors(images), colors(held)
    mean, spread = color.mean(0), color.std(0)
    color, colour_judged = ((c - mean) / spread for c in (color, colour_judged))
    trees = [
        grow_tree(vectors, ClusterConfig(kmeans=KMeansConfig(seed=seed)), "", "")[0] for seed in range(arguments.seeds)
    ]
    by_colour, _ = grow_tree(color.astype(np.float32), ClusterConfig(), "", "")
    print("| types | found by | purity | NMI | ARI | case | ARI between seeds |\n|---|---|---|---|---|---|---|")
    finest = nearest(colour_judged.astype(np.float32), by_colour.centroids)[0]
    for level in trees[0].levels:
        nested = [tree.at(level)[tree.assign(judged)] for tree in trees]
        plain = [nearest(judged, flat(vectors, level, seed))[0] for seed in range(arguments.seeds)]
        random = np.random.default_rng(0).permutation(nested[0])
        print(row("nested types", level, truth, nested[0], cases), f"{mean_agreement(nested):.3f} |")
        print(row("flat k-means", level, truth, plain[0], cases), f"{mean_agreement(plain):.3f} |")
        print(row("color alone, nested", level, truth, by_colour.at(level)[finest], cases), "|")
        print(row("random", level, truth, random, cases), "|")
    everything = np.bincount(truth).max() / len(truth)
    print(f"\nOne type for all has purity {everything:.3f}.\n")
    print(
        "| chosen of train | by | covering radius | mean distance | rarest tissue among them |\n|---|---|---|---|---|"
    )
    rare = int(np.argmin(np.where(np.bincount(known) > 0, np.bincount(known), len(known))))
    for count in (100, 500):
        rng = np.random.default_rng(0)
        ways = {"farthest point": [diverse(vectors, count)]}
        ways["random (mean of 20)"] = [rng.choice(len(vectors), count, replace=False) for _ in range(20)]
        for name, draws in ways.items():
            far = [coverage(vectors, chosen) for chosen in draws]
            share = np.mean([(known[chosen] == rare).mean() for chosen in draws])
            figures = f"{np.mean([f.max() for f in far]):.3f} | {np.mean([f.mean() for f in far]):.3f} | {share:.1%}"
            print(f"| {count} | {name} | {figures} |")
    print(f"\n{time.process_time() - start:.0f} s of the processor")


if __name__ == "__main__":
    main()
