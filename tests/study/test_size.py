"""The size of a study."""

import pytest

from histoloom.errors import ConfigError
from histoloom.readers import RoeMetz
from histoloom.study.size import Design, designs, smallest


def test_a_wide_margin_needs_few_items_and_the_fewest_answers_win():
    found = designs(RoeMetz(reader=0.0), 0.75, 0.7, studies=20)
    assert {design.readers for design in found} == {3, 4, 5, 6, 8, 10, 12}
    assert all(design.power >= 0.7 for design in found if design.n == 120)
    best = smallest(found, 0.7)
    assert best.readers * best.n == min(d.readers * d.n for d in found if d.power >= 0.7)
    assert smallest([Design(3, 40, 0.1)], 0.7) is None


def test_what_no_size_can_reach_is_refused():
    with pytest.raises(ConfigError, match="can tell by a margin"):
        designs(RoeMetz(auc=0.7), 0.6, 0.8)
    with pytest.raises(ConfigError, match="margin must be"):
        designs(RoeMetz(), 1.5, 0.8)
    with pytest.raises(ConfigError, match="power must be"):
        designs(RoeMetz(), 0.6, 1.5)
