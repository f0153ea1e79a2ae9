"""Crops of the case of each map, and of no other; named as the rest of what is written is."""

import numpy as np
import pytest
from drawn_dataset import write_drawn_dataset

from histoloom.conditioning.inputs import content_id
from histoloom.errors import ConfigError, InputError, TissueError
from histoloom.generation.orders import make_orders
from histoloom.generation.settings import DrawnMaps, Source
from histoloom.patches.store import load_patches
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])
MODEL = TissueTable.from_names(["gland", "stroma"])  # the same types by other ids


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twelve patches of four cases."""
    return write_drawn_dataset(tmp_path_factory.mktemp("lenders") / "dataset", TABLE, 12, 4, 96)


def test_crops_come_from_other_patches_of_the_case_with_the_ids_of_the_model(dataset):
    patches = load_patches(dataset, "train")
    orders = make_orders(Source(maps=dataset, split="train", crops=dataset, record_names=True), MODEL, 0, None)
    lent = [number for number in range(len(orders)) if orders[number].crops]
    assert len(orders) == 12
    assert len(lent) >= 4  # the cases of others have no patch that shows other tissue for certain
    for number in lent:
        order = orders[number]
        assert {crop.tissue for crop in order.crops} == {0, 1}
        lenders = [patches.names.index(crop.source) for crop in order.crops]
        assert number not in lenders
        assert {patches.cases[i] for i in lenders} == {patches.cases[number]}
        assert [c.source for c in orders[number].crops] == [c.source for c in order.crops]
        np.testing.assert_array_equal(order.semantic_map, 1 - patches.semantic_maps[number])
    other = orders.replacement(lent[0], 1)
    assert [c.pixels.tobytes() for c in other.crops] != [c.pixels.tobytes() for c in orders[lent[0]].crops]


def test_maps_of_wanted_types_are_woven_several_times_with_crops_of_their_own_cases(dataset):
    patches = load_patches(dataset, "train")
    shows = [number for number, one in enumerate(patches.semantic_maps) if (one == 1).any()]
    source = Source(maps=dataset, split="train", crops=dataset, only=("gland",), per_map=3, record_names=True)
    orders = make_orders(source, MODEL, 0, None)
    assert len(orders) == 3 * len(shows)
    for place, number in enumerate(shows):
        mine = [orders[3 * place + turn] for turn in range(3)]
        for order in mine:
            np.testing.assert_array_equal(order.semantic_map, 1 - patches.semantic_maps[number])
            assert {patches.cases[patches.names.index(crop.source)] for crop in order.crops} <= {patches.cases[number]}
    lent = [number for number, order in enumerate(orders) if order.crops]
    assert len({tuple(crop.pixels.tobytes() for crop in orders[number].crops) for number in lent}) > len(lent) // 3
    assert orders.inputs().sources["maps"]


def test_wanted_types_that_are_nowhere_and_options_without_effect_are_refused(dataset, tmp_path):
    with pytest.raises(TissueError, match="tumor"):
        make_orders(Source(maps=dataset, split="train", only=("tumor",)), MODEL, 0, None)
    three = TissueTable.from_names(["gland", "stroma", "tumor"])
    with pytest.raises(InputError, match="no map shows tumor"):
        make_orders(Source(maps=dataset, split="train", only=("tumor",)), three, 0, None)
    with pytest.raises(ConfigError, match="--only and --per-map have no effect without --maps"):
        Source(per_map=2)
    with pytest.raises(ConfigError, match="per_map"):
        Source(maps=tmp_path, per_map=0)


def test_names_stay_in_the_key_file_unless_they_are_asked_for(dataset):
    patches = load_patches(dataset, "train")
    orders = make_orders(Source(maps=dataset, split="train", crops=dataset), MODEL, 0, None)
    ids = {content_id(image): name for image, name in zip(patches.images, patches.names, strict=True)}
    assert {crop.source for number in range(12) for crop in orders[number].crops} <= ids.keys()
    inputs = orders.inputs()
    assert inputs.sources["crops"] == {identity: [name] for identity, name in ids.items()}
    assert inputs.fingerprints["crops"] != inputs.fingerprints["maps"]


def test_a_dataset_lends_to_its_own_maps_alone(dataset):
    with pytest.raises(ConfigError, match="lend crops to its own maps only; give it as --maps"):
        make_orders(Source(maps=DrawnMaps(), crops=dataset), MODEL, 0, None)


@pytest.mark.parametrize("record_names", [False, True])
def test_a_patch_that_overlaps_by_its_place_in_the_slide_lends_nothing(tmp_path, record_names):
    """Twelve patches of 96 px in two slides, 88 px apart: too narrow an overlap to be seen in their pixels."""
    dataset = write_drawn_dataset(tmp_path / "dataset", TABLE, 12, 2, 96, step=88)
    patches = load_patches(dataset, "train")
    called = patches.names if record_names else [content_id(image) for image in patches.images]
    orders = make_orders(Source(maps=dataset, split="train", crops=dataset, record_names=record_names), MODEL, 0, None)
    apart = set()
    for turn in range(4):
        for number in range(12):
            crops = orders.replacement(number, turn).crops
            apart |= {abs(called.index(crop.source) - number) // 2 for crop in crops}
    assert apart == {2, 3, 4, 5}
