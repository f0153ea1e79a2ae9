"""The crops that generated patches name: cut again from the real patch of that name, or taken from a crop bank.

Names in a file are looked up among known names. They never become paths, so that a foreign index opens nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.inputs import SMALLEST_CROP, Crop, content_id
from histoloom.evaluation.map_origin import known_as
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.woven_patch import CropUse

UNKNOWN = "the name of no real patch, and of no file of a bank (--crops)"
SEVERAL = "the name of several patches or files"
OUTSIDE = "a place outside the patch or file of that name"


@dataclass(frozen=True, eq=False)
class UsedCrop:
    """A crop, the number of the woven patch that names it, and its source: patch `index` of `lender`, or without a
    lender a file of a bank. The pixels are oriented as in the source, not as the crop was used."""

    woven: int
    source: str
    pixels: UInt8[np.ndarray, "h w 3"]
    lender: ImageSet | None = None
    index: int = 0


@dataclass(frozen=True)
class UsedCrops:
    """The crops that were found, and the number of missing ones by reason."""

    found: list[UsedCrop]
    missing: dict[str, int]

    @property
    def named(self) -> int:
        """All crops that the woven patches name."""
        return len(self.found) + sum(self.missing.values())


def find_crops(fake: ImageSet, real: Sequence[ImageSet], bank: Sequence[Crop] = ()) -> UsedCrops:
    """The crops of all woven patches in `fake`, by name or id from the datasets among `real` and the files of a `bank`.

    Only patch datasets lend crops, because a place in a patch has no meaning for plain folders of images. A name that
    several patches share, such as that of a slide, identifies no crop.
    """
    lenders: dict[str, list[tuple[ImageSet, int] | Crop]] = defaultdict(list)
    for images in real:
        for index, name in enumerate(images.names if images.kind == "patch dataset" else []):
            lenders[name].append((images, index))
            # File names are not in woven patches unless asked for; images of one id have the same pixels.
            lenders[content_id(images.images[index])] = [(images, index)]
    for crop in bank:
        lenders[crop.source].append(crop)
        lenders[content_id(crop.pixels)] = [crop]
    found, missing = [], Counter()
    for woven, use in ((i, use) for i, crops in enumerate(fake.crops) for use in crops):
        known = next((lenders[name] for name in known_as(use.source) if name in lenders), [])
        crop = _crop(woven, use, known[0]) if len(known) == 1 else SEVERAL if known else UNKNOWN
        if isinstance(crop, UsedCrop):
            found.append(crop)
        else:
            missing[crop] += 1
    return UsedCrops(found, dict(missing))


def _crop(woven: int, use: CropUse, lender: tuple[ImageSet, int] | Crop) -> UsedCrop | str:
    """The crop, or the reason why the source does not have it."""
    if isinstance(lender, Crop):
        same = (use.x, use.y, use.height, use.width) == (0, 0, *lender.pixels.shape[:2])
        return UsedCrop(woven, use.source, lender.pixels) if same else OUTSIDE
    images, index = lender
    height, width = images.images.shape[1:3]
    fits = 0 <= use.x <= width - use.width and 0 <= use.y <= height - use.height
    if not fits or min(use.width, use.height) < SMALLEST_CROP:
        return OUTSIDE
    pixels = images.images[index, use.y : use.y + use.height, use.x : use.x + use.width]
    return UsedCrop(woven, use.source, pixels, images, index)
