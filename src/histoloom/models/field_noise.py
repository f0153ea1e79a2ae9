"""Noise of a field of any size: a value is a function of seed, draw, place and channel.

Each block of 8 x 8 places has a stream of its own: the counter-based generator Philox (Salmon et al. 2011) with the
seed as key and (draw, row, column) of the block as counter. So any part of a field can be drawn alone, by anybody.
"""

import numpy as np
from jaxtyping import Float32

BLOCK = 8  # places along the edge of a block; bands of a field are as high


def field_noise(seed: int, draw: int, channels: int, row: int, height: int, width: int) -> Float32[np.ndarray, "c h w"]:
    """Standard normal noise of the places from the first of block row `row` on, `height` (at most BLOCK) by `width`."""
    blocks = [_block(seed, draw, channels, row, column) for column in range(-(-width // BLOCK))]
    return np.concatenate(blocks, axis=2)[:, :height, :width]


def offset(seed: int, draw: int, axis: int, limit: int) -> int:
    """A whole number from 0 to `limit` - 1, for the windows of one step along one axis."""
    key, counter = [seed % 2**64, 1], [0, draw, axis, 0]
    return int(np.random.Generator(np.random.Philox(key=key, counter=counter)).integers(limit))


def _block(seed: int, draw: int, channels: int, row: int, column: int) -> Float32[np.ndarray, "c b b"]:
    # The lowest word counts within the stream.
    bits = np.random.Philox(key=[seed % 2**64, 0], counter=[0, draw, row, column])
    return np.random.Generator(bits).standard_normal((channels, BLOCK, BLOCK), dtype=np.float32)
