"""How few steps lose nothing: the same patches woven at several numbers of steps, each judged like the model card.

    python benchmarks/few_steps.py DATASET --segmenter DIR --models ebhi-seg --steps 20 8 6 --split test --out DIR

Every row weaves the maps of the split again, each with crops from *other* patches of its case, without the gate
against copies, and prints what a patch costs and how good it is. The last row compares two halves of the real cases.
Finished rows are kept in OUT, one JSON file each, so that an interrupted run goes on.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from quality_measures import PART, measure_map, measure_stain, open_judge
from quality_task import Task, make_task, with_lumens

from histoloom.cli.progress import bar
from histoloom.encoders.encoder import Encoder, open_encoder
from histoloom.files import write_json
from histoloom.generation.patches import WeaveConfig
from histoloom.metrics import best_match, c2st, copy_rate, copy_threshold, frechet_distance, prdc
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches, read_table
from histoloom.weights import find_model

HEAD = (
    "| model | sampler, steps | predictions | CPU s | distance | precision, recall, coverage | map | stain L / a / b "
    "| copies | C2ST |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Row:
    """One way to weave."""

    model: str
    steps: int
    sampler: str
    config: WeaveConfig
    lumens: bool = False

    @property
    def name(self) -> str:
        """The stem of the file that keeps its figures."""
        config = self.config
        interval = "-".join(f"{share:g}" for share in config.guidance_interval)
        model = self.model.strip("/").replace("/", "_")
        guidance = f"{config.map_guidance:g}-{config.crop_guidance:g}-{interval}"
        return f"{model}-{self.sampler}-{self.steps}-{guidance}{'-lumens' if self.lumens else ''}"


def weave_row(row: Row, task: Task, batch: int) -> tuple[np.ndarray, dict]:
    """The patches of the task, and what they cost: CPU seconds, and predictions of the denoiser, per patch."""
    pipeline = HistoloomPipeline.load(find_model(row.model))
    predictions: list[int] = []
    pipeline.denoiser.register_forward_pre_hook(lambda _, given: predictions.append(len(given[0])))
    orders = (with_lumens(task, pipeline.table) if row.lumens else task).orders
    config, begun = row.config, time.process_time()
    with bar(row.name, len(task.orders), "patches") as running:
        woven = pipeline(
            [order.semantic_map for order in orders],
            [order.crops for order in orders],
            steps=row.steps,
            sampler=row.sampler,
            map_guidance=config.map_guidance,
            crop_guidance=config.crop_guidance,
            guidance_interval=config.guidance_interval,
            seed=config.seed,
            batch_size=batch,
            bar=running,
        )
    cost = (time.process_time() - begun) / len(woven)
    return woven, {
        "cpu_seconds": cost,
        "predictions": sum(predictions) / len(woven),
        "threads": torch.get_num_threads(),
        "precision": str(pipeline.denoiser.dtype),
        "model": pipeline.fingerprint,
    }


def likeness(real: np.ndarray, fake: np.ndarray, real_cases: list[str], fake_cases: list[str]) -> dict:
    """Distance, precision, recall, coverage, and whether a classifier tells them apart; of features."""
    accuracy = c2st(real, fake, real_cases, fake_cases)
    means = prdc(real, fake).means()
    return {"distance": frechet_distance(real, fake), **means, "c2st": [accuracy.accuracy, accuracy.low, accuracy.high]}


def halves(features: np.ndarray, cases: list[str], seed: int, draws: int = 5) -> dict:
    """The same of two random halves of the real cases; the mean of several draws."""
    rng, found, names = np.random.default_rng(seed), [], np.asarray(cases)
    for _ in range(draws):
        half = np.isin(names, rng.permutation(np.unique(names))[: len(set(cases)) // 2])
        sides = [(features[side], names[side].tolist()) for side in (half, ~half)]
        found.append(likeness(sides[0][0], sides[1][0], sides[0][1], sides[1][1]))
    return {key: np.mean([one[key] for one in found], axis=0).tolist() for key in found[0]}


def copies(task: Task, woven: np.ndarray, pairs: int, seed: int) -> dict:
    """Share of crops that reappear more than in 99 % of real pairs of different cases."""
    rng, own, cases = np.random.default_rng((seed, 1)), task.pairs(), np.asarray(task.patches.cases)
    unrelated = []
    for n in range(pairs):
        i, j = own[n % len(own)]
        other = task.patches.images[rng.choice(np.flatnonzero(cases != task.cases[i]))]
        unrelated.append(best_match(task.orders[i].crops[j].pixels, other, PART))
    scores = [best_match(task.orders[i].crops[j].pixels, woven[i], PART) for i, j in own]
    return asdict(copy_rate(np.asarray(scores), copy_threshold(np.asarray(unrelated))))


def line(name: str, what: str, found: dict) -> str:
    """One row of the table."""
    accuracy, low, high = found["c2st"]
    cells = [name, what]
    if "cost" in found:
        cells += [f"{found['cost']['predictions']:g}", f"{found['cost']['cpu_seconds']:.3f}"]
    else:
        cells += ["-", "-"]
    cells += [
        f"{found['distance']:.1f}",
        f"{found['precision']:.2f}, {found['recall']:.2f}, {found['coverage']:.2f}",
    ]
    if "map" in found:
        ratios = ", ".join(f"{values['ratio']:.3f}" for values in found["map"].values())
        stain = " / ".join(f"{value:.3f}" for value in found["stain"]["woven"]["correlation"])
        cells += [ratios, stain, f"{100 * found['copies']['rate']:.1f} %"]
    else:
        cells += ["1", "-", "1 %"]
    return "| " + " | ".join([*cells, f"{accuracy:.2f} [{low:.2f}, {high:.2f}]"]) + " |"


def measure(row: Row, task: Task, encoder: Encoder, real: np.ndarray, arguments: argparse.Namespace) -> dict:
    """Weave a row and judge it."""
    table = read_table(arguments.dataset)
    judge = open_judge(arguments.segmenter, arguments.dataset, table)
    woven, cost = weave_row(row, task, arguments.batch)
    np.save(arguments.out / f"{row.name}.npy", woven)
    return {
        "cost": cost,
        "n": [len(real), len(woven)],
        "split": arguments.split,
        "seed": arguments.seed,
        **likeness(real, encoder(woven), list(task.patches.cases), task.cases),
        "map": measure_map(task, woven, judge, table, arguments.seed),
        "stain": {name: asdict(value) for name, value in measure_stain(task, woven).items()},
        "copies": copies(task, woven, arguments.pairs, arguments.seed),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--segmenter", type=Path, required=True, help="folder of the judge; trained where it is empty")
    parser.add_argument("--models", nargs="+", default=["ebhi-seg"])
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 10, 8, 7, 6, 5, 4])
    parser.add_argument("--samplers", nargs="+", default=["unipc"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--map-guidance", type=float, default=WeaveConfig.map_guidance)
    parser.add_argument("--crop-guidance", type=float, default=WeaveConfig.crop_guidance)
    parser.add_argument("--guidance-interval", type=float, nargs=2, default=WeaveConfig.guidance_interval)
    parser.add_argument("--lumens", action="store_true", help="outline lumens in the maps that the model sees")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = WeaveConfig(
        map_guidance=arguments.map_guidance,
        crop_guidance=arguments.crop_guidance,
        guidance_interval=tuple(arguments.guidance_interval),
        seed=arguments.seed,
    )
    patches, encoder = load_patches(arguments.dataset, arguments.split), open_encoder("histoloom-small")
    task, real = make_task(patches, arguments.count, arguments.seed, 1), encoder(patches.images)
    print("\n".join(HEAD), flush=True)
    for model in arguments.models:
        for sampler in arguments.samplers:
            for steps in arguments.steps:
                row = Row(model, steps, sampler, config, arguments.lumens)
                kept = arguments.out / f"{row.name}.json"
                if not kept.exists():
                    write_json(kept, measure(row, task, encoder, real, arguments))
                print(line(model, f"{sampler}, {steps}", json.loads(kept.read_text())), flush=True)
    print(line("real halves", "-", halves(real, list(patches.cases), arguments.seed)))


if __name__ == "__main__":
    main()
