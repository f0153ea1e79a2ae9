import numpy as np

from histoloom.conditioning.hiding import without_types
from histoloom.tissue import UNLABELLED


def test_a_hidden_type_takes_the_nearest_other_one():
    semantic_map = np.array([[0, 0, 7, 7, 7, 1, 1]] * 3, np.uint8)
    assert without_types(semantic_map, (7,))[0].tolist() in ([0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1])


def test_a_lumen_becomes_the_gland_around_it():
    semantic_map = np.zeros((40, 40), np.uint8)
    semantic_map[8:32, 8:32] = 3
    gland = semantic_map.copy()
    semantic_map[16:24, 16:24] = 7
    assert np.array_equal(without_types(semantic_map, (7,)), gland)


def test_unlabeled_pixels_stay_and_spread_no_farther_than_they_are_near():
    semantic_map = np.array([[UNLABELLED, 7, 7, 7, 2]], np.uint8)
    found = without_types(semantic_map, (7,))[0]
    assert (found[0], found[1], found[3], found[4]) == (UNLABELLED, UNLABELLED, 2, 2)


def test_a_map_of_hidden_types_alone_becomes_unlabeled():
    assert (without_types(np.full((4, 4), 7, np.uint8), (6, 7)) == UNLABELLED).all()


def test_a_map_without_hidden_types_is_left_alone():
    semantic_map = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert without_types(semantic_map, (200,)) is semantic_map
