import numpy as np
import pytest

from histoloom.augmentation import dihedral, dihedral_back

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_the_square_has_eight_symmetries_and_each_keeps_every_pixel():
    square = IMAGE[:, :4]
    views = {dihedral(square, which).tobytes() for which in range(8)}
    assert len(views) == 8
    assert all(sorted(view) == sorted(square.tobytes()) for view in views)
    assert np.array_equal(dihedral(square, 0), square)


@pytest.mark.parametrize("which", range(8))
def test_every_symmetry_can_be_undone(which):
    for array in (IMAGE, IMAGE[..., 0]):
        assert np.array_equal(dihedral_back(dihedral(array, which), which), array)
        assert dihedral(array, which).flags.c_contiguous


def test_the_first_four_are_quarter_turns_and_the_others_their_mirror_images():
    assert dihedral(IMAGE, 1).shape == (6, 4, 3)
    for turns in range(4):
        assert np.array_equal(dihedral(IMAGE, turns), np.rot90(IMAGE, turns))
        assert np.array_equal(dihedral(IMAGE, turns + 4), np.rot90(IMAGE, turns)[:, ::-1])
