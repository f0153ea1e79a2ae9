"""Nearest neighbours among features, block by block, so that memory stays flat at any number of images."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from histoloom.errors import InputError

BLOCK = 1024  # queries at a time: 40 MB of distances to 10,000 keys


def nearest(
    queries: Float[np.ndarray, "n d"], keys: Float[np.ndarray, "m d"], k: int = 1, same: bool = False
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Distances and indices of the k nearest keys of each query, nearest first; exact also where they coincide.

    With `same`, queries are the keys, and none is its own neighbour. Raises InputError where there are too few keys.
    """
    if len(keys) - same < k:
        raise InputError(f"{len(keys)} images have no {k} neighbours each; give more images or a smaller k")
    indices = []
    for start, squares in square_blocks(queries, keys):
        if same:
            squares.diagonal(start).fill_(torch.inf)
        indices.append(squares.topk(k, dim=1, largest=False).indices)
    found = torch.cat(indices).numpy()
    # Squares by matrix products are wrong in the last digits; the few that count are measured again.
    gaps = queries[:, None].astype(np.float64) - keys[found]
    distances = np.sqrt((gaps**2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)


def square_blocks(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Iterator[tuple[int, Tensor]]:
    """First row and squared distances to all of `b`, for BLOCK rows of `a` at a time, in single precision.

    |x|^2 + |y|^2 - 2 x.y about the mean of `b`, where it loses fewest digits.
    """
    centre = b.mean(axis=0)
    rows, keys = (torch.from_numpy(np.asarray(x - centre, np.float32)) for x in (a, b))
    row_norms, key_norms = rows.square().sum(1), keys.square().sum(1)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        squares = torch.addmm(key_norms.expand(len(rows[part]), -1), rows[part], keys.T, alpha=-2)
        yield start, squares.add_(row_norms[part, None]).clamp_(min=0)
