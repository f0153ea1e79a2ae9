"""Crops of a reproduction, found again or not: flat ones among them, and maps of one case only."""

from dataclasses import replace

import numpy as np
import pytest

from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError
from histoloom.experiments.context import Run
from histoloom.experiments.measuring import Comparison, _crop_copies, check_measuring, image_set
from histoloom.experiments.recipe import DataSource, Recipe
from histoloom.generation.order import Order
from histoloom.progress import silent
from histoloom.tissue import TissueTable


@pytest.fixture(scope="module")
def patches(make_patches):
    return make_patches(6, 3, 48)


@pytest.fixture
def comparison(patches, tmp_path) -> Comparison:
    table, recipe = TissueTable.from_names(["stroma", "gland", "tumour"]), Recipe(data=DataSource(dataset="patches"))
    run = Run(recipe=recipe, folder=tmp_path, table=table, patches=patches, levels=None, progress=silent)
    return Comparison(run, patches)


@pytest.fixture
def orders(patches) -> list[Order]:
    """Each with a crop of another patch of its case, and one of bare glass."""
    glass = Crop(np.full((24, 24, 3), 240, np.uint8), 0)
    return [
        Order(semantic_map, f"map {i}", [Crop(patches.images[(i + 3) % 6, :32, :32], 0), glass])
        for i, semantic_map in enumerate(patches.semantic_maps)
    ]


def test_flat_crops_are_counted_apart_and_leave_enough_pairs_for_the_line(comparison, patches, orders):
    real = image_set(comparison.run, patches, "train")
    images = patches.images.copy()
    for image, order in zip(images, orders, strict=True):
        image[8:40, 8:40] = order.crops[0].pixels
    found = _crop_copies(comparison, replace(real, images=images), real, orders)
    assert (found["woven"]["rate"], found["woven"]["n"], found["woven"]["flat"]) == (1, 6, 6)
    assert found["same_case"]["rate"] < 0.5


def test_one_held_out_patch_measures_nothing(comparison, patches):
    check_measuring(comparison)
    with pytest.raises(InputError, match="split val has one patch"):
        check_measuring(replace(comparison, held=patches.select([0])))


def test_maps_of_one_case_tell_nothing_of_crops(comparison, patches, orders):
    real = replace(image_set(comparison.run, patches, "train"), cases=["only"] * 6)
    assert _crop_copies(comparison, real, real, orders) == {"woven": None, "same_case": None}
