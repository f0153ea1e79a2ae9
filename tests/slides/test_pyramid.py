"""Levels whose sizes mislead: padded to whole tiles, as many exporters write them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from histoloom.slides.pyramid import find_levels, whole_scales
from histoloom.slides.reader import open_slide

WIDTH, HEIGHT, TILE = 1496, 2096, 256


def picture(seed: int = 0) -> np.ndarray:
    """Tissue with dark squares, whose places show whether a level is read at its scale."""
    rng = np.random.default_rng(seed)
    rough = np.kron(rng.normal(0, 1, (HEIGHT // 8, WIDTH // 8)), np.ones((8, 8)))[..., None]
    base = np.clip(np.array([200, 120, 170]) + 25 * rough, 0, 255).astype(np.uint8)
    for y in range(150, HEIGHT - 100, 300):
        for x in range(150, WIDTH - 100, 300):
            base[y : y + 100, x : x + 100] = (40, 30, 130)
    return base


def padded(pixels: np.ndarray) -> np.ndarray:
    height, width = (-(-edge // TILE) * TILE for edge in pixels.shape[:2])
    whole = np.full((height, width, 3), 245, np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    return whole


def levels(base: np.ndarray, factors: tuple[int, ...]) -> list[np.ndarray]:
    image = Image.fromarray(base)
    return [np.asarray(image.resize((WIDTH // f, HEIGHT // f), Image.Resampling.BOX)) for f in factors]


def write(path: Path, kind: str, factors: tuple[int, ...] = (1, 2, 4, 8), pad=padded) -> Path:
    options = {"photometric": "rgb", "tile": (TILE, TILE), "resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    some = [pad(level) for level in levels(picture(), factors)]
    with tifffile.TiffWriter(path, ome=kind == "ome") as tiff:
        if kind == "ome":
            metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            tiff.write(some[0], subifds=len(some) - 1, metadata=metadata, **options)
        for number, level in enumerate(some[1:] if kind == "ome" else some):
            tiff.write(level, subfiletype=int(number > 0 or kind == "ome"), **options)
    return path


@pytest.mark.parametrize(("kind", "name"), [("generic", "a.tif"), ("ome", "a.ome.tif")])
@pytest.mark.parametrize("factors", [(1, 2, 4, 8), (1, 4), (1, 4, 16)])
def test_padded_levels_are_read_at_their_true_scale(tmp_path, kind, name, factors):
    with open_slide(write(tmp_path / name, kind, factors)) as slide:
        assert [(level.downsample_x, level.downsample_y) for level in slide.levels] == [(f, f) for f in factors]
        assert slide.notes == ()
        for mpp in (1.0, 2.0, 4.0):
            size = int(WIDTH * 0.5 / mpp), int(HEIGHT * 0.5 / mpp)
            dark = slide.read(0, 0, size, mpp).sum(-1) < 360
            truth = np.asarray(Image.fromarray(picture()).resize(size, Image.Resampling.BOX)).astype(int).sum(-1) < 360
            assert (dark & truth).sum() / truth.sum() > 0.8  # all but the rim


def test_a_level_that_shows_nothing_is_reported_as_doubtful(tmp_path):
    def blank(pixels: np.ndarray) -> np.ndarray:
        return np.full_like(padded(pixels), 245)

    with open_slide(write(tmp_path / "a.tif", "generic", pad=blank)) as slide:
        assert len(slide.levels) == 4
        assert any("its pixels do not decide; 4 is used" in note for note in slide.notes)


def test_a_level_of_another_shape_is_not_used_and_reported():
    def white(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), 255, np.uint8)

    found, notes = find_levels([(1000, 800), (500, 400), (250, 100)], [None] * 3, white)
    assert [level.downsample_x for level in found] == [1, 2]
    assert notes == ["level 2 of 250 x 100 px: its scale, 4 across and 8 down, is doubtful; finer levels are used"]


@pytest.mark.parametrize(
    ("full", "tile", "size", "expected"),
    [
        ((4443, 3567), None, (2221, 1783), [2]),
        ((4443, 3567), None, (2222, 1784), [2]),
        ((1000, 800), None, (300, 240), []),
        ((1536, 2304), (256, 256), (768, 1280), [2]),
        ((1536, 2304), (256, 256), (512, 768), [3, 4]),
        ((97792, 221184), (512, 512), (49152, 110592), [2]),
    ],
)
def test_whole_scales_explain_both_edges(full, tile, size, expected):
    assert whole_scales(full, tile, size, tile) == expected
