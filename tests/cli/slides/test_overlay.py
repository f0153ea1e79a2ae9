"""What a user of `histoloom overlay` types and reads."""

import numpy as np
import pytest
from PIL import Image
from slide_project import cut

from histoloom.patches.store import iter_rows, splits


def test_an_overlay_shows_what_a_dataset_took(project, histoloom):
    cut(histoloom)
    taken = sum(row["source"] == "a.tif" for split in splits("out") for row in iter_rows("out", split))
    code, said, errors = histoloom("overlay", "slides/a.tif", "--dataset", "out", "--out", "a.png", "--edge", "300")
    assert (code, said, errors) == (0, [f"wrote a.png: {taken} patches"], [])
    picture = np.asarray(Image.open(project / "a.png")).astype(int)
    assert max(picture.shape[:2]) == 300
    assert (picture.max(-1) < 60).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--annotation", "annotations/a.geojson"), "give --tissue"),
        (("--ignore", "fat"), "have no effect without --annotation"),
        (("--dataset", "slides"), "not made by `histoloom patches`"),
        (("--out", "tissue.toml/a.png"), "tissue.toml/a.png: cannot be written"),
        (("--out", "a.gif"), "a.gif: cannot be written; give a name that ends in .png or .jpg"),
    ],
)
def test_a_mistake_in_an_overlay_is_one_line(project, histoloom, options, said):
    code, _, errors = histoloom("overlay", "slides/a.tif", "--out", "a.png", *options)
    assert code == 1
    assert len(errors) == 1
    assert said in errors[0]
