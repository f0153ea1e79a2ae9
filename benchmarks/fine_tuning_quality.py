"""Fine-tuned models against real patches that they have not seen: distance, precision, recall, map, stain.

    python benchmarks/fine_tuning_quality.py RUN/dataset tuned/model scratch/model --segmenter DIR

Every map of split val is woven once, with crops of other patches of its case. No interval: a small set has few cases.
"""

import argparse
from pathlib import Path

from few_steps import Row, weave_row
from quality_measures import measure_map, measure_stain, open_judge
from quality_task import make_task

from histoloom.encoders.encoder import open_encoder
from histoloom.generation.settings import WeaveConfig
from histoloom.metrics import frechet_distance, prdc
from histoloom.patches.store import load_patches, read_table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--segmenter", type=Path, required=True, help="folder of the judge; trained where it is empty")
    args = parser.parse_args()
    held, learned = load_patches(args.dataset, "val"), load_patches(args.dataset, "train")
    encoder, table, task = open_encoder("histoloom-small"), read_table(args.dataset), make_task(held, len(held), 0, 1)
    judge, real = open_judge(args.segmenter, args.dataset, table), encoder(held.images)
    print("| patches | distance | precision, recall | map, woven / real | stain L / a / b |\n|---|---|---|---|---|")
    print(f"| real, split train | {frechet_distance(real, encoder(learned.images)):.1f} | - | 1 | - |", flush=True)
    for model in args.models:
        woven, _ = weave_row(Row(model, 10, "unipc", WeaveConfig(seed=0)), task, 8)
        features = encoder(woven)
        means = prdc(real, features).means()
        ratio = measure_map(task, woven, judge, table, 0)["all types"]["ratio"]
        stain = " / ".join(f"{value:.2f}" for value in measure_stain(task, woven)["woven"].correlation)
        distance = frechet_distance(real, features)
        cells = [model, f"{distance:.1f}", f"{means['precision']:.2f}, {means['recall']:.2f}", f"{ratio:.2f}", stain]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
