"""A slide whose pixels encode their own coordinates is read back; real slides and broken files follow.

The test slide is made of waves, so that resampling and JPEG keep it readable: `slide_files.coordinate_image`.
"""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scanner_files import FORMATS
from slide_files import (
    MPP,
    WAVE,
    coordinate_image,
    reduced,
    write_aperio,
    write_image,
    write_ome_tiff,
    write_stripped_tiff,
    write_tiled_tiff,
)

from histoloom.errors import SlideError
from histoloom.slides.reader import Slide, open_slide


def position_error(pixels: np.ndarray, x: float, y: float, scale: float) -> float:
    """Largest distance, in output pixels, between where pixels say they are and where they were asked from."""
    height, width = pixels.shape[:2]
    values = (pixels.astype(float) - 127.5) / 110
    want_x = 2 * np.pi * (x + (np.arange(width) + 0.5) * scale) / WAVE
    found_x = np.arctan2(values[..., 0], values[..., 1])
    error_x = np.angle(np.exp(1j * (found_x - want_x))) * WAVE / (2 * np.pi * scale)
    # y has its sine alone: where the sine is steep, its value is the place
    want_y = 2 * np.pi * (y + (np.arange(height) + 0.5) * scale) / WAVE
    steep = np.abs(np.cos(want_y)) > 0.7
    slope = np.cos(want_y)[steep, None] * 2 * np.pi / WAVE
    error_y = (values[steep, :, 2] - np.sin(want_y)[steep, None]) / slope / scale
    return max(np.abs(error_x).max(), np.abs(error_y).max(initial=0))


SIZED_FORMATS = [(name, 501, 373) for name in FORMATS] + [
    (name, width, height)
    for name in ("tiled.tif", "pyramid.ome.tif", "3dhistech.mrxs", "hamamatsu.ndpi")
    for width, height in ((320, 256), (379, 597))
]


@pytest.mark.parametrize(("name", "width", "height"), SIZED_FORMATS)
def test_pixels_are_where_they_say_they_are(tmp_path, name, width, height):
    path = FORMATS[name](tmp_path / name, coordinate_image(width, height))
    with open_slide(path, MPP if name == "plain.png" else None) as slide:
        assert slide.size == (width, height)
        assert slide.mpp == pytest.approx(MPP, rel=1e-3)
        for mpp in (0.2, 0.25, 0.2503, 0.5, 0.502, 1.3, 2.0):
            scale = mpp / slide.mpp
            edge = min(96, int(min(width, height) / scale))
            far_x, far_y = int(width - edge * scale), int(height - edge * scale)
            for x, y in [(0, 0), (min(101, far_x), min(57, far_y)), (far_x, 0), (0, far_y), (far_x, far_y)]:
                pixels = slide.read(x, y, edge, mpp)
                assert pixels.shape == (edge, edge, 3)
                assert position_error(pixels, x, y, scale) < 1, (mpp, x, y)


@pytest.mark.parametrize("name", FORMATS)
def test_beyond_the_border_is_white_and_the_slide_stays_in_place(tmp_path, name):
    path = FORMATS[name](tmp_path / name, coordinate_image(301, 203))
    with open_slide(path, MPP if name == "plain.png" else None) as slide:
        pixels = slide.read(-50, -30, (200, 150), 0.5)
        columns = -50 + (np.arange(200) + 0.5) * 2
        rows = -30 + (np.arange(150) + 0.5) * 2
        inside = ((rows > 0) & (rows < 203))[:, None] & ((columns > 0) & (columns < 301))
        assert (pixels[~inside] == 255).all()
        assert position_error(pixels[15:116, 25:175], 0, 0, 2.0) < 1
        assert (slide.read(10_000, 10_000, 16, 0.5) == 255).all()
        assert slide.read(-16, 0, 16, 0.25).min() == 255


def test_the_coarsest_level_that_is_fine_enough_is_read(tmp_path):
    path = write_tiled_tiff(tmp_path / "slide.tif", coordinate_image(501, 373))
    with open_slide(path) as slide:
        assert [(level.width, level.downsample_x, level.downsample_y) for level in slide.levels] == [
            (501, 1.0, 1.0),
            (250, 2.0, 2.0),
            (125, 4.0, 4.0),
        ]
        assert [slide._level_for(scale).downsample_x for scale in (0.5, 1.0, 1.9, 1.99, 3.0, 4.0, 50.0)] == [
            1,
            1,
            1,
            2,
            2,
            4,
            4,
        ]


def test_a_level_that_fits_is_returned_bit_for_bit(tmp_path):
    path = write_tiled_tiff(tmp_path / "slide.tif", coordinate_image(640, 512))
    level_0 = coordinate_image(640, 512)
    level_1 = reduced(level_0, 2)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(33, 71, 128, 0.25), level_0[71:199, 33:161])
        assert np.array_equal(slide.read(34, 72, 128, 0.5), level_1[36:164, 17:145])


def test_neighbouring_patches_join_without_a_seam(tmp_path):
    path = write_tiled_tiff(tmp_path / "slide.tif", coordinate_image(640, 512))
    with open_slide(path) as slide:
        whole = slide.read(0, 0, 80, 1.5).astype(int)
        parts = [[slide.read(240 * i, 240 * j, 40, 1.5) for i in range(2)] for j in range(2)]
        joined = np.concatenate([np.concatenate(row, axis=1) for row in parts]).astype(int)
        assert np.abs(whole - joined).max() <= 1


def test_an_area_too_large_for_one_read_is_read_in_blocks(tmp_path, monkeypatch):
    path = write_stripped_tiff(tmp_path / "slide.tif", coordinate_image(501, 373))
    with open_slide(path) as slide:
        whole = slide.thumbnail(1.0).astype(int)
        monkeypatch.setattr("histoloom.slides.reader.BLOCK", 200)
        blocks = slide.thumbnail(1.0).astype(int)
        assert whole.shape == (94, 126, 3)
        assert np.abs(whole - blocks).max() <= 1


def test_transparent_pixels_are_white(tmp_path):
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[:, 30:] = (200, 30, 90, 255)
    Image.fromarray(rgba).save(tmp_path / "half.png")
    with open_slide(tmp_path / "half.png", 0.5) as slide:
        pixels = slide.read(0, 0, (60, 40), 0.5)
    assert (pixels[:, :30] == 255).all()
    assert (pixels[:, 30:] == (200, 30, 90)).all()


def test_missing_tiles_are_white(tmp_path):
    path = write_ome_tiff(tmp_path / "slide.ome.tif", coordinate_image(256, 256))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        counts, offsets = tiff.pages[0].tags["TileByteCounts"], tiff.pages[0].tags["TileOffsets"]
        counts.overwrite((0, *counts.value[1:]))
        offsets.overwrite((0, *offsets.value[1:]))
    with open_slide(path) as slide:
        pixels = slide.read(0, 0, 256, MPP)
    assert (pixels[:128, :128] == 255).all()
    assert np.array_equal(pixels[128:], coordinate_image(256, 256)[128:])


@pytest.mark.parametrize("name", ["tiled.tif", "pyramid.ome.tif"])
def test_threads_share_a_slide_and_processes_open_their_own(tmp_path, name):
    path = FORMATS[name](tmp_path / name, coordinate_image(640, 512))
    places = [(x, y) for x in range(0, 512, 128) for y in range(0, 384, 128)]
    with open_slide(path) as slide:
        alone = [slide.read(x, y, 64, 0.5) for x, y in places]
        with ThreadPoolExecutor(4) as pool:
            threads = list(pool.map(lambda place: slide.read(*place, 64, 0.5), places))
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            processes = list(pool.map(slide.read, *zip(*places, strict=True), [64] * len(places), [0.5] * len(places)))
        again = pickle.loads(pickle.dumps(slide)).read(*places[3], 64, 0.5)
    assert np.array_equal(alone, threads)
    assert np.array_equal(alone, processes)
    assert np.array_equal(alone[3], again)


def test_mpp_comes_from_the_file_and_only_then_from_the_user(tmp_path):
    svs = write_aperio(tmp_path / "with.svs", coordinate_image(256, 256))
    bare = write_aperio(tmp_path / "without.svs", coordinate_image(256, 256), mpp="")
    assert open_slide(svs, 0.9).mpp == pytest.approx(0.25)
    assert open_slide(bare, 0.9).mpp == pytest.approx(0.9)
    with pytest.raises(SlideError, match=r"without\.svs.*--slide-mpp"):
        open_slide(bare)
    with pytest.raises(SlideError, match=r"--slide-mpp nan is not a pixel size"):
        open_slide(bare, float("nan"))


@pytest.mark.parametrize(("unit", "per_unit"), [("INCH", 96.0), ("CENTIMETER", 28.3), ("NONE", 40_000.0)])
@pytest.mark.parametrize("tile", [(128, 128), None])
def test_the_resolution_of_a_screen_is_not_taken_for_mpp(tmp_path, unit, per_unit, tile):
    path = tmp_path / "screen.tif"
    options = {"photometric": "rgb", "metadata": None, "resolution": (per_unit, per_unit), "resolutionunit": unit}
    tifffile.imwrite(path, coordinate_image(256, 256), tile=tile, **options)
    with pytest.raises(SlideError, match=r"screen\.tif.*--slide-mpp"):
        open_slide(path)


def test_a_tiled_tiff_in_inches_and_an_ome_tiff_in_nanometres_know_their_mpp(tmp_path):
    inches, ome = tmp_path / "inches.tif", tmp_path / "nm.ome.tif"
    options = {"tile": (128, 128), "photometric": "rgb"}
    image = coordinate_image(256, 256)
    tifffile.imwrite(inches, image, metadata=None, resolution=(50_800, 50_800), resolutionunit="INCH", **options)
    units = {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(ome, image, metadata={"axes": "YXS", **units}, ome=True, **options)
    assert open_slide(inches).mpp == pytest.approx(0.5)
    assert open_slide(ome).mpp == pytest.approx(0.25)


def broken_inputs(folder: Path) -> dict[str, Path]:
    """Files that are no slides, by what is wrong with them."""
    cut = ("cut.svs", "cut.ome.tif", "cut.png", "levels.tif")
    paths = {name: folder / name for name in (*cut, "notes.svs", "empty.tif", "no.svs")}
    write_aperio(paths["cut.svs"], coordinate_image(640, 512))
    write_ome_tiff(paths["cut.ome.tif"], coordinate_image(640, 512))
    write_image(paths["cut.png"], coordinate_image(640, 512))
    write_tiled_tiff(paths["levels.tif"], coordinate_image(640, 512))  # its levels follow each other: the last are lost
    for name in cut:
        paths[name].write_bytes(paths[name].read_bytes()[: paths[name].stat().st_size // 2])
    paths["notes.svs"].write_text("not a slide at all")
    paths["empty.tif"].touch()
    (folder / "folder.svs").mkdir()
    return {**paths, "folder.svs": folder / "folder.svs"}


def test_bad_input_is_one_line_that_names_file_and_cure(tmp_path, capfd):
    cures = {
        "levels.tif": "copy it again",
        "cut.svs": "copy it again",
        "cut.ome.tif": "copy it again",
        "cut.png": "copy it again",
        "notes.svs": "export it as OME-TIFF",
        "empty.tif": "export it as OME-TIFF",
        "no.svs": "no such slide",
        "folder.svs": "give the file in it",
    }
    for name, path in broken_inputs(tmp_path).items():
        with pytest.raises(SlideError) as caught, open_slide(path, 0.25) as slide:
            slide.read(500, 400, 112, 0.25)
        assert str(path) in str(caught.value)
        assert cures[name] in str(caught.value), caught.value
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # and no line of a library beside it


def test_what_is_not_8_bit_rgb_is_refused_by_name(tmp_path):
    tifffile.imwrite(tmp_path / "deep.ome.tif", np.zeros((64, 64, 3), np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "five.ome.tif", np.zeros((5, 64, 64), np.uint8), metadata={"axes": "CYX"})
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "gray.png")
    for name in ("deep.ome.tif", "five.ome.tif", "gray.png"):
        with pytest.raises(SlideError, match=rf"{name}.*8-bit RGB"):
            open_slide(tmp_path / name, 0.25)


def test_oblong_pixels_are_refused(tmp_path):
    path = tmp_path / "oblong.tif"
    options = {"metadata": None, "resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, coordinate_image(256, 256), tile=(128, 128), photometric="rgb", **options)
    with pytest.raises(SlideError, match=r"oblong\.tif: pixels are not square"):
        open_slide(path)


REAL = [
    ("CMU-1-Small-Region.svs", None, (2220, 2967), 0.499),
    ("TCGA-CR-7395-01A-01-TS1.svs", 0.5, (4443, 3567), 0.5),
    ("OS-1-detail.ome.tif", None, (1101, 1101), 0.2271),
]


@pytest.mark.parametrize(("name", "slide_mpp", "size", "mpp"), REAL)
def test_real_slides_agree_with_themselves_at_every_mpp(shared_data, name, slide_mpp, size, mpp):
    with open_slide(shared_data / "slides" / name, slide_mpp) as slide:
        assert isinstance(slide, Slide)
        assert (slide.size, slide.mpp) == (size, pytest.approx(mpp, rel=1e-3))
        fine = slide.read(600, 500, 256, slide.mpp).astype(float)
        half = slide.read(600, 500, 128, slide.mpp * 2).astype(float)
        mean = fine.reshape(128, 2, 128, 2, 3).mean((1, 3))
    shifted = [np.abs(half[1:-1, 1:-1] - np.roll(mean, step, 1)[1:-1, 1:-1]).mean() for step in (-1, 0, 1)]
    assert np.argmin(shifted) == 1
    assert shifted[1] < 6


def test_a_slide_without_mpp_says_so(shared_data):
    with pytest.raises(SlideError, match="--slide-mpp"):
        open_slide(shared_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs")


def _write_pages(path, sizes, axes="YXS", **options):
    with tifffile.TiffWriter(path) as tiff:
        for width, height in sizes:
            metadata = {"axes": axes, "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
            pixels = coordinate_image(width, height)
            tiff.write(pixels, photometric="rgb", metadata=metadata, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.ome.tif", {"tile": (64, 64)}), ("a.tif", {"tile": (64, 64)}), ("a.tif", {})],
)
def test_images_that_are_not_read_are_noted(tmp_path, name, options):
    path = _write_pages(tmp_path / name, [(256, 192), (256, 192)], **options)
    with open_slide(path, MPP) as slide:
        said = (
            "holds 1 more image (of 256 x 192 px) besides the one of 256 x 192 px that is read; save each that counts"
        )
        assert [note for note in slide.notes if "holds" in note] == [f"{path}: {said} as a file of its own"]


def test_a_larger_page_behind_a_small_one_is_read_or_the_file_is_refused(tmp_path):
    sizes = [(128, 96), (256, 192)]
    with pytest.raises(SlideError, match="holds an image of 256 x 192 px, larger than the first of 128 x 96 px"):
        open_slide(_write_pages(tmp_path / "a.tif", sizes, tile=(64, 64)), MPP)
    with open_slide(_write_pages(tmp_path / "b.tif", sizes), MPP) as slide:
        assert (slide.size, slide.notes) == ((256, 192), ())


@pytest.mark.parametrize("write", [write_tiled_tiff, write_ome_tiff, write_aperio])
def test_levels_are_no_images_that_are_not_read(tmp_path, write):
    with open_slide(write(tmp_path / "a.tif", coordinate_image(300, 200)), MPP) as slide:
        assert not any("holds" in note for note in slide.notes)


@pytest.mark.parametrize("tile", [(48, 80), (240, 240)])
def test_tiles_without_compression_are_read_whatever_their_size(tmp_path, tile):
    pixels = coordinate_image(300, 200)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=tile)
    with open_slide(tmp_path / "a.tif", MPP) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, (300, 200), MPP), pixels)
