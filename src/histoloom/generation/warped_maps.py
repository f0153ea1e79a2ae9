"""New maps from real ones: turned, mirrored, scaled and bent; or parts of two on either side of a wavy line.

No two are the same, since each is drawn by its own seed, and none is the map that it was made from.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from histoloom.errors import InputError
from histoloom.generation.layouts import wavy_front

SCALES = (0.85, 1.18)  # least and largest enlargement
BEND, BENDS = 0.02, 6  # standard deviation of the bending, in edges of the patch, and how often it may turn
MOST_BEYOND = 1.5  # edges of the map that a patch may have; beyond a map, it is mirrored


def warped(
    semantic_map: UInt8[np.ndarray, "h w"], size: int, rng: np.random.Generator, where: str = "map"
) -> UInt8[np.ndarray, "s s"]:
    """A square of `size` pixels of the map, warped; raises InputError for a map that is too small for it."""
    shortest = min(semantic_map.shape)
    if size > MOST_BEYOND * shortest:
        raise InputError(
            f"{where}: has {semantic_map.shape[1]} x {semantic_map.shape[0]} px, too few for patches of {size} px; "
            f"order at most {int(MOST_BEYOND * shortest)} px"
        )
    angle, scale = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(*np.log(SCALES)))
    mirror = -1 if rng.random() < 0.5 else 1
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / scale
    y, x = y + _bending(size, rng), mirror * x + _bending(size, rng)
    rows = np.cos(angle) * y - np.sin(angle) * x + _center(semantic_map.shape[0], size, rng)
    columns = np.sin(angle) * y + np.cos(angle) * x + _center(semantic_map.shape[1], size, rng)
    return semantic_map[_mirrored(rows, semantic_map.shape[0]), _mirrored(columns, semantic_map.shape[1])]


def joined(
    one: UInt8[np.ndarray, "s s"], other: UInt8[np.ndarray, "s s"], rng: np.random.Generator
) -> UInt8[np.ndarray, "s s"]:
    """One map on one side of a wavy line through the middle, the other on the other side."""
    return np.where(wavy_front(rng, len(one)) > 0, one, other)


def _bending(size: int, rng: np.random.Generator) -> Float[np.ndarray, "s s"]:
    """How far each pixel is moved along one axis."""
    coarse = Image.fromarray(rng.standard_normal((BENDS, BENDS)).astype(np.float32))
    return BEND * size * np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _center(edge: int, size: int, rng: np.random.Generator) -> float:
    """Where the middle of a patch is on an edge of the map: anywhere that keeps it inside, else near the middle."""
    room = max((edge - size) / 2, 0.05 * edge)
    return (edge - 1) / 2 + rng.uniform(-room, room)


def _mirrored(places: Float[np.ndarray, "h w"], edge: int) -> np.ndarray:
    """Places as indices; beyond the first and the last pixel, the map is mirrored."""
    period = 2 * (edge - 1)
    folded = np.rint(places).astype(np.int64) % period
    return np.minimum(folded, period - folded)
