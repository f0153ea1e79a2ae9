"""Small maps and crops, and the call that weaves them."""

import numpy as np

KINDS = ("unconditional", "map", "embedding", "crops-in-place", "crops-as-reference")


def halves(*types: int, size: int = 64) -> np.ndarray:
    """A map of upright stripes, one per type."""
    return np.repeat(np.array(types, np.uint8), size // len(types))[None].repeat(size, 0)


def grain(seed: int, height: int = 40, width: int = 32) -> np.ndarray:
    """A crop of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def weave(pipeline, semantic_map, crops=None, **options) -> np.ndarray:
    """Images in three steps from seed 5, unless the options say otherwise."""
    return pipeline(semantic_map, crops, **{"steps": 3, "seed": 5} | options)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two images, in levels of 255."""
    return int(np.abs(one.astype(int) - other).max())
