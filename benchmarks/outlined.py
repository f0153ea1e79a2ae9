"""Maps as `histoloom lumens` outlines them, for a model that knows lumens; judges keep the maps as they are."""

import numpy as np

from histoloom.patches.bright import LumenRules, bright_areas, white_level
from histoloom.patches.store import Patches
from histoloom.tissue import TissueTable


def outlined(patches: Patches, table: TissueTable) -> np.ndarray:
    """The maps of all patches, in which lumens and glass have the id that `table` gives them."""
    white: dict[str, float] = {}
    for case, image in zip(patches.cases, patches.images, strict=True):
        white[case] = max(white_level(image), white.get(case, 0.0))
    bright = [bright_areas(image, white[case]) for case, image in zip(patches.cases, patches.images, strict=True)]
    return np.where(np.stack(bright), np.uint8(table.find(LumenRules().name).id), patches.semantic_maps)
