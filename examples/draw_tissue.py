"""Draw a folder of make-believe tissue: images, maps, tissue.toml. Enough to try every command before one has data.

    python examples/draw_tissue.py FOLDER [--patches 24] [--size 96]

Pink ground with purple glands, grain like nuclei, and for each of four cases its own stain.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom import TissueTable

COLORS = np.array([[228, 196, 214], [150, 92, 152]], np.float32)  # mean RGB of stroma and gland
CASES = 4


def hills(rng: np.random.Generator, size: int, across: int) -> np.ndarray:
    """Smooth noise `size size` of about unit height, `across` hills wide."""
    coarse = rng.standard_normal((across, across)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def draw_patch(rng: np.random.Generator, size: int, tint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One image uint8 `size size 3` and its map uint8 `size size`: 0 stroma, 1 gland."""
    land = hills(rng, size, 5)
    semantic_map = (land > np.median(land)).astype(np.uint8)
    grain = 16 * hills(rng, size, size // 4) * (0.5 + semantic_map)
    image = COLORS[semantic_map] + tint + grain[..., None] * [1.0, 1.2, 0.7]
    return np.clip(image, 1, 255).astype(np.uint8), semantic_map


def draw_folder(folder: Path, patches: int = 24, size: int = 96) -> None:
    """Write `images/CASE_NUMBER.png`, `maps/CASE_NUMBER.png` and `tissue.toml` into `folder`."""
    rng = np.random.default_rng(0)
    tints = rng.uniform(-25, 25, (CASES, 3))
    for number in range(patches):
        drawn = draw_patch(rng, size, tints[number % CASES])
        for kind, pixels in zip(("images", "maps"), drawn, strict=True):
            path = folder / kind / f"P{number % CASES}_{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "tissue.toml").write_text(TissueTable.from_names(["stroma", "gland"]).to_toml(), encoding="utf-8")


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patches", type=int, default=24)
    parser.add_argument("--size", type=int, default=96)
    given = parser.parse_args()
    draw_folder(given.folder, given.patches, given.size)


if __name__ == "__main__":
    main()
