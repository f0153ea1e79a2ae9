"""Semantic map and crops, as arrays that the network reads.

Nothing here grows with the number of tissue types: a map is one channel of ids, a crop carries its id, and crops of all
samples of a batch lie in one list. "No crop" is a validity of zero, never a grey.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8

from histoloom.errors import ImageError, InputError
from histoloom.tissue import UNLABELLED

Conditioning = Literal["unconditional", "map", "embedding", "crops-in-place", "crops-as-reference"]
MAP_STEP = 2  # px from one sample of the map to the next
CROP_MULTIPLE = 16  # crops are padded to a multiple of this, in px
SMALLEST_CROP = 24  # px; smaller ones show too few nuclei to follow


@dataclass(frozen=True)
class Crop:
    """An exemplar of one tissue type: pixels uint8 `h w 3`, the type's id, and for the record the place it was cut
    from. Without `texture` only its colours are followed: their mean and spread (by `crops-as-reference`; others leave
    it out)."""

    pixels: UInt8[np.ndarray, "h w 3"]
    tissue: int
    source: str = ""  # file or patch
    x: int = 0  # px of the source, top-left corner
    y: int = 0
    texture: bool = True

    def __post_init__(self):
        height, width = self.pixels.shape[:2]
        if min(height, width) < SMALLEST_CROP:
            raise ImageError(
                f"{self.source or 'crop'}: is {width} x {height} px; crops need {SMALLEST_CROP} px or more each way"
            )


@dataclass(frozen=True)
class PackedCrops:
    """Crops of a batch in one list: pixels uint8 `m s s 3`, valid bool `m s s`, types and owners int64 `m`, and of
    which ones texture is shown, bool `m`."""

    pixels: UInt8[np.ndarray, "m s s 3"]
    valid: Bool[np.ndarray, "m s s"]
    types: Int[np.ndarray, " m"]
    samples: Int[np.ndarray, " m"]
    textured: Bool[np.ndarray, " m"]


def type_map(semantic_map: UInt8[np.ndarray, "h w"], num_types: int) -> UInt8[np.ndarray, "y x"]:
    """The map at every MAP_STEP px; unlabelled becomes `num_types`."""
    small = semantic_map[MAP_STEP // 2 :: MAP_STEP, MAP_STEP // 2 :: MAP_STEP]
    if (small[small != UNLABELLED] >= num_types).any():
        raise InputError(
            f"the semantic map holds id {small[small != UNLABELLED].max()}; the model knows {num_types} types"
        )
    return np.where(small == UNLABELLED, np.uint8(num_types), small)


def no_map(height: int, width: int, num_types: int) -> UInt8[np.ndarray, "y x"]:
    """What stands in for a map that was left out."""
    return np.full((height // MAP_STEP, width // MAP_STEP), num_types + 1, np.uint8)


def pack_crops(crops: list[list[Crop]], edge: int = 0) -> PackedCrops | None:
    """Crops of each sample, padded with validity zero to squares of `edge` px, or more where one is larger.

    None when there are none at all. How far a crop is padded is seen by norms, so what it means must not depend on the
    crops beside it: give an edge that none of them exceeds.
    """
    flat = [(owner, crop) for owner, mine in enumerate(crops) for crop in mine]
    if not flat:
        return None
    edge = max(edge, *(max(crop.pixels.shape[:2]) for _, crop in flat))
    edge = -(-edge // CROP_MULTIPLE) * CROP_MULTIPLE
    pixels, valid = np.zeros((len(flat), edge, edge, 3), np.uint8), np.zeros((len(flat), edge, edge), bool)
    for index, (_, crop) in enumerate(flat):
        height, width = crop.pixels.shape[:2]
        pixels[index, :height, :width] = crop.pixels
        valid[index, :height, :width] = True
    types, owners = [crop.tissue for _, crop in flat], [owner for owner, _ in flat]
    textured = np.array([crop.texture for _, crop in flat])
    return PackedCrops(pixels, valid, np.asarray(types, np.int64), np.asarray(owners, np.int64), textured)


def canvas(
    shape: tuple[int, int], crops: list[tuple[Crop, int, int]]
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Crops at their places (crop, y, x) on one canvas and its validity (arXiv 2509.17847, section 3, without loss)."""
    pixels, valid = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
    for crop, y, x in crops:
        height, width = crop.pixels.shape[:2]
        pixels[y : y + height, x : x + width] = crop.pixels[: shape[0] - y, : shape[1] - x]
        valid[y : y + height, x : x + width] = True
    return pixels, valid
