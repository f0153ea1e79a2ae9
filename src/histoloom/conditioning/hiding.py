"""Maps without some of their types, as a user draws them who leaves these types out."""

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage

from histoloom.tissue import UNLABELLED


def without_types(semantic_map: UInt8[np.ndarray, "h w"], hidden: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    """The map in which pixels of `hidden` ids have the id of the nearest other pixel, which may be unlabeled.

    A map that shows nothing else becomes unlabeled.
    """
    gone = np.isin(semantic_map, hidden)
    if not gone.any():
        return semantic_map
    if gone.all():
        return np.full_like(semantic_map, UNLABELLED)
    rows, columns = np.asarray(ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True))
    return semantic_map[rows, columns]
