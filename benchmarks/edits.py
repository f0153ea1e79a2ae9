"""How much do pixels change outside an edit of the map?

    python benchmarks/edits.py [--model ebhi-seg-few-steps] [--count 16] [--out DIR]

Drawn layouts of 224 px, whose glands grow or thicken by 6 px, and whose largest gland becomes another type, with crops
of the bundled bank. Printed is the mean absolute change of pixels,
in levels of 255, where the map was edited, in the rim of 16 px around it, and elsewhere: for `histoloom pairs`, and for
two patches of one seed and the same crops.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from histoloom import HistoloomPipeline, LayoutConfig, draw_layouts, find_model, load_bank
from histoloom.canvas.pairs import Pair, weave_pair
from histoloom.canvas.settings import Edit
from histoloom.metrics import border
from histoloom.models.sampling import Sampling


def main() -> None:
    """Weave pairs, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ebhi-seg-few-steps")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = HistoloomPipeline.load(find_model(arguments.model))
    table = pipeline.table
    bank = load_bank(Path(find_model("ebhi-seg")) / "crops", table)
    layouts = draw_layouts(LayoutConfig(two_types=0.0), table, arguments.count, 0, 224)
    for rule in ("grow", "thicken", "change"):
        found: dict[str, list] = {"pairs": [], "one seed": []}
        borders = []
        for number, layout in enumerate(layouts):
            tissue = table.names[int(np.bincount(layout[layout > 0]).argmax())]
            to = "polyp" if tissue != "polyp" else "normal gland"
            edit = Edit(rule=rule, tissue=tissue, to=to if rule == "change" else "")
            crops = bank.draw(layout, np.random.default_rng(number))
            crops += bank.draw(np.full_like(layout, table.find(to).id), np.random.default_rng(number))
            pair = weave_pair(pipeline, layout, edit, crops, Sampling(), seed=number)
            assert pair is not None
            mine = [[c for c in crops if (m == c.tissue).any()] for m in (pair.map_before, pair.map_after)]
            plain = pipeline([pair.map_before, pair.map_after], mine, seed=[number, number])
            found["pairs"].append(pair.change())
            before, after = plain
            found["one seed"].append(Pair(before, after, pair.map_before, pair.map_after, pair.parts).change())
            if rule == "change":
                borders.append(border(pair.after, pair.parts > 0))
            if arguments.out is not None:
                arguments.out.mkdir(parents=True, exist_ok=True)
                shown = np.concatenate([pair.before, pair.after, *plain], 1)
                Image.fromarray(shown).save(arguments.out / f"{rule}-{number:02d}.png")
        for way, changes in found.items():
            means = {part: np.mean([change[part] for change in changes]) for part in changes[0]}
            print(f"{rule}, {way}: " + ", ".join(f"{part} {mean:.2f}" for part, mean in means.items()))
        if borders:
            print(f"border of the rim: {np.median([b.gradient for b in borders]):.2f}")


if __name__ == "__main__":
    main()
