"""Which real map a woven patch was made from, and so of which case it is."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from histoloom.evaluation.sources import ImageSet

_PLACE = re.compile(r" \(-?\d+, -?\d+\)$")
_APART = 16  # px, of the pixels by which maps are told apart first


def known_as(name: str) -> list[str]:
    """The names by which a dataset may know what a woven patch names as its map or crop, the likeliest first.

    A place follows the name of a file, `slide.svs (512, 0)`, though a dataset leaves it out where the file is one
    patch; and an order joins two maps to one, `first + second`.
    """
    parts = dict.fromkeys([name, *name.split(" + ")])
    return list(dict.fromkeys([*parts, *(_PLACE.sub("", part) for part in parts)]))


def with_cases(fake: ImageSet, real: Sequence[ImageSet]) -> ImageSet:
    """`fake` with the cases of the real patches whose maps the images were woven from, where they are known.

    Images of one case are not independent, and a classifier must not recognize synthetic images by their case. Of two
    maps that an order has joined, the first whose case is known decides.
    """
    of_name = {name: case for images in real for name, case in zip(images.names, images.cases, strict=True)}
    of_name |= _cases_by_map(real)
    found = {case: of_name[name] for case in fake.cases for name in known_as(case)[::-1] if name in of_name}
    for number, case in enumerate(fake.cases):
        if case not in found:
            same = {images.cases[n] for images in real for n in same_maps(fake, number, images)}
            found |= {case: min(same)} if len(same) == 1 else {}
    return replace(fake, cases=[found.get(case, case) for case in fake.cases])


def same_maps(fake: ImageSet, number: int, real: ImageSet) -> list[int]:
    """Which maps of `real` equal map `number` of `fake` wherever neither shows a type that was left out; none where no
    type was.

    A map in which lumens were outlined is another map by its id, and differs from its original in lumens alone.
    """
    maps, mine = real.maps_as_read, fake.maps_as_read
    if not (fake.hidden or real.hidden) or maps is None or mine is None or mine.shape[1:] != maps.shape[1:]:
        return []
    near = np.arange(len(maps))
    for step in (_APART, 1):  # first a few pixels of all, then all pixels of a few
        theirs, shown = maps[near, ::step, ::step], mine[number, ::step, ::step]
        hidden = np.isin(theirs, real.hidden) | np.isin(shown, fake.hidden)
        near = near[((theirs == shown) | hidden).all(axis=(1, 2)) & ~hidden.all(axis=(1, 2))]
    return near.tolist()


def _cases_by_map(real: Sequence[ImageSet]) -> dict[str, str]:
    """The case of each map by the id of its content, which woven patches hold instead of its file name.

    A map that several cases share names none of them.
    """
    cases: dict[str, set[str]] = {}
    for images in real:
        for identity, case in zip(images.map_ids, images.cases, strict=False):
            cases.setdefault(identity, set()).add(case)
    return {identity: min(of) for identity, of in cases.items() if len(of) == 1}
