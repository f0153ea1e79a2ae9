"""Do maps of discovered types know stroma from the rest? Against the true maps of patches that discovery never saw.

    python benchmarks/pseudo_maps.py ebhi found [--by classifier] [--stride 16] [--most 237]

By the windows of split train that were clustered, each type is taken for what most of its pixels are, and, for the
balanced accuracy, for stroma where it has more of that than all windows together. Then the maps of split val are drawn
and compared pixel by pixel, with intervals over cases (bootstrap). Chance: the maps of other patches of val in their
place; of a balanced accuracy it is 0.5.
"""

import argparse
from pathlib import Path

import numpy as np

from histoloom.discovery.open_classifier import open_classifier
from histoloom.discovery.pseudo_maps import MapConfig, draw_patch
from histoloom.discovery.tree import TypeTree
from histoloom.discovery.windows import read_assigned
from histoloom.patches.store import load_patches, read_table

DRAWS = 1000


def true_shares(dataset: Path, discovered: Path, num_types: int, num_ids: int) -> np.ndarray:
    """Pixels of each true tissue in the training windows of each finest type."""
    patches, assigned = load_patches(dataset, "train"), read_assigned(discovered)
    where = {source: i for i, source in enumerate(patches.sources)}
    counts = np.zeros((num_types, num_ids))
    for slide, (x, y, size), tissue in zip(assigned.slides, assigned.places, assigned.types, strict=True):
        left, top, _ = patches.places[where[slide]]
        window = patches.semantic_maps[where[slide]][y - top : y - top + size, x - left : x - left + size]
        counts[tissue] += np.bincount(window[window != 255], minlength=num_ids)
    return counts


def ious(maps: np.ndarray, true: np.ndarray, groups: np.ndarray, ids: int, draws: int = DRAWS) -> tuple:
    """Accuracy, mean IoU and mean recall over the ids that are there, and their 95 % intervals over groups."""
    mine = [groups == name for name in sorted(set(groups.tolist()))]
    pairs = [np.bincount(true[g].ravel() * ids + maps[g].ravel(), minlength=ids * ids) for g in mine]
    confusion = np.stack(pairs).reshape(-1, ids, ids)

    def figures(counts: np.ndarray) -> tuple[float, float, float]:
        hit = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - hit
        there = counts.sum(1) > 0
        return hit.sum() / counts.sum(), (hit[there] / union[there]).mean(), (hit[there] / counts.sum(1)[there]).mean()

    rng = np.random.default_rng(0)
    drawn = [figures(confusion[rng.integers(len(confusion), size=len(confusion))].sum(0)) for _ in range(draws)]
    return figures(confusion.sum(0)), np.percentile(drawn, (2.5, 97.5), axis=0)


def cells_of(found: tuple, *which: int) -> list[str]:
    """Some of the figures with their intervals."""
    value, (low, high) = found
    return [f"{value[i]:.3f} [{low[i]:.3f}, {high[i]:.3f}]" for i in which]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("discovered", type=Path)
    parser.add_argument("--by", type=Path)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--most", type=int, default=10**9)
    arguments = parser.parse_args()
    tree, table = TypeTree.load(arguments.discovered), read_table(arguments.dataset)
    counts = true_shares(arguments.dataset, arguments.discovered, len(tree.centroids), table.num_ids)
    held = load_patches(arguments.dataset, "val")
    held = held.select(np.sort(np.random.default_rng(0).permutation(len(held))[: arguments.most]))
    namer, config = open_classifier(arguments.by or arguments.discovered), MapConfig(stride=arguments.stride)
    drawn = np.stack([draw_patch(image, namer, config) for image in held.images])
    groups, true = np.array(held.cases), held.semantic_maps
    other = np.roll(np.arange(len(held)), len(held) // 2)
    print(f"n = {len(held)} patches of {len(set(held.cases))} cases, split val; stride {config.cell(namer.window)} px, "
          f"seed 0, by {arguments.by or tree.encoder}")  # fmt: skip
    print("| types | stroma or not: accuracy | mean IoU | chance: mean IoU | balanced | seven: mean IoU | chance |")
    print("|---|---|---|---|---|---|---|")
    stroma, seven = (true != 0).astype(np.int64), true.astype(np.int64)
    for level, types in zip(tree.levels, tree.ancestors, strict=True):
        summed = np.zeros((level, table.num_ids))
        np.add.at(summed, types, counts)
        share = summed[:, 0] / summed.sum(1)  # of stroma, id 0 of EBHI-Seg
        maps = (share < 0.5).astype(np.int64)[types[drawn]]
        cells = [str(level), *cells_of(ious(maps, stroma, groups, 2), 0, 1)]
        cells += cells_of(ious(maps[other], stroma, groups, 2), 1)
        balanced = (share < counts[:, 0].sum() / counts.sum()).astype(np.int64)[types[drawn]]
        cells += cells_of(ious(balanced, stroma, groups, 2), 2)
        maps = summed.argmax(1)[types[drawn]]
        cells += cells_of(ious(maps, seven, groups, table.num_ids), 1)
        cells += cells_of(ious(maps[other], seven, groups, table.num_ids), 1)
        print("| " + " | ".join(cells) + " |")
    glands = (true != 0).mean((1, 2))
    always, each = max(glands.mean(), 1 - glands.mean()), np.maximum(glands, 1 - glands).mean()
    print(f"accuracy of always the commoner of stroma and the rest: {always:.3f}; of each patch's commoner: {each:.3f}")


if __name__ == "__main__":
    main()
