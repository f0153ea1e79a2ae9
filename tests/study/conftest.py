"""Small sides of a study."""

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def make_side(make_patches) -> Callable:
    """`make_side(name, count, seed, size)`: drawn tissue of two types, five images a case."""

    def make(name: str, count: int, seed: int, size: int = 32):
        from histoloom.evaluation.sources import ImageSet
        from histoloom.tissue import TissueTable

        patches = make_patches(count, max(count // 5, 1), size, 2, seed)
        table = TissueTable.from_names(["stroma", "gland"])
        return ImageSet(
            name,
            "patch dataset",
            "val",
            "PNG",
            patches.images,
            patches.semantic_maps,
            patches.cases,
            patches.names,
            table,
        )

    return make


@pytest.fixture(scope="session")
def sides(make_side):
    """Sixty real and forty synthetic images."""
    return make_side("real", 60, 0), make_side("fake", 40, 1)
