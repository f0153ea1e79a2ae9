"""Views of a patch: the eight symmetries of the square. Tissue has no up and no left, so all are equally true."""

import numpy as np
from jaxtyping import Shaped


def dihedral(array: Shaped[np.ndarray, "h w *c"], which: int) -> Shaped[np.ndarray, "h2 w2 *c"]:
    """One of the eight symmetries of the square, `which` in 0..7: quarter turns by `which % 4`, mirrored from 4 on."""
    turned = np.rot90(array, which % 4)
    return np.ascontiguousarray(turned[:, ::-1] if which >= 4 else turned)


def dihedral_back(array: Shaped[np.ndarray, "h w *c"], which: int) -> Shaped[np.ndarray, "h2 w2 *c"]:
    """Undo `dihedral(array, which)`."""
    mirrored = array[:, ::-1] if which >= 4 else array
    return np.ascontiguousarray(np.rot90(mirrored, -(which % 4)))
