"""Which crop each part of a canvas follows.

Each connected region of a type chooses one crop per coarse cell, and between the centers of cells the choices are
blended. All come from sets whose stains are alike, so that stain does not jump.
"""

import numpy as np
from jaxtyping import Float, UInt8

from histoloom.canvas.layout import BLOCK, Regions
from histoloom.conditioning.inputs import Crop
from histoloom.generation.bank import CropBank

CANDIDATES = 4  # crops of a type that the regions of a canvas choose from


def candidates(bank: CropBank, regions: Regions, seed: int) -> dict[int, list[Crop]]:
    """By type, the crops to choose from: those of a set that is drawn for the most common type, then of the sets
    nearest to it in the color of a type that they share.

    Types that the bank lacks are left out.
    """
    wanted = sorted(regions.labels, key=lambda tissue: -int(regions.pixels[tissue]))
    having = {
        tissue: [n for n, crops in bank.sets.items() if any(c.tissue == tissue for c in crops)] for tissue in wanted
    }
    having = {tissue: names for tissue, names in having.items() if names}
    if not having:
        return {}
    rng = np.random.default_rng((seed, 2))
    first = next(iter(having.values()))
    main = first[int(rng.integers(len(first)))]
    chosen = {}
    for tissue, names in having.items():
        nearest = sorted(names, key=lambda name: (_distance(bank.sets[name], bank.sets[main]), name))
        mine = [crop for name in nearest for crop in bank.sets[name] if crop.tissue == tissue]
        chosen[tissue] = mine[:CANDIDATES]
    return chosen


class Choices:
    """The crop of each place of a canvas: a function of seed, type, region and cell of `cell` px."""

    def __init__(self, crops: dict[int, list[Crop]], regions: Regions, cell: float, seed: int):
        self.crops, self._regions, self._cell, self._seed = crops, regions, cell, seed
        rows, columns = next(iter(regions.labels.values())).shape
        self._last = int(rows * BLOCK / cell), int(columns * BLOCK / cell)

    def read(
        self, y: int, x: int, semantic_map: UInt8[np.ndarray, "h w"], step: int
    ) -> tuple[list[Crop], Float[np.ndarray, "m y2 x2"]]:
        """The crops of a window whose corner is (y, x), and their shares in cells of `step` px; they sum to one."""
        rows = y + step * (np.arange(semantic_map.shape[0] // step) + 0.5)
        columns = x + step * (np.arange(semantic_map.shape[1] // step) + 0.5)
        shown, shares = [], []
        for tissue in np.unique(semantic_map).tolist():
            if tissue not in self.crops:
                continue
            of_crop = self._shares(tissue, rows, columns)
            shown += [self.crops[tissue][number] for number in of_crop]
            shares += list(of_crop.values())
        empty = np.zeros((0, len(rows), len(columns)), np.float32)
        return shown, np.stack(shares) if shares else empty

    def _shares(
        self, tissue: int, rows: Float[np.ndarray, " y"], columns: Float[np.ndarray, " x"]
    ) -> dict[int, Float[np.ndarray, "y x"]]:
        """By number of the crop, its share of each place, where it has any."""
        labels = self._regions.labels[tissue]
        places = [
            np.clip(c // BLOCK, 0, edge - 1).astype(int) for c, edge in zip((rows, columns), labels.shape, strict=True)
        ]
        region = labels[np.ix_(*places)]
        down, across = (self._corners(c, last) for c, last in zip((rows, columns), self._last, strict=True))
        shares: dict[int, np.ndarray] = {}
        for number in np.unique(region[region > 0]).tolist():
            here = region == number
            for cell_y, of_rows in down.items():
                for cell_x, of_columns in across.items():
                    weight = here * np.outer(of_rows, of_columns)
                    if weight.any():
                        crop = self._choose(tissue, number, cell_y, cell_x)
                        shares[crop] = shares.get(crop, 0) + weight.astype(np.float32)
        return dict(sorted(shares.items()))

    def _corners(self, places: Float[np.ndarray, " n"], last: int) -> dict[int, Float[np.ndarray, " n"]]:
        """By cell, its weight at each place: one at its center, and falling to zero at those of its neighbors."""
        position = places / self._cell - 0.5
        cells = np.arange(int(np.floor(position.min())), int(np.floor(position.max())) + 2)
        weights: dict[int, np.ndarray] = {}
        for cell in cells.tolist():
            weight = np.clip(1 - np.abs(position - cell), 0, None)
            mine = min(max(cell, 0), last)
            weights[mine] = weights.get(mine, 0) + weight
        return weights

    def _choose(self, tissue: int, region: int, cell_y: int, cell_x: int) -> int:
        return int(
            np.random.default_rng((self._seed, tissue, region, cell_y, cell_x)).integers(len(self.crops[tissue]))
        )


def _distance(one: list[Crop], other: list[Crop]) -> float:
    """Distance of the mean colors of two sets, of the first type that both show where there is one, in RGB units."""
    shared = sorted({c.tissue for c in one} & {c.tissue for c in other})[:1]
    return float(np.linalg.norm(_color(one, shared) - _color(other, shared)))


def _color(crops: list[Crop], shared: list[int]) -> Float[np.ndarray, " 3"]:
    mine = [c.pixels.reshape(-1, 3).mean(0) for c in crops if c.tissue in shared or not shared]
    return np.mean(mine, axis=0)
