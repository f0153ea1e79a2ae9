"""Draw a canvas layout of five types: fields of glands that meet along wavy fronts, in stroma.

    python benchmarks/five_types.py --size 4096 --out layout.png

Centers of glands are a jittered hexagonal grid; a gland is what is nearer to its center than to any other by a gap.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import KDTree

from histoloom.tissue import TissueTable
from histoloom.weights import find_model

# Type, pitch of its glands in px, gap between them, and how far their outlines are bent; for the bundled model.
FIELDS = (
    ("normal gland", 62, 10, 5),
    ("polyp", 84, 14, 9),
    ("low-grade neoplasia", 104, 14, 14),
    ("high-grade neoplasia", 128, 12, 26),
)


def five_types(table: TissueTable, size: int, seed: int = 0) -> UInt8[np.ndarray, "h w"]:
    """A layout of stroma and the four types of `FIELDS`, `size` px each way."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    bend = [smooth(rng, size, size / 12) * size / 14 for _ in range(2)]
    centers = (np.array([[0.2, 0.25], [0.3, 0.8], [0.75, 0.2], [0.75, 0.75]]) + rng.uniform(-0.06, 0.06, (4, 2))) * size
    found = KDTree(centers).query(np.stack([y + bend[0], x + bend[1]], -1), 2)
    distances, fields = (np.asarray(array) for array in found)
    front = distances[..., 1] - distances[..., 0]
    layout = np.full((size, size), table.find("stroma").id, np.uint8)
    for number, (name, pitch, gap, bent) in enumerate(FIELDS):
        moved = np.stack([y + bent * smooth(rng, size, pitch / 4), x + bent * smooth(rng, size, pitch / 4)], -1)
        here = (fields[..., 0] == number) & (front > 1.2 * pitch)
        near = np.asarray(KDTree(hexagons(rng, size, pitch)).query(moved[here], 2)[0])
        layout[here] = np.where(near[:, 1] - near[:, 0] > gap, table.find(name).id, layout[here])
    return layout


def hexagons(rng: np.random.Generator, size: int, pitch: float) -> np.ndarray:
    """Centers (y, x) of a jittered hexagonal grid."""
    rows = np.arange(-pitch, size + pitch, pitch * 3**0.5 / 2)
    columns = np.arange(-pitch, size + pitch, pitch)
    grid = np.array([(row, column + pitch / 2 * (i % 2)) for i, row in enumerate(rows) for column in columns])
    return grid + rng.uniform(-0.25, 0.25, grid.shape) * pitch


def smooth(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """Smooth noise of variance one whose hills are about 2 `sigma` px wide."""
    step = max(1, int(sigma / 4))
    coarse = gaussian_filter(rng.standard_normal((size // step + 8,) * 2), sigma / step)
    fine = np.asarray(zoom(coarse / coarse.std(), step, order=1), np.float32)
    return fine[:size, :size]


def main() -> None:
    """Draw the layout of the given size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    folder = find_model("ebhi-seg")
    from histoloom.models.pipeline import HistoloomPipeline

    table = HistoloomPipeline.load(folder).table
    Image.fromarray(five_types(table, arguments.size, arguments.seed)).save(arguments.out)


if __name__ == "__main__":
    main()
