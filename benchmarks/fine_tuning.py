"""Show what fine-tuning changed: drawn maps woven before the first step and after the last one, with the same crops.

    python benchmarks/fine_tuning.py runs/camelyon-mini --out docs/images/fine-tuned.jpg

Crops come from patches of split val, of one region per map; they are real pixels and are not shown. `weave` checks the
patches for parts of them.
"""

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from histoloom import HistoloomPipeline, LayoutConfig, draw_layouts
from histoloom.conditioning.inputs import Crop
from histoloom.generation.order import Order
from histoloom.generation.patches import weave
from histoloom.generation.settings import WeaveConfig
from histoloom.models.denoiser import Denoiser
from histoloom.patches.store import Patches, load_patches
from histoloom.training.start import match_types, start_from

SIZE, CROP, COUNT = 224, 64, 4  # px, px, maps


def crop_of(patches: Patches, tissue: int, rng: np.random.Generator) -> Crop:
    """A square of one type, from a random place of a random patch."""
    edge = patches.images.shape[1]
    while True:
        index, (y, x) = rng.integers(len(patches)), rng.integers(edge - CROP, size=2)
        part = slice(y, y + CROP), slice(x, x + CROP)
        if (patches.semantic_maps[index][part] == tissue).all():
            return Crop(patches.images[index][part], tissue, patches.sources[index], int(x), int(y))


def before(trained: HistoloomPipeline, initial: HistoloomPipeline) -> HistoloomPipeline:
    """The model from which the training began."""
    config = {**trained.denoiser.config, "num_types": trained.denoiser.num_types}
    denoiser = cast(Any, Denoiser).from_config({key: value for key, value in config.items() if not key.startswith("_")})
    start_from(denoiser, initial.denoiser, match_types(trained.table, initial.table))
    parts = initial.autoencoder, denoiser.eval(), trained.scheduler
    return HistoloomPipeline(*parts, trained.table.to_rows(), trained.copy_limit, trained.mpp)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--initial", default="ebhi-seg")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    trained = HistoloomPipeline.load(args.run / "model", torch.float32)
    initial = HistoloomPipeline.load(args.initial, torch.float32)
    patches = load_patches(args.run / "dataset", "val")
    maps = draw_layouts(LayoutConfig(), trained.table, count=COUNT, seed=args.seed, size=SIZE)
    rng = np.random.default_rng(args.seed)
    crops = [[crop_of(patches, tissue, rng) for tissue in trained.table.ids] for _ in maps]
    orders = [Order(semantic_map, "drawn", mine) for semantic_map, mine in zip(maps, crops, strict=True)]
    rows = [[trained.table.colorize(semantic_map) for semantic_map in maps]]
    for model in (before(trained, initial), trained):
        woven = list(weave(model, orders, WeaveConfig(seed=args.seed)))
        print("likeness of patches and their crops:", [patch.provenance.copy_score for patch in woven])
        rows.append([patch.image for patch in woven])
    Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(args.out, quality=80)


if __name__ == "__main__":
    main()
