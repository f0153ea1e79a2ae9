"""How well does a segmenter learn: which start of its backbone, which loss, how many steps, and from which patches?

    python benchmarks/teaching.py DATASET --out DIR --train train --test test --steps 200 800 --seeds 2
    python benchmarks/teaching.py DATASET --out DIR --ways 3 --woven DIR

Every row is a DeepLabv3+ trained on the real patches of one split and tested on those of another, whose cases no
training has seen. With `--woven`, a folder of patches woven from the maps of the first split, more rows train on these
alone, and on both in turns. Finished networks are kept in OUT, one JSON file each, so that an interrupted run goes on.
Binary is the IoU of type 0 (stroma in EBHI-Seg) against all other types.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from histoloom.cli.progress import bar
from histoloom.evaluation.deeplab import DownstreamConfig, train_deeplab
from histoloom.evaluation.downstream import check_sets, judge, pooled
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.fitting.results import cached_result
from histoloom.metrics import iou

LITE0, SMALL = "tu-tf_efficientnet_lite0", "histoloom-small"


@dataclass(frozen=True)
class Way:
    """One way to train."""

    backbone: str
    start: str
    balance: float

    @property
    def name(self) -> str:
        """In one cell of the table."""
        return f"{self.backbone}, {self.start}, balance {self.balance:g}"


WAYS = (
    Way("resnet18", "random", 0.0),
    Way(LITE0, "random", 0.0),
    Way(LITE0, SMALL, 0.0),
    Way(LITE0, SMALL, 0.5),
)


def train(way: Way, steps: int, seed: int, learned: list[ImageSet], kind: str, held: ImageSet, out: Path) -> dict:
    """The confusion matrices of one network, and what its training cost."""
    config = DownstreamConfig(backbone=way.backbone, start=way.start, balance=way.balance, steps=steps, seeds=(seed,))
    key = json.dumps([asdict(config), *(images.fingerprint() for images in learned), held.fingerprint()])
    name = f"{way.backbone}-{way.start}-{way.balance:g}-{steps}-{seed}{kind}.json"

    def make() -> dict:
        types, begun = held.known_table.num_ids, time.process_time()
        with bar(name, steps, "steps") as running:
            network = train_deeplab(learned, types, config, seed, running)
        return {"cpu_seconds": time.process_time() - begun, "confusion": judge(network, held, types).tolist()}

    return cached_result(out / name, key, make)


def binary(confusion: np.ndarray) -> float:
    """Mean IoU of type 0 and of all others taken together."""
    whole = confusion.sum(0)
    pair = np.array([[whole[0, 0], whole[0, 1:].sum()], [whole[1:, 0].sum(), whole[1:, 1:].sum()]])
    return float(np.mean(iou(pair)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--train", default="train")
    parser.add_argument("--test", default="test")
    parser.add_argument("--steps", type=int, nargs="+", default=[400])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--ways", type=int, nargs="+", default=list(range(len(WAYS))), help="rows to make, by number")
    parser.add_argument("--woven", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    learned, held = (load_images(arguments.dataset, split) for split in (arguments.train, arguments.test))
    print(f"{len(learned)} patches to learn from, {len(held)} of {len(set(held.cases))} cases to test on")
    print("| backbone, start, balance | steps | CPU s | mean IoU [95 %] | of seeds | type 0 or not |")
    print("|---|---|---|---|---|---|")
    sets = {"": [learned]}
    if arguments.woven:
        woven = load_images(arguments.woven)
        check_sets(learned, woven, held)
        sets |= {"-woven": [woven], "-both": [learned, woven]}
    rows = product(arguments.steps, (WAYS[number] for number in arguments.ways), sets.items())
    for steps, way, (kind, sources) in rows:
        kept = [train(way, steps, seed, sources, kind, held, arguments.out) for seed in range(arguments.seeds)]
        counts = [np.asarray(one["confusion"], np.int64) for one in kept]
        found, cost = pooled(counts, held.cases), np.mean([one["cpu_seconds"] for one in kept])
        seeds = ", ".join(f"{value:.3f}" for value in found.of_seed)
        both = np.mean([binary(one) for one in counts])
        name, span = way.name + kind.replace("-", ", "), f"[{found.low:.3f}, {found.high:.3f}]"
        print(f"| {name} | {steps} | {cost:.0f} | {found.mean_iou:.3f} {span} | {seeds} | {both:.3f} |", flush=True)


if __name__ == "__main__":
    main()
