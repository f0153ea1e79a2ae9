"""Patches that resemble a crop or miss their map are replaced or dropped, and counted; pixels that miss become 255."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import files
from PIL import Image

from histoloom.errors import ModelError, OutputError
from histoloom.generation.copy_report import check_report
from histoloom.generation.self_check import CheckConfig, Checking
from histoloom.generation.settings import DrawnMaps, Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.generation.woven_reader import iter_woven, read_dropped
from histoloom.tissue import TissueTable

QUICK = WeaveConfig(steps=1, batch_size=4, tries=1)
MAPS = DrawnMaps(count=6, size=64)


class ByEye:
    """A judge that calls the top quarter lossy, and all of an image that is brighter than the limit."""

    table = TissueTable.from_names(["tumour", "gland", "stroma"])  # other ids than the model's

    def __init__(self, limit: float):
        self.limit = limit

    def relative_loss(self, image, semantic_map):
        assert set(np.unique(semantic_map)) <= {0, 1, 2}
        loss = np.zeros(semantic_map.shape)
        loss[:16] = 2.0
        return loss if image.mean() < self.limit else np.full(semantic_map.shape, 2.0)


def woven(pipeline, out: Path, limit: float, **config) -> list:
    checking = Checking(CheckConfig(judge=out.parent, **config), lambda folder: ByEye(limit))
    weave_folder(pipeline, Source(maps=MAPS, mpp=3.0), QUICK, out, checking=checking)
    return list(iter_woven(out))


def means(pipeline, out: Path) -> list[float]:
    weave_folder(pipeline, Source(maps=MAPS, mpp=3.0), QUICK, out)
    return [float(image.mean()) for _, image, _ in iter_woven(out)]


def test_patches_that_miss_their_map_are_replaced_and_lossy_pixels_become_unlabeled(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    bright = means(pipeline, tmp_path / "unchecked")
    limit = sorted(bright)[4] - 1e-6  # two of six fail at first
    patches = woven(pipeline, tmp_path / "woven", limit, replacements=50)
    assert [int(Path(row["image"]).stem) for row, _, _ in patches] == list(range(6))
    for (row, image, semantic_map), before in zip(patches, bright, strict=True):
        assert image.mean() < limit
        assert (row["rejected_maps"] > 0) == (before >= limit)
        assert row["lossy"] == pytest.approx(0.25)
        assert (semantic_map[:16] == 255).all()
        assert (semantic_map[16:] != 255).all()
        assert row["labeled"] == 48 * 64
    count = sum(row["rejected_maps"] for row, _, _ in patches)
    said = check_report(tmp_path / "woven")
    assert said.startswith(
        f"self-check: {count} patches failed (0 resembled a crop, {count} missed their map); 2 of 6 "
    )
    assert said.endswith("0 could not be replaced and were dropped; 25.0% of the pixels became unlabeled")


def test_patches_that_cannot_be_replaced_are_dropped_and_a_stopped_run_ends_in_the_same_bytes(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    bright = means(pipeline, tmp_path / "unchecked")
    limit = sorted(bright)[3] - 1e-6
    patches = woven(pipeline, tmp_path / "woven", limit, replacements=0)
    kept = [number for number, mean in enumerate(bright) if mean < limit]
    assert [int(Path(row["image"]).stem) for row, _, _ in patches] == kept
    assert [dropped.rejected_maps for dropped in read_dropped(tmp_path / "woven")] == [1, 1, 1]
    assert "3 could not be replaced and were dropped" in check_report(tmp_path / "woven")
    whole = files(tmp_path / "woven")
    (tmp_path / "woven").rename(tmp_path / "again.partial")
    for name in ("index.parquet", f"images/{kept[-1]:05d}.png"):
        (tmp_path / "again.partial" / name).unlink()
    woven(pipeline, tmp_path / "again", limit, replacements=0)
    assert files(tmp_path / "again") == whole
    with pytest.raises(OutputError, match="all 6 patches failed the self-check; loosen it"):
        woven(pipeline, tmp_path / "none", 0.0, replacements=0)


def test_a_patch_above_the_copy_limit_is_no_longer_delivered(make_pipeline, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("stroma", "gland", "tumour"):
        (tmp_path / "crops" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "crops" / name / f"{number}.png")
    source = Source(maps=replace(MAPS, count=4), crops=tmp_path / "crops", mpp=3.0)
    pipeline = make_pipeline()
    strict = replace(QUICK, copy_limit=0.5)
    weave_folder(pipeline, source, strict, tmp_path / "lax")
    scores = [row["copy_score"] for row, _, _ in iter_woven(tmp_path / "lax")]
    limit = sorted(scores)[1]  # at least one patch stays above it, whatever is tried
    strict = replace(QUICK, copy_limit=limit)
    weave_folder(pipeline, source, strict, tmp_path / "lax2")
    above = [row["copy_score"] > limit for row, _, _ in iter_woven(tmp_path / "lax2")]
    assert any(above)
    weave_folder(pipeline, source, strict, tmp_path / "woven", checking=Checking(CheckConfig(replacements=1)))
    delivered = [row for row, _, _ in iter_woven(tmp_path / "woven")]
    assert all(row["copy_score"] <= limit for row in delivered)
    assert len(delivered) + len(read_dropped(tmp_path / "woven")) == 4
    assert sum(row["rejected_copies"] for row in delivered) + len(read_dropped(tmp_path / "woven")) >= sum(above)
    assert json.loads((tmp_path / "woven" / "record.json").read_text())["settings"]["check"]["replacements"] == 1


def test_a_judge_of_other_types_is_refused(make_pipeline, tmp_path):
    class Stranger(ByEye):
        table = TissueTable.from_names(["bone"])

    checking = Checking(CheckConfig(judge=tmp_path), lambda folder: Stranger(0.0))
    with pytest.raises(ModelError, match="the judge knows none of the model's types"):
        weave_folder(make_pipeline(), Source(maps=MAPS), QUICK, tmp_path / "woven", checking=checking)
