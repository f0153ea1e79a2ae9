"""PANDA's masks are tiled RGB TIFFs in three levels with the label in the red channel."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from picture_folders import write_gray_png
from PIL import Image

from histoloom.errors import AnnotationError, TissueError
from histoloom.patches.maps import MapReader
from histoloom.slides.annotations import raster_size
from histoloom.slides.annotations.masks import LabelRaster, downsamples
from histoloom.slides.rasterize import PolygonMap
from histoloom.tissue import TissueTable

RADBOUD = TissueTable.from_rows(
    [{"id": i, "name": n, "aliases": [str(i)]} for i, n in enumerate(["stroma", "benign", "3", "4", "5"], start=1)]
)
MERGED = TissueTable.from_rows(
    [{"id": 0, "name": "benign", "aliases": ["1", "2"]}, {"id": 1, "name": "cancer", "aliases": ["3", "4", "5"]}]
)
MPP = 0.48


def labels(width: int, height: int, cell: int = 37) -> np.ndarray:
    """Fields of the values 0..5 with borders off the tile grid."""
    rows, columns = np.mgrid[:height, :width] // cell
    return ((rows * 2 + columns) % 6).astype(np.uint8)


def write_panda(path: Path, base: np.ndarray, levels: tuple[np.ndarray, ...] = (), **options: object) -> Path:
    """As ASAP writes them: red channel, 512 px tiles, LZW, levels as further pages."""
    with tifffile.TiffWriter(path) as tiff:
        for page in (base, *levels):
            rgb = np.zeros((*page.shape, 3), np.uint8)
            rgb[:, :, 0] = page
            kwargs = {"tile": (512, 512), "compression": "lzw", "photometric": "rgb", **options}
            tiff.write(rgb, metadata=None, **kwargs)
    return path


def test_a_panda_mask_gives_its_values_at_every_place_and_mpp(tmp_path):
    base = labels(1300, 901)
    path = write_panda(tmp_path / "m_mask.tiff", base, (base[::4, ::4], base[::16, ::16]))
    raster = LabelRaster(path, RADBOUD, (1300, 901), MPP)
    expected = np.where(base == 0, 255, base)
    assert (raster.read(480, 490, (77, 45), MPP) == expected[490:535, 480:557]).all()
    assert (raster.overview(1) == expected).all()
    coarse = raster.read(100, 200, 32, 3 * MPP)
    assert (coarse == expected[201:297:3, 101:197:3]).all()  # the center of 3 x 3 pixels
    assert raster.notes == ()


def test_values_merge_as_the_table_says(tmp_path):
    path = write_panda(tmp_path / "m.tiff", labels(300, 200))
    merged = LabelRaster(path, MERGED, (300, 200), MPP).overview(1)
    assert (merged == np.array([255, 0, 0, 1, 1, 1])[labels(300, 200)]).all()


def test_a_reduced_level_is_used_for_coarse_maps_unless_it_averages_labels(tmp_path):
    base = labels(1024, 1024, cell=50)
    base[base == 2] = 5
    picked = base[::4, ::4].copy()
    mean = base.reshape(256, 4, 256, 4).mean(axis=(1, 3)).astype(np.uint8)
    truth = np.array([255, 1, 255, 3, 4, 5])[base]
    for level in (picked, mean):
        raster = LabelRaster(write_panda(tmp_path / "m.tiff", base, (level,)), RADBOUD, (1024, 1024), MPP)
        coarse = raster.overview(4)
        blocks = truth.reshape(256, 4, 256, 4)
        assert (blocks == coarse[:, None, :, None]).any(axis=(1, 3)).all()


def test_a_mask_at_a_downsample_lies_under_the_polygons_it_was_made_from(tmp_path):
    """Within one pixel: each mask pixel covers 8 x 8 level-0 pixels, and the last ones are cut."""
    path = tmp_path / "m.png"
    base = labels(1003, 707)
    Image.fromarray(base[4::8, 4::8]).save(path)
    assert Image.open(path).size == (125, 88)
    raster = LabelRaster(path, RADBOUD, (1003, 707), MPP)
    window = raster.read(160, 80, 256, MPP)
    expected = np.where(base == 0, 255, base)[4::8, 4::8][10:42, 20:52]
    assert (window[4::8, 4::8] == expected).all()
    assert (window == np.kron(expected, np.ones((8, 8), int))).all()


def test_off_the_slide_is_unlabelled_and_rest_fills_what_has_no_label(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(labels(100, 80)).save(path)
    window = LabelRaster(path, RADBOUD, (100, 80), MPP, rest=1).read(-10, 70, (30, 20), MPP)
    assert (window[:10, 10:] == np.where(labels(100, 80) == 0, 1, labels(100, 80))[70:, :20]).all()
    assert (window[:, :10] == 255).all()
    assert (window[10:] == 255).all()
    assert (LabelRaster(path, RADBOUD, (100, 80), MPP).read(5000, 5000, 16, MPP) == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "I;16"])
def test_every_kind_of_label_png_is_read(tmp_path, mode):
    values = labels(60, 40) % 2
    image = Image.fromarray(values * 255).convert("1") if mode == "1" else Image.fromarray(values)
    if mode == "P":
        image.putpalette([9, 9, 9, 200, 0, 0])
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    elif mode != "1":
        image = image.convert(mode)
    image.save(tmp_path / "m.png")
    raster = LabelRaster(tmp_path / "m.png", RADBOUD, (60, 40), MPP)
    assert (raster.overview(1) == np.where(values, 1, 255)).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_values_of_few_bits_are_read_as_they_are_stored(tmp_path, bits):
    values = labels(60, 40) % 2
    write_gray_png(tmp_path / "m.png", values, bits)
    raster = LabelRaster(tmp_path / "m.png", RADBOUD, (60, 40), MPP)
    assert (raster.overview(1) == np.where(values, 1, 255)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"tile": None, "rowsperstrip": 7, "compression": "deflate"},
        {"tile": None, "compression": None},
        {"tile": (64, 128), "compression": "deflate", "predictor": True},
        {"bigtiff": True},
    ],
)
def test_every_layout_of_a_label_tiff_is_read(tmp_path, options):
    base = labels(333, 222)
    big = options.pop("bigtiff", False)
    with tifffile.TiffWriter(tmp_path / "m.tif", bigtiff=big) as tiff:
        tiff.write(base, photometric="minisblack", metadata=None, **options)
    raster = LabelRaster(tmp_path / "m.tif", RADBOUD, (333, 222), MPP)
    assert (raster.read(50, 60, 100, MPP) == np.where(base == 0, 255, base)[60:160, 50:150]).all()


def test_coloured_masks_are_read_by_the_colours_in_the_table(tmp_path):
    table = TissueTable.from_rows(
        [{"id": 0, "name": "a", "aliases": ["#C80000"]}, {"id": 3, "name": "b", "aliases": ["#00ff01"]}]
    )
    rgb = np.zeros((20, 30, 3), np.uint8)
    rgb[:10] = (200, 0, 0)
    rgb[10:, :15] = (0, 255, 1)
    Image.fromarray(rgb).save(tmp_path / "m.png")
    tifffile.imwrite(tmp_path / "m.tif", rgb, photometric="rgb")
    for name in ("m.png", "m.tif"):
        found = LabelRaster(tmp_path / name, table, (30, 20), MPP).overview(1)
        assert np.unique(found, return_counts=True)[1].tolist() == [300, 75 * 2, 150]
        assert (found[0, 0], found[19, 0], found[19, 29]) == (0, 3, 255)
    rgb[0, 0] = (1, 2, 3)
    Image.fromarray(rgb).save(tmp_path / "m.png")
    with pytest.raises(TissueError, match="#010203"):
        LabelRaster(tmp_path / "m.png", table, (30, 20), MPP)
    with pytest.raises(TissueError, match="#00ff01, #010203, #c80000 are in no tissue table"):
        LabelRaster(tmp_path / "m.png", RADBOUD, (30, 20), MPP)


@pytest.mark.parametrize("name", ["m.png", "strips.tif", "tiles.tif"])
def test_a_mask_in_the_colors_in_which_a_table_draws_its_types_needs_no_aliases(tmp_path, name):
    table, rng = TissueTable.from_names(["a", "b", "c"]), np.random.default_rng(0)
    ids = np.kron(rng.choice(np.array([0, 1, 2, 255], np.uint8), (5, 6)), np.ones((64, 64), np.uint8))
    ids[:64] = 255  # nothing in the first tiles
    rgb = table.colorize(ids)
    rgb[:64, :64] = 0  # black is background, and not the type of id 0
    how = {"tile": (64, 64)} if name == "tiles.tif" else {"rowsperstrip": 64}
    if name == "m.png":
        Image.fromarray(rgb).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, rgb, photometric="rgb", **how)
    assert raster_size(tmp_path / name) == (384, 320)
    raster = LabelRaster(tmp_path / name, table, (384, 320), MPP)
    np.testing.assert_array_equal(raster.overview(1), ids)
    if name == "m.png":
        ids[:64, :64] = 1  # which `generate` refuses black for
        Image.fromarray(table.colorize(ids)).save(tmp_path / name)
        np.testing.assert_array_equal(MapReader(table).read(tmp_path / name), ids)


def test_a_mask_of_another_slides_size_is_refused(tmp_path):
    path = write_panda(tmp_path / "m_mask.tiff", labels(400, 300))
    with pytest.raises(AnnotationError, match=r"m_mask.tiff: the mask is 400 x 300, .* 5000 x 3000 pixels; take"):
        LabelRaster(path, RADBOUD, (5000, 3000), MPP)


@pytest.mark.parametrize(
    ("slide", "raster", "expected"),
    [
        ((1001, 703), (500, 351), (2, 2)),
        ((1001, 703), (501, 352), (2, 2)),
        ((1001, 703), (1001, 703), (1, 1)),
        ((100_000, 80_000), (3125, 2500), (32, 32)),
        ((1000, 800), (300, 240), (1000 / 300, 800 / 240)),
        ((2220, 2967), (69, 93), (32, 32)),
    ],
)
def test_the_downsample_is_the_whole_number_that_explains_both_edges(slide, raster, expected):
    assert downsamples(slide, raster, Path("m.png")) == expected


@pytest.mark.parametrize(
    ("slide", "raster"), [((1000, 800), (800, 1000)), ((1000, 800), (2000, 1600)), ((1000, 800), (500, 390))]
)
def test_no_downsample_explains_a_turned_larger_or_cropped_mask(slide, raster):
    with pytest.raises(AnnotationError, match="does not scale to the slide"):
        downsamples(slide, raster, Path("m.png"))


def test_a_value_in_no_table_names_file_and_cure_and_can_be_ignored(tmp_path):
    values = labels(64, 64)
    values[9, 9] = 77
    path = write_panda(tmp_path / "m.tiff", values)
    with pytest.raises(TissueError, match=r"m.tiff: label\(s\) 77 are in no tissue table .* tissue.toml") as error:
        LabelRaster(path, RADBOUD, (64, 64), MPP)
    assert "\n" not in str(error.value)
    assert LabelRaster(path, RADBOUD, (64, 64), MPP, ignore=("77",)).read(9, 9, 1, MPP)[0, 0] == 255


def test_a_mask_of_0_and_255_says_what_to_do(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray((labels(64, 64) % 2 * 255).astype(np.uint8)).save(path)
    assert 'the alias "255"' in LabelRaster(path, RADBOUD, (64, 64), MPP).notes[0]
    tumor = TissueTable.from_rows([{"id": 0, "name": "tumor", "aliases": ["255"]}])
    assert (LabelRaster(path, tumor, (64, 64), MPP).overview(1) == np.where(labels(64, 64) % 2, 0, 255)).all()


@pytest.mark.parametrize("kept", [20, 300, 0.5, 0.95])
@pytest.mark.parametrize("suffix", ["tiff", "png"])
def test_a_truncated_mask_is_refused_in_one_line(tmp_path, suffix, kept):
    path = tmp_path / f"m.{suffix}"
    values = np.random.default_rng(0).integers(0, 6, (600, 600)).astype(np.uint8)
    Image.fromarray(values).save(path) if suffix == "png" else write_panda(path, values)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept > 1 else int(len(whole) * kept)])
    with pytest.raises(AnnotationError, match="copy it from its source again") as error:
        LabelRaster(path, RADBOUD, (600, 600), MPP).overview(1)
    assert "\n" not in str(error.value)


def test_floats_and_wide_values_are_no_labels(tmp_path):
    tifffile.imwrite(tmp_path / "f.tif", np.ones((20, 20), np.float32))
    with pytest.raises(AnnotationError, match="holds real numbers"):
        LabelRaster(tmp_path / "f.tif", RADBOUD, (20, 20), MPP)
    tifffile.imwrite(tmp_path / "w.tif", np.full((20, 20), 700, np.uint16))
    with pytest.raises(TissueError, match="700"):
        LabelRaster(tmp_path / "w.tif", RADBOUD, (20, 20), MPP)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_values_of_16_bits_are_read_by_their_aliases(tmp_path, suffix):
    values = np.array([[0, 1, 255, 256], [300, 301, 1000, 4000]], np.uint16).repeat(20, 0).repeat(20, 1)
    path = tmp_path / f"m.{suffix}"
    tifffile.imwrite(path, values) if suffix == "tif" else Image.fromarray(values).save(path)
    table = TissueTable.from_rows(
        [{"id": 0, "name": "a", "aliases": ["300", "1"]}, {"id": 1, "name": "b", "aliases": ["256-1000", "4000"]}]
    )
    expected = np.array([[255, 0, 255, 1], [0, 255, 1, 1]], np.uint8).repeat(20, 0).repeat(20, 1)
    raster = LabelRaster(path, table, (80, 40), MPP, ignore=("301",))
    np.testing.assert_array_equal(raster.overview(1), expected)
    expected[expected == 0] = 255
    np.testing.assert_array_equal(LabelRaster(path, table, (80, 40), MPP, ignore=("301", "A")).overview(1), expected)


def test_aliases_of_16_bits_say_that_values_are_no_ids(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.full((40, 40), 1, np.uint16))
    table = TissueTable.from_rows([{"id": 0, "name": "a", "aliases": ["300"]}, {"id": 1, "name": "b"}])
    with pytest.raises(TissueError, match=r"label\(s\) 1 are in no tissue table"):
        LabelRaster(tmp_path / "m.tif", table, (40, 40), MPP)


def test_a_raster_survives_pickling_on_its_way_to_workers(tmp_path):
    raster = LabelRaster(write_panda(tmp_path / "m.tiff", labels(300, 200)), RADBOUD, (300, 200), MPP)
    assert (pickle.loads(pickle.dumps(raster)).overview(2) == raster.overview(2)).all()


def test_a_map_painted_and_a_mask_written_from_it_agree_at_every_mpp(tmp_path):
    from histoloom.slides.polygon import build_polygons

    ring = [[10.2, 5], [250, 40.7], [200.4, 190], [90, 120.3], [20, 180]]
    painted = PolygonMap(build_polygons([ring], "a", None, "f")[0], [1], (300, 200), MPP)
    mask = painted.overview(1)
    Image.fromarray(np.where(mask == 1, 1, 0).astype(np.uint8)).save(tmp_path / "m.png")
    raster = LabelRaster(tmp_path / "m.png", RADBOUD, (300, 200), MPP)
    for mpp, x in ((MPP, 3), (3 * MPP, 17), (5 * MPP, 0)):
        assert (raster.read(x, 11, 50, mpp) == painted.read(x, 11, 50, mpp)).all()


def test_a_gray_mask_that_was_indexed_white_first_is_read_by_its_grays(tmp_path):
    gray = np.where(labels(60, 40) > 2, 255, 0).astype(np.uint8)
    path = tmp_path / "m.png"
    Image.fromarray(gray).convert("RGB").quantize(2).save(path)
    assert "no pixel has a class; if 255 means one" in LabelRaster(path, RADBOUD, (60, 40), MPP).notes[0]
    table = TissueTable.from_rows([{"id": 1, "name": "tumor", "aliases": ["255"]}])
    np.testing.assert_array_equal(LabelRaster(path, table, (60, 40), MPP).overview(1), np.where(gray, 1, 255))


@pytest.mark.parametrize("table", [TissueTable.from_names(["stroma", "gland", "tumor"]), MERGED])
def test_a_palette_of_the_colors_of_the_table_is_read_by_them_in_any_order(tmp_path, table):
    drawn = labels(60, 40) % len(table.types)
    drawn[:5] = 255
    order = [255, *reversed(table.ids)]  # as programs that count colors, or that sort them, save a map
    palette = np.asarray(table.palette(), np.uint8).reshape(256, 3)[order]
    picture = Image.fromarray(np.argsort(order)[np.searchsorted(sorted(order), drawn)].astype(np.uint8))
    picture.putpalette(palette.ravel().tolist())
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), table.colorize(drawn))
    np.testing.assert_array_equal(LabelRaster(tmp_path / "m.png", table, (60, 40), MPP).overview(1), drawn)
    np.testing.assert_array_equal(MapReader(table).read(tmp_path / "m.png"), drawn)
    assert (LabelRaster(tmp_path / "m.png", table, (60, 40), MPP, ignore=table.names).overview(1) == 255).all()
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 90, 90, 90])  # nobody's colors: by index
    picture.save(tmp_path / "m.png")
    by_index = np.asarray(picture)
    plain = TissueTable.from_names(["a", "b", "c", "d"])
    np.testing.assert_array_equal(LabelRaster(tmp_path / "m.png", plain, (60, 40), MPP).overview(1), by_index)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "deflate"}])
def test_an_indexed_tiff_means_what_it_shows_as_a_png_does(tmp_path, options):
    table = TissueTable.from_names(["stroma", "gland", "tumor"])
    drawn = labels(60, 40) % 3
    drawn[:5] = 255
    order = [255, *reversed(table.ids)]
    indices = np.argsort(order)[np.searchsorted(sorted(order), drawn)].astype(np.uint8)
    palette = np.zeros((256, 3), np.uint16)
    palette[:4] = np.asarray(table.palette(), np.uint16).reshape(256, 3)[order] * 257
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, indices, photometric="palette", colormap=palette.T, **options)
    np.testing.assert_array_equal(LabelRaster(path, table, (60, 40), MPP).overview(1), drawn)
    np.testing.assert_array_equal(LabelRaster(path, table, (120, 80), MPP).read(0, 0, 30, 2 * MPP), drawn[:30, :30])
    np.testing.assert_array_equal(MapReader(table).read(path), drawn)
    named = [{"id": t.id, "name": t.name, "color": f"#00000{t.id}", "aliases": [t.color]} for t in table.types]
    np.testing.assert_array_equal(LabelRaster(path, TissueTable.from_rows(named), (60, 40), MPP).overview(1), drawn)
    palette[2] = 90 * 257  # nobody's color: by index
    tifffile.imwrite(path, indices, photometric="palette", colormap=palette.T, **options)
    plain = TissueTable.from_names(["a", "b", "c", "d"])
    np.testing.assert_array_equal(LabelRaster(path, plain, (60, 40), MPP).overview(1), indices)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": (2, 40, 60), "photometric": "minisblack"}, "holds 2 pages; save the one that counts"),
        ({"data": (2, 40, 60), "photometric": "minisblack", "tile": (16, 16)}, "holds 2 pages"),
        ({"data": (3, 40, 60), "photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True}, "holds 3 pages"),
        ({"data": (2, 40, 60), "photometric": "minisblack", "contiguous": True, "imagej": True}, "holds 2 pages"),
        ({"data": (40, 60, 2), "photometric": "minisblack", "planarconfig": "contig"}, "holds 2 channels"),
    ],
)
def test_a_label_tiff_of_several_pictures_is_refused(tmp_path, options, said):
    options = dict(options)
    tifffile.imwrite(tmp_path / "m.tif", np.ones(options.pop("data"), np.uint8), **options)
    with pytest.raises(AnnotationError, match=said):
        LabelRaster(tmp_path / "m.tif", RADBOUD, (60, 40), MPP)


def test_a_label_tiff_with_alpha_or_levels_is_one_picture(tmp_path):
    base = labels(60, 40)
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([base, base * 0 + 255], -1), photometric="minisblack", planarconfig="contig",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    with tifffile.TiffWriter(tmp_path / "b.tif") as tiff:
        tiff.write(base, subifds=1, photometric="minisblack")
        tiff.write(base[::2, ::2], subfiletype=1, photometric="minisblack")
    for name in ("a.tif", "b.tif"):
        found = LabelRaster(tmp_path / name, RADBOUD, (60, 40), MPP).overview(1)
        np.testing.assert_array_equal(found, np.where(base, base, 255))


@pytest.mark.parametrize("options", [{}, {"compression": "group4"}])
def test_a_mask_of_one_bit_is_read_from_tiff_as_from_png(tmp_path, options):
    marks = labels(60, 40) > 2
    Image.fromarray(marks).save(tmp_path / "m.tif", **options)
    Image.fromarray(marks).save(tmp_path / "m.png")
    for name in ("m.tif", "m.png"):
        found = LabelRaster(tmp_path / name, RADBOUD, (60, 40), MPP).overview(1)
        np.testing.assert_array_equal(found, np.where(marks, 1, 255))


def test_an_indexed_tiff_whose_palette_is_white_first_is_refused(tmp_path):
    gray = np.where(labels(60, 40) > 2, 255, 0).astype(np.uint8)
    Image.fromarray(gray).convert("RGB").quantize(2).save(tmp_path / "m.tif")
    with pytest.raises(AnnotationError, match="its palette is white, then black"):
        LabelRaster(tmp_path / "m.tif", RADBOUD, (60, 40), MPP)


def test_255_of_a_map_of_several_types_is_no_doubt(tmp_path):
    base = labels(60, 40, cell=7)
    base[base == 5] = 255
    Image.fromarray(base).save(tmp_path / "m.png")
    assert LabelRaster(tmp_path / "m.png", RADBOUD, (60, 40), MPP).notes == ()
    Image.fromarray(np.where(base == 255, base, 1)).save(tmp_path / "m.png")
    assert "none is 'benign'" in LabelRaster(tmp_path / "m.png", RADBOUD, (60, 40), MPP).notes[0]


@pytest.mark.parametrize("edge", [1, 2, 31])
def test_a_mask_of_few_pixels_maps_no_slide(edge):
    with pytest.raises(AnnotationError, match=f"the mask is {edge} x {edge}, too few pixels"):
        downsamples((20_000, 20_000), (edge, edge), Path("m.png"))
    assert downsamples((edge, edge), (edge, edge), Path("m.png")) == (1, 1)


def test_a_value_0_that_may_mean_the_type_of_id_0_is_noted(tmp_path):
    rows = [{"id": 0, "name": "gland"}, {"id": 1, "name": "stroma", "aliases": ["7"]}]
    Image.fromarray(np.repeat(np.array([0, 7], np.uint8), 32)[None].repeat(64, 0)).save(tmp_path / "m.png")
    table = TissueTable.from_rows(rows)
    [note] = LabelRaster(tmp_path / "m.png", table, (64, 64), MPP).notes
    assert note.endswith("m.png: 0 counts as unlabeled; if it means 'gland', give that type the alias \"0\"")
    assert LabelRaster(tmp_path / "m.png", table, (64, 64), MPP, ignore=["gland"]).notes == ()
