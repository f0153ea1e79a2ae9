"""Where the time of `histoloom generate` goes: processor seconds of each part, by cProfile.

    python benchmarks/generate_profile.py MODEL [--patches 32] [--steps N] [--crops FOLDER]

Layouts are drawn; crops come from the model's bank, which is treated as a folder of foreign crops, so that the gate
against copies works as it does on real ones.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import torch

from histoloom.generation.settings import DrawnMaps, Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.generation.woven_reader import read_index
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.weights import find_model

PARTS = {  # what: (end of the file, function)
    "predictions of the denoiser": ("models/denoiser.py", "forward"),
    "reading maps and crops": ("models/denoiser.py", "read"),
    "decoding": ("models/autoencoder.py", "decode"),
    "copy gate": ("metrics/copy_score.py", "best_matches"),
    "drawing layouts": ("generation/layouts.py", "draw"),
    "writing patches": ("generation/woven_writer.py", "_write_patch"),
    "contact sheet": ("generation/contact_sheet.py", "contact_sheet"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="ebhi-seg-few-steps")
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--crops", type=Path)
    arguments = parser.parse_args()
    folder = Path(find_model(arguments.model))
    pipeline, config = HistoloomPipeline.load(folder), WeaveConfig(steps=arguments.steps)
    crops = arguments.crops or folder / "crops"
    with tempfile.TemporaryDirectory() as place:
        weave_folder(pipeline, Source(maps=DrawnMaps(count=2), crops=crops), config, Path(place) / "warm")
        profile, begun = cProfile.Profile(time.process_time), time.process_time()
        source = Source(maps=DrawnMaps(count=arguments.patches), crops=crops)
        profile.runcall(weave_folder, pipeline, source, config, Path(place) / "out")
        total = time.process_time() - begun
        rows = read_index(Path(place) / "out")
    stats: dict = vars(pstats.Stats(profile))["stats"]
    again = sum(row["tries"] > 1 for row in rows)
    print(f"{len(rows)} patches, {again} woven again, {torch.get_num_threads()} threads")
    print("| part | calls | s per patch | share |\n|---|---|---|---|")
    known = 0.0
    for what, (file, name) in PARTS.items():
        hits = [value for (path, _, called), value in stats.items() if path.endswith(file) and called == name]
        calls, seconds = sum(hit[1] for hit in hits), sum(hit[3] for hit in hits)
        known += seconds
        print(f"| {what} | {calls} | {seconds / len(rows):.4f} | {100 * seconds / total:.1f} % |")
    print(f"| everything else | | {(total - known) / len(rows):.4f} | {100 * (1 - known / total):.1f} % |")
    print(f"| all | | {total / len(rows):.4f} | 100 % |")


if __name__ == "__main__":
    main()
