"""What `histoloom.slides` and `histoloom.patches` promise: their names, and that importing them is cheap."""

import subprocess
import sys

import numpy as np
import pytest

import histoloom.patches
import histoloom.slides

HEAVY = {"torch", "diffusers", "openslide", "tifffile", "shapely", "scipy", "pyarrow", "PIL", "numpy"}


@pytest.mark.parametrize("package", [histoloom.patches, histoloom.slides])
def test_public_names_are_those_of_all_and_have_a_docstring(package):
    assert sorted(package.__all__) == list(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
    with pytest.raises(AttributeError, match="Absent"):
        _ = package.Absent


def test_importing_both_loads_nothing_heavy_and_reading_patches_no_torch():
    script = "import sys, histoloom.slides, histoloom.patches; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.split()), done.stderr
    script = "import sys; from histoloom.patches import load_patches, find_pictures, PatchRules; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not {"torch", "openslide", "tifffile"} & set(done.stdout.split()), done.stderr


def test_patches_show_themselves_in_a_line_and_in_a_notebook(make_patches):
    patches = make_patches(count=12, cases=3, size=96)
    assert repr(patches) == "Patches(12 of 3 cases, 96 x 96 px, 0.5 um/px)"
    html = patches._repr_html_()
    assert html.count("data:image/png;base64,") == 16
    assert len(html) < 1_000_000
    odd = histoloom.patches.Patches(
        patches.images[:1], patches.semantic_maps[:1], ["a"], ['<script>"'], np.full(1, np.nan), patches.places[:1]
    )
    assert repr(odd) == "Patches(1 of 1 case, 96 x 96 px)"
    assert "<script>" not in odd._repr_html_()
