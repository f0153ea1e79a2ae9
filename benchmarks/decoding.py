"""Real patches against themselves, encoded and decoded: PSNR, contrast, texture, distance, and a picture.

    python benchmarks/decoding.py RUN/dataset --split val --out decoded.jpg ebhi-seg tuned/model

Texture: mean square of the first and second differences down the columns, over those of the real patches. Classifier:
held-out accuracy of telling decoded patches from real ones, 0.5 if it cannot. The first row is the distance of split
train, undecoded.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.encoders.encoder import open_encoder
from histoloom.metrics import c2st, frechet_distance, prdc
from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.decoding import compare_decoded, decoded
from histoloom.models.model_files import find_model
from histoloom.patches.store import load_patches

SHOWN = 4  # patches in the picture


def main() -> None:
    """Print the table and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, required=True, help="picture: real patches, then a row per model")
    args = parser.parse_args()
    patches, learned = load_patches(args.dataset, args.split), load_patches(args.dataset, "train").images
    images = patches.images
    encoder, rows = open_encoder("histoloom-small"), [images[:SHOWN]]
    real = encoder(images)
    print(f"{len(images)} patches of split {args.split}")
    print("| decoder | PSNR, dB | contrast of red, green, blue | texture | distance | precision, recall | classifier |")
    print("|---|---|---|---|---|---|---|")
    print(f"| (split train, undecoded) | | | | {frechet_distance(real, encoder(learned)):.1f} | | |", flush=True)
    for model in args.models:
        autoencoder = load_autoencoder(find_model(model)).float()
        shown = decoded(autoencoder, images)
        found, features = compare_decoded(images, shown), encoder(shown)
        means, contrast = prdc(real, features).means(), ", ".join(f"{value:.2f}" for value in found.contrast)
        near = f"{frechet_distance(real, features):.1f} | {means['precision']:.2f}, {means['recall']:.2f}"
        fine = ", ".join(f"{_roughness(shown, n) / _roughness(images, n):.2f}" for n in (1, 2))
        judged = c2st(real, features, patches.cases, patches.cases)
        apart = f"{judged.accuracy:.2f} [{judged.low:.2f}, {judged.high:.2f}]"
        print(f"| {model} | {found.psnr:.2f} | {contrast} | {fine} | {near} | {apart} |", flush=True)
        rows.append(shown[:SHOWN])
    sheet = Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(args.out, quality=86)


def _roughness(images: np.ndarray, n: int) -> float:
    """Mean square of the n-th differences down the columns."""
    return float(np.mean([np.square(np.diff(image.astype(np.float32), n=n, axis=0)).mean() for image in images]))


if __name__ == "__main__":
    main()
