"""Which share of the stained pixels of a picture has the color of H&E: real tissue, and photographs.

    python benchmarks/he_share.py FOLDER...

Prints, for each folder of pictures (at most 150, drawn with seed 0) and for the photographs of scikit-image, the least,
the median and the greatest share (`histoloom.stain.he_share`).
"""

import sys
from pathlib import Path

import numpy as np
from skimage import data

from histoloom.pictures import IMAGE_SUFFIXES, read_image
from histoloom.stain import he_share

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
MOST = 150


def show(name: str, shares: list[float]) -> None:
    """Print a row."""
    print(f"| {name} | {len(shares)} | {min(shares):.2f} | {np.median(shares):.2f} | {max(shares):.2f} |")


def main() -> None:
    """Measure every folder."""
    for folder in map(Path, sys.argv[1:]):
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        chosen = np.random.default_rng(0).permutation(len(paths))[:MOST]
        show(str(folder), [he_share(read_image(paths[i])) for i in chosen])
    for name in PHOTOGRAPHS:
        show(name, [he_share(np.ascontiguousarray(getattr(data, name)()[..., :3]))])


if __name__ == "__main__":
    main()
