"""Semantic map and crops, as arrays that the network reads.

Nothing here grows with the number of tissue types: a map is one channel of ids, a crop carries its id, and crops of all
samples of a batch form one list. "No crop" is a validity of zero, never a gray.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from histoloom.errors import ImageError, InputError
from histoloom.patches.preview import pictures_html
from histoloom.pictures import check_rgb
from histoloom.tissue import UNLABELLED

MAP_STEP = 2  # px from one sample of the map to the next
CROP_MULTIPLE = 16  # crops are padded to a multiple of this, in px
SMALLEST_CROP = 24  # px; smaller ones show too few nuclei to follow


@dataclass(frozen=True, repr=False, eq=False)
class Crop:
    """An exemplar of one tissue type: RGB pixels uint8 `h w 3`, the type's id, and where it was cut from.

    Without `texture` only its colors are followed, their mean and spread; `crops-as-reference` alone reads those, other
    conditionings ignore such a crop. Raises ImageError for other pixels, and for a crop below SMALLEST_CROP px.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    tissue: int
    source: str = ""  # file or patch
    x: int = 0  # px of the source, top-left corner
    y: int = 0
    texture: bool = True

    def __post_init__(self):
        check_rgb(self.pixels, self.source or "crop")
        height, width = self.pixels.shape[:2]
        if min(height, width) < SMALLEST_CROP:
            raise ImageError(
                f"{self.source or 'crop'}: is {width} x {height} px; crops need {SMALLEST_CROP} px or more each way"
            )

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        of = f" from {self.source!r}" if self.source else ""
        return f"<Crop of tissue {self.tissue}: {width} x {height} px{of}{'' if self.texture else ', colors only'}>"

    def _repr_html_(self) -> str:
        return pictures_html(repr(self), [[(self.source, self.pixels)]])


@dataclass(frozen=True, eq=False)
class PackedCrops:
    """Crops of a batch in one list: pixels uint8 `m s s 3`, valid bool `m s s`, types and samples int64 `m`, and which
    crops show their texture, bool `m`."""

    pixels: UInt8[np.ndarray, "m s s 3"]
    valid: Bool[np.ndarray, "m s s"]
    types: Int[np.ndarray, " m"]
    samples: Int[np.ndarray, " m"]
    textured: Bool[np.ndarray, " m"]


def content_id(pixels: np.ndarray) -> str:
    """An id of an image or a map that follows from its pixels alone: 16 hex digits of a SHA-256 of shape and bytes."""
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:16]


def type_map(semantic_map: UInt8[np.ndarray, "h w"], num_types: int) -> UInt8[np.ndarray, "y x"]:
    """The map at every MAP_STEP px; unlabeled becomes `num_types`. Raises InputError for an unknown id."""
    small = semantic_map[MAP_STEP // 2 :: MAP_STEP, MAP_STEP // 2 :: MAP_STEP]
    if (small[small != UNLABELLED] >= num_types).any():
        raise InputError(
            f"the semantic map holds id {small[small != UNLABELLED].max()}; the model knows {num_types} types"
        )
    return np.where(small == UNLABELLED, np.uint8(num_types), small)


def no_map(height: int, width: int, num_types: int) -> UInt8[np.ndarray, "y x"]:
    """The map of a sample whose map is left out."""
    return np.full((height // MAP_STEP, width // MAP_STEP), num_types + 1, np.uint8)


def pack_crops(crops: list[list[Crop]], edge: int = 0) -> PackedCrops | None:
    """Crops of each sample, padded with validity zero to squares of `edge` px, or more where a crop is larger.

    None where there are no crops at all. Norms see how far a crop is padded, so a crop must not depend on the others in
    the list: give an edge that none of them exceeds.
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
