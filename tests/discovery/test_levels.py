import numpy as np
import pytest

from histoloom.discovery.levels import Levels, read_levels, write_levels
from histoloom.errors import InputError


def test_levels_are_read_as_written(tmp_path):
    levels = Levels((1, 2, 4), np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 2, 3]], np.uint8))
    write_levels(levels, tmp_path)
    again = read_levels(tmp_path / "levels.toml")
    assert again.counts == levels.counts
    np.testing.assert_array_equal(again.of, levels.of)


@pytest.mark.parametrize(
    "text",
    ["", "[[level]\n", "level = 3\n", "[[level]]\ntypes = 2\nof = [0, 300]\n", "[[level]]\ntypes = 2\nof = [0, -1]\n",
     "[[level]]\ntypes = 2\nof = [0, 1, 0]\n[[level]]\ntypes = 3\nof = [0, 1]\n",
     "[[level]]\ntypes = 3\nof = [0, 1]\n[[level]]\ntypes = 2\nof = [0, 1]\n",
     "[[level]]\ntypes = 1\nof = [0, 1, 0]\n[[level]]\ntypes = 2\nof = [0, 0, 1]\n"],
)  # fmt: skip
def test_a_table_that_is_no_nesting_is_refused(tmp_path, text):
    (tmp_path / "levels.toml").write_text(text)
    with pytest.raises(InputError, match=r"levels\.toml: is not a table of nested levels .* write it again"):
        read_levels(tmp_path / "levels.toml")


def test_a_missing_table_says_who_writes_it(tmp_path):
    with pytest.raises(InputError, match=r"levels\.toml: not found.*histoloom discover maps"):
        read_levels(tmp_path / "levels.toml")
