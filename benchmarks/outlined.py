"""Maps as `histoloom lumens` outlines them, for a model that knows lumens; judges keep the maps as they are."""

import numpy as np

from histoloom.patches.bright import USUAL_MPP, LumenRules, bright_areas, light_of_cases
from histoloom.patches.store import Patches
from histoloom.tissue import TissueTable


def outlined(patches: Patches, table: TissueTable) -> np.ndarray:
    """The maps of all patches, in which lumens and glass have the id that `table` gives them."""
    pairs = list(zip(patches.cases, patches.images, strict=True))
    light = light_of_cases((case, image, USUAL_MPP) for case, image in pairs)
    bright = [bright_areas(image, light[case]) for case, image in pairs]
    return np.where(np.stack(bright), np.uint8(table.find(LumenRules().name).id), patches.semantic_maps)
