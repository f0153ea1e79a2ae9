"""Crops, banks and woven patches show themselves in a notebook: a short line, and pictures without foreign HTML."""

import numpy as np
import pytest

from histoloom.conditioning.inputs import Crop
from histoloom.generation.bank import CropBank
from histoloom.generation.woven_patch import AnnotatedPatch, Provenance
from histoloom.generation.woven_reader import Woven
from histoloom.tissue import TissueTable

PIXELS, MAP = np.full((40, 32, 3), 200, np.uint8), np.zeros((40, 32), np.uint8)
CROP = Crop(PIXELS, 1, "<script>.png", texture=False)
MADE = Provenance(7, "<script>", (), "map", 1.0, 1.0, 5, "unipc", "abc", "0")


@pytest.mark.parametrize(
    ("shown", "line", "pictures"),
    [
        (CROP, "<Crop of tissue 1: 32 x 40 px from '<script>.png', colors only>", 1),
        (CropBank({"a": [CROP] * 3, "b": [CROP]}), "<CropBank: 2 sets, 4 crops>", 4),
        (AnnotatedPatch(PIXELS, MAP, MADE), "<AnnotatedPatch: 32 x 40 px, seed 7, 0 crops>", 2),
        (
            Woven(
                np.stack([PIXELS] * 20), np.stack([MAP] * 20), [{"image": "<b>"}] * 20, TissueTable.from_names(["a"])
            ),
            "<Woven: 20 patches of 32 x 40 px, 1 tissue type>",
            16,
        ),
    ],
)
def test_what_weaving_takes_and_gives_shows_itself(shown, line, pictures):
    assert repr(shown) == line
    html = shown._repr_html_()
    assert html.count("<img ") == pictures
    assert "<script>" not in html
    assert len(html) < 200_000
