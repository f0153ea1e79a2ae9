"""`histoloom discover classify`, `maps` and `look` as a user meets them, one after the other."""

import json

import numpy as np
import pytest
from slide_files import write_tiled_tiff


@pytest.fixture
def discovered(histoloom, tmp_path):
    """Two slides by two cases, embedded by a small random encoder, and their types."""
    import torch

    from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder

    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1))), tmp_path / "encoder")
    rng = np.random.default_rng(0)
    (tmp_path / "slides").mkdir()
    stains = np.array([[232, 160, 190], [200, 120, 180], [110, 60, 150]])
    for name in "ab":
        blocks = np.kron(rng.integers(3, size=(5, 6)), np.ones((100, 100), int))
        pixels = np.clip(stains[blocks] + rng.normal(0, 8, (500, 600, 1)), 0, 255).astype(np.uint8)
        write_tiled_tiff(tmp_path / "slides" / f"{name}.tif", pixels)
    embedded = ("embed", "slides", "--out", "found", "--encoder", "encoder", "--size", "32", "--stride", "16")
    for command in (embedded, ("choose", "found"), ("cluster", "found", "--levels", "2,3")):
        ended = histoloom("discover", *command)
        assert ended.code == 0, ended.stderr
    return tmp_path / "found"


def test_types_become_a_classifier_maps_and_a_page(histoloom, fails, discovered, tmp_path):
    steps = ("--steps", 3, "--batch-size", 8, "--input", 24, "--depth", 1, "--val-share", 0.5)
    ended = histoloom("discover", "classify", "found", "--out", "classifier", *steps)
    assert ended.code == 0, ended.stderr
    assert "| 3 |" in ended.stdout
    assert json.loads((tmp_path / "classifier" / "report.json").read_text())["cases"] == 1
    assert (tmp_path / "classifier" / "answers.parquet").is_file()
    for by in ("classifier", "found"):
        ended = histoloom("discover", "maps", "slides", "--by", by, "--out", f"maps-{by}", "--stride", 16)
        assert ended.code == 0, ended.stderr
        assert (tmp_path / f"maps-{by}" / "3" / "geojson" / "b.geojson").is_file()
    ended = histoloom("discover", "look", "found", "--out", "look", "--maps", "maps-found")
    assert ended.code == 0, ended.stderr
    names = tmp_path / "look" / "discovered.toml"
    names.write_text(names.read_text().replace('name = "type 1"', 'name = "stroma"'))
    ended = histoloom("discover", "maps", "slides/a.tif", "--by", "found", "--out", "one", "--names", names)
    assert ended.code == 0, ended.stderr
    assert 'name = "stroma"' in (tmp_path / "one" / "3" / "tissue.toml").read_text()
    cut = ("--low", 0, "--high", 1, "--size", 64, "--min-tissue", 0, "--min-focus", 0, "--out", "patches")
    where = ("--annotations", "maps-found/3/maps", "--tissue", "maps-found/3/tissue.toml")
    ended = histoloom("patches", "slides", *where, *cut)
    assert ended.code == 0, ended.stderr
    told = fails("discover", "maps", "slides", "--by", "found", "--out", "new", "--types", 7)
    assert "there is no level of 7 types; known: 2, 3" in told
    error = fails("discover", "maps", "patches", "--by", "found", "--out", "new", "--slide-mpp", 1)
    assert "--slide-mpp is for slides; a patch dataset keeps its own scale" in error
    told = fails("discover", "maps", "slides", "--by", "slides", "--out", "new")
    assert "slides: holds neither a classifier nor tissue types" in told
    told = fails("discover", "look", "found", "--out", "new", "--names", "none.toml")
    assert "none.toml: cannot read the names" in told
    names.write_text("[[type]]\nid = 0\nmerge = 1\n\n[[type]]\nid = 1\nmerge = 0\n")
    told = fails("discover", "maps", "slides", "--by", "found", "--out", "new", "--names", names)
    assert "merge in a circle: 0 -> 1 -> 0" in told
    told = fails("discover", "classify", "slides", "--out", "new")
    assert "slides: has no tissue types" in told
