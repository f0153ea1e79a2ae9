"""Turn overlapping windows into a map that is finer than they are: all windows over a cell vote for its type.

Windows start a cell apart and cover several cells each way. A window votes for its types, most in its middle (a Hann
taper) and in proportion to its share of tissue; a Gaussian over cells smooths the votes. Taper and Gaussian are one
kernel, convolved row by row, so memory does not grow with the height of a slide.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from histoloom.tissue import UNLABELLED


def vote_kernel(cells: int, smooth: float) -> Float[np.ndarray, " j"]:
    """The weight of a window for the cells along one axis, from `reach` cells before it to `reach` cells after it.

    `cells` is its edge, `smooth` the sigma of the Gaussian in cells; the reach is 3 sigma, rounded up. Sums to 1.
    """
    taper = np.sin(np.pi * (np.arange(cells) + 0.5) / cells) ** 2
    reach = reach_of(smooth)
    offsets = np.arange(-reach, reach + 1)
    gaussian = np.exp(-0.5 * (offsets / smooth) ** 2) if reach else np.ones(1)
    kernel = np.convolve(taper, gaussian)
    return kernel / kernel.sum()


def reach_of(smooth: float) -> int:
    """Cells that a vote extends beyond its window."""
    return int(np.ceil(3 * smooth))


def cell_rows(
    window_rows: Iterable[tuple[Float[np.ndarray, "c k"], Float[np.ndarray, " c"]]], cells: int, smooth: float
) -> Iterator[tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " n"]]]:
    """Probabilities and total weight of each row of cells, while the rows of windows arrive.

    A row of windows is the probabilities and weights of windows that start at cells 0, 1, ...; there are `cells` - 1
    more rows, and cells in a row, than windows. Probabilities are 0 where no window votes.
    """
    kernel, reach = vote_kernel(cells, smooth), reach_of(smooth)
    waiting: list[np.ndarray] = []  # rows of cells that later windows still vote for
    first, row = 0, -1  # numbers of the first of those rows and of the last row of windows
    for row, (votes, weights) in enumerate(window_rows):
        joined = np.concatenate([votes * weights[:, None], weights[:, None]], 1)
        spread = _spread(joined.astype(np.float32), kernel, reach, cells)
        for offset, share in enumerate(kernel.astype(np.float32)):
            at = row - reach + offset - first
            if row - reach + offset < 0:
                continue
            while len(waiting) <= at:
                waiting.append(np.zeros_like(spread))
            waiting[at] += share * spread
        while first <= row - reach:
            yield _divided(waiting.pop(0))
            first += 1
    for sums in waiting[: row + cells - first]:
        yield _divided(sums)


def _spread(joined: Float[np.ndarray, "c m"], kernel: Float[np.ndarray, " j"], reach: int, cells: int) -> np.ndarray:
    """Votes of a row of windows, distributed to the cells of that row."""
    wide = np.zeros((len(joined) + len(kernel) - 1, joined.shape[1]), np.float32)
    for offset, share in enumerate(kernel.astype(np.float32)):
        wide[offset : offset + len(joined)] += share * joined
    return wide[reach : reach + len(joined) + cells - 1]


def _divided(sums: Float[np.ndarray, "n m"]) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, " n"]]:
    weight = sums[:, -1]
    return sums[:, :-1] / np.maximum(weight, 1e-12)[:, None], weight


def finer_rows(rows: Iterable[Float[np.ndarray, "n k"]], factor: int) -> Iterator[Float[np.ndarray, "f m k"]]:
    """Each row of cells as `factor` rows of pixels, `factor` per cell: bilinear between the centers of cells."""
    rows = iter(rows)
    current = next(rows, None)
    before = current
    while current is not None:
        after = next(rows, None)
        three = [before, current, current if after is None else after]
        yield _between(np.stack([_between_columns(row, factor) for row in three]), factor)
        before, current = current, after


def _weights(factor: int) -> list[tuple[int, float]]:
    """For each pixel of a cell: the neighbor it is interpolated with (-1 or 1), and the weight of that neighbor."""
    offsets = (np.arange(factor) + 0.5) / factor - 0.5
    return [(1 if offset > 0 else -1, float(abs(offset))) for offset in offsets]


def _between(three: Float[np.ndarray, "3 m k"], factor: int) -> Float[np.ndarray, "f m k"]:
    return np.stack([(1 - share) * three[1] + share * three[1 + side] for side, share in _weights(factor)])


def _between_columns(row: Float[np.ndarray, "n k"], factor: int) -> Float[np.ndarray, "m k"]:
    left, right = np.concatenate([row[:1], row[:-1]]), np.concatenate([row[1:], row[-1:]])
    parts = [(1 - share) * row + share * (right if side > 0 else left) for side, share in _weights(factor)]
    return np.stack(parts, 1).reshape(-1, row.shape[1])


def most_likely(probabilities: Float[np.ndarray, "*s k"], ancestors: Int[np.ndarray, "l k"]) -> UInt8[np.ndarray, "*s"]:
    """The finest type, decided from coarse to fine: the most likely coarse type, within it the most likely finer one.

    Each coarser map is then as good as if it were drawn alone, and the maps of all levels are nested. 255 where all
    probabilities are 0.
    """
    open_types = probabilities
    for types in ancestors[:-1]:
        order = np.argsort(types, kind="stable")
        starts = np.searchsorted(types[order], np.arange(types.max() + 1))
        summed = np.add.reduceat(open_types[..., order], starts, axis=-1)
        chosen = summed.argmax(-1)
        open_types = np.where(types == chosen[..., None], open_types, 0)
    found = open_types.argmax(-1).astype(np.uint8)
    return np.where(open_types.max(-1) > 0, found, np.uint8(UNLABELLED))
