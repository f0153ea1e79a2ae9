"""Nearest neighbors among features, block by block, so that memory stays flat at any number of images."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from histoloom.errors import InputError

BLOCK = 1024  # queries at a time: 40 MB of distances to 10,000 keys
SPARE = 8  # candidates beyond k that are measured again in double precision
SLACK = 2e-5  # error of a squared distance in single precision over the squared lengths, at most


def nearest(
    queries: Float[np.ndarray, "n d"], keys: Float[np.ndarray, "m d"], k: int = 1, same: bool = False
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Distances to, and indices of, the k nearest keys of each query, nearest first; exact even where they coincide.

    With `same`, the queries are the keys, and none is its own neighbor. Raises InputError for too few keys.
    """
    if len(keys) - same < k:
        raise InputError(f"need more than {k} images for {k} neighbors each; got {len(keys)}")
    distances, indices, center = [], [], keys.mean(axis=0)
    for start, squares in square_blocks(queries, keys):
        if same:
            squares.diagonal(start).fill_(torch.inf)
        # Squares by matrix products are wrong in the last digits: a few more candidates are measured again.
        candidates = squares.topk(min(k + SPARE, len(keys) - same), dim=1, largest=False)
        rows, found = queries[start : start + len(squares)], candidates.indices.numpy()
        exact = exact_squares(rows[:, None], keys[found])
        order = np.lexsort((found, exact), axis=1)[:, :k]
        exact, found = (np.take_along_axis(of, order, 1) for of in (exact, found))
        if len(keys) - same > k + SPARE:
            missed = _least_missed(candidates.values.numpy().max(axis=1), exact_squares(rows, center))
            for row in np.flatnonzero(exact[:, -1] > missed).tolist():  # many keys lie closer together than digits tell
                exact[row], found[row] = _measured(rows[row], keys, k, start + row if same else None)
        distances.append(np.sqrt(exact))
        indices.append(found)
    return np.concatenate(distances), np.concatenate(indices)


def _least_missed(farthest: Float[np.ndarray, " n"], lengths: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A lower bound of the squared distances of all keys that are not candidates.

    In single precision it is not below that of the `farthest` candidate; `lengths` are the squared lengths of the
    queries, and that of the key is at most twice their sum with its squared distance.
    """
    return (farthest - 3 * SLACK * lengths) / (1 + 2 * SLACK)


def _measured(
    query: Float[np.ndarray, " d"], keys: Float[np.ndarray, "m d"], k: int, own: int | None
) -> tuple[Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Squared distances and indices of the k nearest of all keys but its `own`, in double precision."""
    squares = exact_squares(query, keys)
    if own is not None:
        squares[own] = np.inf
    order = np.argsort(squares, kind="stable")[:k]
    return squares[order], order


def exact_squares(a: Float[np.ndarray, "... d"], b: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "..."]:
    """Squared distances in double precision; the same pair gives the same bits, whichever way round."""
    return np.square(a.astype(np.float64) - b.astype(np.float64)).sum(axis=-1)


def square_blocks(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Iterator[tuple[int, Tensor]]:
    """First row and squared distances to all of `b`, for BLOCK rows of `a` at a time, in single precision.

    |x|^2 + |y|^2 - 2 x.y about the mean of `b`, where it loses the fewest digits.
    """
    center = b.mean(axis=0)
    rows, keys = (torch.from_numpy(np.asarray(x - center, np.float32)) for x in (a, b))
    row_norms, key_norms = rows.square().sum(1), keys.square().sum(1)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        squares = torch.addmm(key_norms.expand(len(rows[part]), -1), rows[part], keys.T, alpha=-2)
        yield start, squares.add_(row_norms[part, None]).clamp_(min=0)
