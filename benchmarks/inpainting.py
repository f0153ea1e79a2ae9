"""Does the border of a redrawn region show on real images?

    python benchmarks/inpainting.py FOLDER [--model ebhi-seg-few-steps] [--count 24] [--out DIR]

FOLDER is ebhi-seg, with manifest.csv: from each of the first cases of split `train`, one image. Or camelyon-mini, with
images/ and maps/ (0 normal, 1 tumor): all images of lymph nodes, which the bundled models have not seen; normal tissue
is redrawn as stroma and tumor as adenocarcinoma. In each image, a disk of 40 px radius is redrawn after its own map,
with crops of the next image. Printed are figures of
`histoloom.metrics.border`, medians over images, for the image as it is, for a patch that was woven alone and pasted in,
and for `inpaint`.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from histoloom import Crop, HistoloomPipeline, find_model
from histoloom.canvas.inpaint import inpaint
from histoloom.conditioning.crops import draw_box
from histoloom.metrics import border

RADIUS = 40  # px


def main() -> None:
    """Redraw, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="ebhi-seg-few-steps")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = HistoloomPipeline.load(find_model(arguments.model))
    is_ebhi = (arguments.folder / "manifest.csv").is_file()
    images = (one_per_case if is_ebhi else of_lymph_nodes)(arguments.folder, arguments.count)
    found: dict[str, list] = {"as it is": [], "pasted": [], "inpaint": []}
    for number, (image, semantic_map) in enumerate(images):
        other, other_map = images[(number + 1) % len(images)]
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        mask = (y - image.shape[0] // 2) ** 2 + (x - image.shape[1] // 2) ** 2 < RADIUS**2
        crops = crops_of(other, other_map, set(np.unique(semantic_map[mask]).tolist()))
        alone = pipeline(semantic_map, crops, seed=number)[0]
        made = inpaint(pipeline, image, semantic_map, mask, crops, seed=number)
        assert (made[~mask] == image[~mask]).all()
        ways = {"as it is": image, "pasted": np.where(mask[..., None], alone, image), "inpaint": made}
        for way, pixels in ways.items():
            found[way].append(border(pixels, mask))
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate(list(ways.values()), 1)).save(arguments.out / f"{number:02d}.png")
    for way, figures in found.items():
        gradient, p = (np.array([getattr(f, name) for f in figures]) for name in ("gradient", "p"))
        low, middle, high = np.quantile(gradient, [0.25, 0.5, 0.75])
        print(
            f"{way}: gradient {middle:.2f} ({low:.2f} to {high:.2f}), p <= 0.05 in {(p <= 0.05).mean():.0%} of {len(p)}"
        )


def one_per_case(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first image of each case of `train`, and its map, of as many cases."""
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = {row["case_id"]: row for row in reversed(list(csv.DictReader(file))) if row["split"] == "train"}
    chosen = [rows[case] for case in sorted(rows)[:count]]
    pairs = [[Image.open(folder / row[kind]) for kind in ("image", "map")] for row in chosen]
    return [(np.asarray(image.convert("RGB")), np.asarray(semantic_map)) for image, semantic_map in pairs]


def of_lymph_nodes(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and maps of camelyon-mini, maps in the types of the bundled models."""
    table = HistoloomPipeline.load(find_model("ebhi-seg-few-steps")).table
    ids = np.array([table.find("stroma").id, table.find("adenocarcinoma").id], np.uint8)
    paths = sorted((folder / "images").iterdir())[:count]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    maps = [np.asarray(Image.open(folder / "maps" / f"{path.stem}.png").convert("L")) for path in paths]
    return [(image, ids[(m > 0).astype(int)]) for image, m in zip(images, maps, strict=True)]


def crops_of(image: np.ndarray, semantic_map: np.ndarray, types: set[int]) -> list[Crop]:
    """A crop of each of the types that an image shows."""
    rng, crops = np.random.default_rng(0), []
    for tissue in sorted(types & set(np.unique(semantic_map).tolist()) - {255}):
        box = draw_box(semantic_map == tissue, 72, rng)
        if box is not None:
            crops.append(Crop(box.of(image), tissue))
    return crops


if __name__ == "__main__":
    main()
