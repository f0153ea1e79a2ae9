"""Sets whose maps leave out some types, such as lumens, which a comparison need not tell apart."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from histoloom.conditioning.hiding import without_types
from histoloom.errors import ConfigError, InputError
from histoloom.evaluation.sources import ImageSet, names_of
from histoloom.text import canonical
from histoloom.tissue import TissueTable


def hide_types(names: Sequence[str], sets: Sequence[ImageSet]) -> list[ImageSet]:
    """The sets with maps that leave out the types of these names or aliases: the nearest other type is in their place.

    A type is left out of every set that knows it, by whatever name. Raises ConfigError for a name that is no type of
    any set, InputError for a set that would keep no type.
    """
    types = [tissue for images in sets if images.table is not None for tissue in images.table.types]
    wanted: set[str] = set()
    for name in names:
        same = [tissue for tissue in types if canonical(name) in names_of(tissue)]
        if not same:
            known = sorted({tissue.name for tissue in types})
            raise ConfigError(f"hide: no set has a tissue type {name!r}; known: {', '.join(known) or 'none'}")
        wanted |= set().union(*map(names_of, same))
    return [_without(images, wanted) for images in sets]


def _without(images: ImageSet, names: set[str]) -> ImageSet:
    types = () if images.table is None else images.table.types
    kept = tuple(tissue for tissue in types if names_of(tissue).isdisjoint(names))
    if len(kept) == len(types):
        return images
    if not kept:
        raise InputError(f"{images.where}: all of its types are hidden; name fewer")
    hidden = tuple(tissue.id for tissue in types if tissue not in kept)
    maps = np.stack([without_types(semantic_map, hidden) for semantic_map in images.maps])
    return replace(images, semantic_maps=maps, table=TissueTable(kept), hidden=hidden, whole_maps=images.maps)
