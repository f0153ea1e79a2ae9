"""How well do sets of patches teach a segmenter? A DeepLabv3+ per set and seed, all tested on the same real patches.

    python benchmarks/teaching.py DATA@test --out DIR --seeds 5 --set real=DATA@train --set woven=WOVEN \\
        --set decoded=DATA@train,decoded=ebhi-seg --set mixed=DATA@train+WOVEN

A set is one source, or several joined by +, which teach in turns, or with `--in-sequence` one after the other. A
source is a patch dataset with its split or a folder of woven patches, or several joined by &, which are thrown
together. After a comma come changes: `decoded=MODEL` passes the images through the autoencoder of a model,
`woven=KEY:VALUE;KEY:VALUE` weaves the maps again (`teaching_woven.py`), `cases=N` keeps that many cases, `border=N`
leaves N px on either side of borders between types out of the maps, `lossy=FACTOR` and `checked=FACTOR` leave out
pixels or patches that a judge does not believe, `oversampled` and `pasted` are the classic remedies for rare types
(`teaching_controls.py`).

With `--adapt FOLDER@SPLIT`, each network is tested a second time, with the statistics of its batch norms taken from
these images (`histoloom.evaluation.deeplab.adapted`). The gain of such a row is over the same networks as trained.

The results of finished networks are kept in OUT, one JSON file each, so that an interrupted run goes on. "Of the first"
is the mean IoU divided by that of the first row; "gain" is the difference, with its interval over test cases and seeds.
Binary is the IoU of type 0 (stroma in EBHI-Seg) against all other types.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from teaching_controls import CHANGES
from teaching_woven import Way, woven

from histoloom.cli.progress import bar
from histoloom.encoders.encoder import open_encoder
from histoloom.evaluation.deeplab import DownstreamConfig, adapted, train_deeplab
from histoloom.evaluation.downstream import check_sets, gain, judge, pooled
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.fitting.results import cached_result
from histoloom.metrics import frechet_distance, iou


def load_source(text: str, kept: Path) -> ImageSet:
    """A set of images from FOLDER[@SPLIT][,CHANGE[=VALUE]]...[&FOLDER...]."""
    first, *others = [load_part(part, kept) for part in text.split("&")]
    for other in others:
        first = first.joined(other)
    return first


def load_part(text: str, kept: Path) -> ImageSet:
    """A set of images from FOLDER[@SPLIT][,CHANGE[=VALUE]]..."""
    where, *changes = text.split(",")
    folder, _, split = where.partition("@")
    images = load_images(Path(folder), split or None)
    for change in changes:
        name, _, value = change.partition("=")
        images = woven(images, Way.read(value), kept) if name == "woven" else CHANGES[name](images, value)
    return images


def train(
    name: str,
    sources: list[ImageSet],
    held: ImageSet,
    config: DownstreamConfig,
    out: Path,
    unlabeled: ImageSet | None = None,
) -> dict[str, list[np.ndarray]]:
    """The confusion matrices of each seed, made now or before; by name, with those of adapted networks where asked."""
    types, kept = held.known_table.num_ids, {}
    file = name if unlabeled is None else f"{name}-adapted"
    for seed in config.seeds:
        key = json.dumps(
            [asdict(replace(config, seeds=(seed,))), *(images.fingerprint() for images in sources), held.fingerprint()]
            + ([] if unlabeled is None else [unlabeled.fingerprint()])
        )

        def make(seed: int = seed) -> dict:
            begun = time.process_time()
            with bar(f"{name}, seed {seed}", config.steps, "steps") as running:
                network = train_deeplab(sources, types, config, seed, running)
            found = {"cpu_seconds": time.process_time() - begun, "confusion": judge(network, held, types).tolist()}
            if unlabeled is not None:
                found["adapted"] = judge(adapted(network, unlabeled.images, seed), held, types).tolist()
            return found

        found = cached_result(out / f"{file}-{config.size}-{config.steps}-{seed}.json", key, make)
        for row, matrices in ((name, "confusion"), (f"{name}, adapted", "adapted")):
            if matrices in found:
                kept.setdefault(row, []).append(np.asarray(found[matrices], np.int64))
    return kept


def binary(confusion: np.ndarray) -> float:
    """Mean IoU of type 0 and of all others taken together."""
    whole = confusion.sum(0)
    pair = np.array([[whole[0, 0], whole[0, 1:].sum()], [whole[1:, 0].sum(), whole[1:, 1:].sum()]])
    return float(np.mean(iou(pair)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", help="FOLDER@SPLIT")
    parser.add_argument("--set", action="append", required=True, metavar="NAME=SOURCE[+SOURCE]", dest="sets")
    parser.add_argument("--out", type=Path, required=True)
    for name in ("size", "steps", "batch_size", "learning_rate", "balance", "backbone", "start"):
        default = getattr(DownstreamConfig, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stain", type=float, default=DownstreamConfig().stain.shift, help="spread of colors")
    parser.add_argument("--in-sequence", action="store_true")
    parser.add_argument("--adapt", metavar="FOLDER@SPLIT", help="images whose statistics networks take on")
    parser.add_argument("--distance", action="store_true", help="add the Fréchet distance of each set from the test")
    arguments = parser.parse_args()
    config = DownstreamConfig(
        **{
            name: getattr(arguments, name)
            for name in ("size", "steps", "batch_size", "learning_rate", "balance", "backbone", "start")
        },
        seeds=tuple(range(arguments.seeds)),
        in_turns=not arguments.in_sequence,
        stain=replace(DownstreamConfig().stain, shift=arguments.stain),
    )
    held = load_source(arguments.test, arguments.out)
    print(f"{len(held)} patches of {len(set(held.cases))} cases to test on; {config}")
    encoder = open_encoder("histoloom-small") if arguments.distance else None
    head = ["set", "patches", "mean IoU [95 %]", "of the first", "gain [95 %]", "of seeds", "binary", "of types"]
    head += ["distance"] if encoder else []
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    unlabeled = load_source(arguments.adapt, arguments.out) if arguments.adapt else None
    first = None
    for text in arguments.sets:
        name, _, parts = text.partition("=")
        sources = [load_source(part, arguments.out) for part in parts.split("+")]
        for images in sources:
            check_sets(sources[0], images, held)
        shown = np.concatenate([images.images for images in sources])
        distance = [f"{frechet_distance(encoder(held.images), encoder(shown)):.1f}"] if encoder else []
        rows = train(name, sources, held, config, arguments.out, unlabeled)
        first = first or rows[name]
        for row, counts in rows.items():
            found, base, is_adapted = pooled(counts, held.cases), pooled(first, held.cases), row != name
            ours = gain(counts, rows[name] if is_adapted else first, held.cases, same_networks=is_adapted)
            cells = [
                row,
                " + ".join(str(len(images)) for images in sources),
                f"{found.mean_iou:.3f} [{found.low:.3f}, {found.high:.3f}]",
                f"{np.mean(found.of_seed) / np.mean(base.of_seed):.2f}",
                f"{ours.difference:+.3f} [{ours.low:+.3f}, {ours.high:+.3f}]",
                ", ".join(f"{value:.3f}" for value in found.of_seed),
                f"{np.mean([binary(one) for one in counts]):.3f}",
                ", ".join(f"{value:.2f}" for value in found.of_type),
                *distance,
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
