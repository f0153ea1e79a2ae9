"""Glands and lumen of woven and of real patches, read by a segmenter that nobody here trained.

    pip install --no-deps --target JUDGE lavlab-shell macenko-pca onnxruntime monai
    PYTHONPATH=JUDGE python benchmarks/glands.py DATASET WOVEN --split val --out DIR

WOVEN holds patches that were woven from maps of the split. SHELL (lavlab-shell, MIT) learned lumen and epithelium of
prostate glands at about 2 um per pixel; each patch is separated into eosin, hematoxylin and optical density by its own
routine first. What it calls lumen or epithelium is a gland. It is compared with all types of the map but the first.
`--zoom` resamples the patches; choose it by the agreement on real patches of `train`. The floor compares real patches
of two halves of the cases. OUT gets `glands.json` and `glands.png`, six patches of each kind with outlines.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage.segmentation import find_boundaries

from histoloom.cli.progress import bar
from histoloom.evaluation.comparison import halves_by_case
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.files import write_json
from histoloom.metrics import mean_interval, wasserstein
from histoloom.tissue import UNLABELLED

LUMEN, EPITHELIUM = 1, 2
MULTIPLE = 64  # px; the network takes edges that are multiples of it
LEAST = 2000  # px of gland in the map of a patch for its shares to count
SHOWN = 6


def read(images: ImageSet, zoom: float) -> np.ndarray:
    """1 where SHELL sees lumen, 2 where it sees epithelium, 0 elsewhere; as large as the images."""
    from shell.model import build_model
    from shell.transforms import apply_eho_chunked, estimate_stain_params

    model, found = build_model(), []
    torch.set_num_threads(1)
    with bar("reading glands", len(images), "patches") as running:
        for image in images.images:
            height, width = image.shape[:2]
            small = Image.fromarray(image).resize((round(width * zoom), round(height * zoom)), Image.Resampling.BOX)
            rgb = np.asarray(small)
            stains = apply_eho_chunked(rgb, **estimate_stain_params(rgb)).astype(np.float32)
            low, high = stains.min((0, 1)), stains.max((0, 1))
            scaled = (stains - low) / np.maximum(high - low, 1e-6)
            rows, columns = scaled.shape[:2]
            padded = np.pad(scaled, ((0, -rows % MULTIPLE), (0, -columns % MULTIPLE), (0, 0)), mode="symmetric")
            chances = torch.sigmoid(model(torch.from_numpy(padded.transpose(2, 0, 1)[None].copy())))[0].numpy()
            chances = ndimage.zoom(chances[:, :rows, :columns], (1, height / rows, width / columns), order=1)
            lumen, epithelium, other = np.asarray(chances)
            kinds = np.zeros((height, width), np.uint8)
            kinds[epithelium > np.maximum(other, 0.5)] = EPITHELIUM
            kinds[lumen > np.maximum(other, 0.5)] = LUMEN
            found.append(kinds)
            running.advance()
    return np.stack(found)


def measure(images: ImageSet, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Per patch (nan: too little gland): IoU of gland, and the shares of lumen and of epithelium in the map's gland."""
    gland, known = (images.maps != 0) & (images.maps != UNLABELLED), images.maps != UNLABELLED
    seen = (kinds > 0) & known
    both, either = (seen & gland).sum((1, 2)), (seen | gland).sum((1, 2))
    enough, area = gland.sum((1, 2)) >= LEAST, np.maximum(gland.sum((1, 2)), 1)
    shares = {
        "IoU of gland": both / np.maximum(either, 1),
        "lumen, share of gland": ((kinds == LUMEN) & gland).sum((1, 2)) / area,
        "epithelium, share of gland": ((kinds == EPITHELIUM) & gland).sum((1, 2)) / area,
        "gland seen in stroma": (seen & ~gland).sum((1, 2)) / np.maximum((known & ~gland).sum((1, 2)), 1),
    }
    return {name: np.where(enough, values, np.nan) for name, values in shares.items()}


def interval(values: np.ndarray, cases: list[str]) -> list[float]:
    """The mean, and its interval over cases."""
    known = ~np.isnan(values)
    of = [case for case, counts in zip(cases, known, strict=True) if counts]
    return [float(values[known].mean()), *map(float, mean_interval(values[known], of))]


def picture(images: ImageSet, kinds: np.ndarray) -> np.ndarray:
    """Six patches in a row: plain, and below with the outlines of lumen (blue) and epithelium (yellow)."""
    plain = [images.images[i] for i in range(SHOWN)]
    drawn = [image.copy() for image in plain]
    for image, kind in zip(drawn, kinds[:SHOWN], strict=True):
        for number, color in ((EPITHELIUM, (255, 220, 0)), (LUMEN, (0, 90, 255))):
            image[find_boundaries(kind == number)] = color
    return np.vstack([np.hstack(plain), np.hstack(drawn)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("woven", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--zoom", type=float, default=0.75)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sides = {"real": load_images(args.dataset, args.split), "woven": load_images(args.woven)}
    kinds = {name: read(images, args.zoom) for name, images in sides.items()}
    found = {name: measure(images, kinds[name]) for name, images in sides.items()}
    first, second = halves_by_case(sides["real"].cases)
    print(f"{len(sides['real'])} real patches of {len(set(sides['real'].cases))} cases, {len(sides['woven'])} woven")
    print("| per patch | real | woven | woven / real | distance of woven | of two halves of real |")
    print("|---|---|---|---|---|---|")
    rows = {}
    for name in found["real"]:
        real, woven = found["real"][name], found["woven"][name]
        kept = [values[~np.isnan(values)] for values in (real, woven, real[first], real[second])]
        ratio = kept[1].mean() / kept[0].mean()
        gap, floor = wasserstein(kept[0], kept[1]), wasserstein(kept[2], kept[3])
        means = {side: interval(found[side][name], sides[side].cases) for side in sides}
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*values) for values in means.values()]
        print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} | {gap:.3f} | {floor:.3f} |")
        rows[name] = means | {"ratio": float(ratio), "distance": float(gap), "floor": float(floor)}
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "glands.json", {"zoom": args.zoom, "split": args.split, "rows": rows})
    sheet = np.vstack([picture(sides[name], kinds[name]) for name in sides])
    Image.fromarray(sheet).save(args.out / "glands.png")


if __name__ == "__main__":
    main()
