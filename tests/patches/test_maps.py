import imagecodecs
import numpy as np
import pytest
import tifffile
from picture_folders import write_gray_png
from PIL import Image, ImageCms

from histoloom.errors import ImageError, TissueError
from histoloom.patches.maps import MapReader
from histoloom.pictures import read_image
from histoloom.slides.annotations.masks import LabelRaster
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable((TissueType(0, "stroma", "#112233"), TissueType(3, "gland", "#445566")))
IDS = np.array([[0, 3], [255, 0]], np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def save_indexed(path, indices, palette):
    picture = Image.frombytes("P", (len(indices[0]), len(indices)), np.asarray(indices, np.uint8).tobytes())
    picture.putpalette(palette)
    picture.save(path)
    return path


def with_aliases(**aliases) -> TissueTable:
    return TissueTable(tuple(TissueType(t.id, t.name, t.color, tuple(aliases.get(t.name, ()))) for t in TABLE.types))


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [("png", np.uint8), ("png", np.uint16), ("tif", np.uint8), ("tif", np.uint16), ("tif", np.int32)],
)
def test_values_are_ids_at_any_depth(tmp_path, suffix, dtype):
    path = save(tmp_path / f"map.{suffix}", IDS.astype(dtype))
    np.testing.assert_array_equal(MapReader(TABLE).read(path), IDS)


def test_a_lossless_webp_holds_a_map(tmp_path):
    path = save(tmp_path / "map.webp", IDS, lossless=True)
    np.testing.assert_array_equal(MapReader(TABLE).read(path), IDS)


def test_our_own_indexed_maps_are_read_as_written(tmp_path):
    path = save_indexed(tmp_path / "map.png", IDS, TABLE.palette())
    np.testing.assert_array_equal(MapReader(TABLE).read(path), IDS)


def test_coloured_maps_are_read_by_colour(tmp_path):
    path = save(tmp_path / "map.png", TABLE.colorize(IDS))
    np.testing.assert_array_equal(MapReader(TABLE).read(path), IDS)


def test_colour_aliases_count_beside_the_colour(tmp_path):
    colors = np.array([[[255, 0, 0], [0x44, 0x55, 0x66]]], np.uint8)
    reader = MapReader(with_aliases(stroma=["#FF0000"]))
    assert reader.read(save(tmp_path / "map.png", colors)).tolist() == [[0, 3]]


def test_integer_aliases_replace_the_id(tmp_path):
    reader = MapReader(with_aliases(stroma=["1", "1000"], gland=["0"]))
    path = save(tmp_path / "map.png", np.array([[1, 1000, 0]], np.uint16))
    assert reader.read(path).tolist() == [[0, 0, 3]]
    with pytest.raises(TissueError, match=r"map value 3 belongs to no tissue type"):
        reader.read(save(tmp_path / "other.png", np.array([[3]], np.uint8)))


def test_a_range_counts_before_an_id_and_the_last_range_before_others_as_in_masks_of_slides(tmp_path):
    rows = [("stroma", ["1"]), ("gland", ["2-6"]), ("tumour", ["4\u20135"]), ("lumen", [])]
    table = TissueTable.from_rows([{"id": i, "name": name, "aliases": of} for i, (name, of) in enumerate(rows)])
    path = save(tmp_path / "map.png", np.repeat(np.arange(1, 7, dtype=np.uint8)[None], 64, 0).repeat(8, 1))
    found = MapReader(table).read(path)
    assert found[0, ::8].tolist() == [0, 1, 1, 2, 2, 1]
    np.testing.assert_array_equal(LabelRaster(path, table, (48, 64), 0.5).overview(1), found)


def test_a_mask_of_0_and_255_is_read_through_aliases(tmp_path):
    path = save(tmp_path / "map.png", np.array([[0, 255]], np.uint8))
    assert MapReader(with_aliases(gland=["255"])).read(path).tolist() == [[0, 3]]


def test_a_bilevel_map_is_read_by_value(tmp_path):
    path = save(tmp_path / "map.png", np.array([[False, True]]))
    assert MapReader(with_aliases(gland=["1"])).read(path).tolist() == [[0, 3]]


def test_a_named_value_is_unlabelled(tmp_path):
    path = save(tmp_path / "map.png", np.array([[7, 3, 9, 255]], np.uint8))
    assert MapReader(TABLE, ("7", "9")).read(path).tolist() == [[255, 3, 255, 255]]


def test_a_named_colour_is_unlabelled(tmp_path):
    path = save(tmp_path / "map.png", np.array([[[0, 0, 0], [0x44, 0x55, 0x66], [255, 255, 255]]], np.uint8))
    assert MapReader(TABLE, ("#000000",)).read(path).tolist() == [[255, 3, 255]]


def test_black_between_colours_is_no_value_0(tmp_path):
    path = save(tmp_path / "map.png", np.array([[[0, 0, 0], [0x44, 0x55, 0x66]]], np.uint8))
    with pytest.raises(TissueError, match=r"map color #000000 belongs to no tissue type"):
        MapReader(TABLE).read(path)
    black = save(tmp_path / "black.png", np.zeros((1, 2, 3), np.uint8))
    assert MapReader(TABLE).read(black).tolist() == [[0, 0]]


def test_transparent_pixels_are_unlabelled(tmp_path):
    colors = np.array([[[0x44, 0x55, 0x66, 0], [0x44, 0x55, 0x66, 255]]], np.uint8)
    assert MapReader(TABLE).read(save(tmp_path / "map.png", colors)).tolist() == [[255, 3]]


def test_values_written_as_grey_rgb_are_values(tmp_path):
    path = save(tmp_path / "map.png", np.repeat(IDS[..., None], 3, axis=2))
    np.testing.assert_array_equal(MapReader(TABLE).read(path), IDS)


def test_an_indexed_map_in_foreign_colours_is_read_by_index(tmp_path):
    path = save_indexed(tmp_path / "map.png", [[0, 3]], [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    assert MapReader(TABLE).read(path).tolist() == [[0, 3]]


def test_an_indexed_map_whose_colours_moved_is_read_by_colour(tmp_path):
    path = save_indexed(tmp_path / "map.png", [[0, 1]], [0x44, 0x55, 0x66, 0x11, 0x22, 0x33])
    assert MapReader(TABLE).read(path).tolist() == [[3, 0]]


def test_white_alone_in_a_palette_does_not_unlabel_an_indexed_map(tmp_path):
    path = save_indexed(tmp_path / "map.png", [[3]], [0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255])
    assert MapReader(TABLE).read(path).tolist() == [[3]]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_gray_map_that_was_indexed_white_first_is_read_by_its_grays(tmp_path, suffix):
    gray = np.array([[0, 0, 255, 255], [255, 255, 0, 0]], np.uint8)
    path = tmp_path / f"map.{suffix}"
    Image.fromarray(gray).convert("RGB").quantize(2).save(path)
    with Image.open(path) as picture:
        assert picture.getpalette()[:6] == [255] * 3 + [0] * 3  # the case at hand: index 0 is white
    reader = MapReader(TABLE)
    np.testing.assert_array_equal(reader.read(path), gray)
    assert "255 (white) is in 1 of 1 map" in reader.tally.hint()
    for alias in ("255", "#ffffff"):
        reader = MapReader(with_aliases(gland=[alias]))
        np.testing.assert_array_equal(reader.read(path), np.where(gray, 3, 0))
        assert not reader.tally.hint()


def test_a_palette_of_classes_that_begins_with_white_is_read_by_index(tmp_path):
    path = save_indexed(tmp_path / "map.png", [[0, 1]], [255, 255, 255, 0, 0, 0, 9, 9, 9])
    assert MapReader(TissueTable.from_names(["a", "b"])).read(path).tolist() == [[0, 1]]


def test_the_alias_255_holds_for_white_of_a_color_map(tmp_path):
    path = save(tmp_path / "map.png", np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    reader = MapReader(with_aliases(gland=["255"]))
    assert reader.read(path).tolist() == [[0, 3]]
    assert not reader.tally.hint()


def test_a_palette_that_contradicts_its_indices_is_refused(tmp_path):
    path = save_indexed(tmp_path / "map.png", [[0, 3]], [0x44, 0x55, 0x66, 0, 0, 0, 0, 0, 0, 9, 9, 9])
    with pytest.raises(TissueError, match=r"map\.png: the palette color #090909 .* aliases"):
        MapReader(TABLE, ()).read(path)


def test_with_colour_aliases_an_unknown_palette_colour_is_refused(tmp_path):
    path = save_indexed(tmp_path / "map.png", [[0, 0]], [7, 7, 7])
    with pytest.raises(TissueError, match="#070707"):
        MapReader(with_aliases(gland=["#ff0000"])).read(path)


def test_types_may_share_a_display_colour(tmp_path):
    table = TissueTable((TissueType(0, "a", "#000001"), TissueType(1, "b", "#000001")))
    assert MapReader(table).read(save(tmp_path / "map.png", np.array([[0, 1]], np.uint8))).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("values", "found"),
    [([[1, 3, 9]], "value 1, 9"), ([[[1, 2, 3]]], "color #010203"), ([[[9, 9, 9]]], "color #090909")],
)
def test_an_unknown_value_or_colour_names_file_and_cure(tmp_path, values, found):
    path = save(tmp_path / "map.png", np.array(values, np.uint8))
    with pytest.raises(TissueError, match=rf"map\.png: map {found} belongs to no tissue type; add it to the aliases"):
        MapReader(TABLE, ()).read(path)
    with pytest.raises(TissueError, match=rf"map {found} belongs .*; known: 0 stroma, 3 gland, and 255 for unlabeled"):
        MapReader(TABLE).read(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("map.jpg", {"quality": 100}),
        ("map.webp", {"quality": 100}),
        ("map.png", {"format": "JPEG", "quality": 100}),  # the content decides
        ("map.tif", {"compression": "jpeg"}),
        ("map.jp2", {"irreversible": True}),
    ],
)
def test_a_lossy_file_cannot_hold_labels(tmp_path, name, options):
    path = save(tmp_path / name, np.full((32, 32, 3), 3, np.uint8), **options)
    with pytest.raises(ImageError, match="a lossy format that blurs values: save maps as PNG"):
        MapReader(TABLE).read(path)


def test_lossless_jpeg_2000_and_few_bits_per_pixel_hold_labels(tmp_path):
    path = save(tmp_path / "map.jp2", np.repeat(IDS[..., None], 3, axis=2).repeat(16, 0).repeat(16, 1))
    np.testing.assert_array_equal(MapReader(TABLE).read(path), IDS.repeat(16, 0).repeat(16, 1))
    table = TissueTable.from_names(["a", "b", "c", "d"])
    values = np.array([[0, 1, 2, 3]], np.uint8)
    for bits in (2, 4):
        write_gray_png(tmp_path / "few.png", values, bits)
        np.testing.assert_array_equal(MapReader(table).read(tmp_path / "few.png"), values)


def test_transparency_of_any_kind_is_unlabeled(tmp_path):
    indexed = save_indexed(tmp_path / "a.png", [[0, 3]], TABLE.palette())
    with Image.open(indexed) as picture:
        picture.save(indexed, transparency=0)
    assert MapReader(TABLE).read(indexed).tolist() == [[255, 3]]
    gray = np.array([[[3, 255], [77, 0]]], np.uint8)  # 77 is no id, but nobody sees it
    Image.fromarray(gray, "LA").save(tmp_path / "la.png")
    assert MapReader(TABLE).read(tmp_path / "la.png").tolist() == [[3, 255]]
    for bits in (1, 2, 4):
        write_gray_png(tmp_path / "few.png", np.array([[0, 1, 1, 0]], np.uint8), bits, transparent=1)
        assert MapReader(TissueTable.from_names(["a"])).read(tmp_path / "few.png").tolist() == [[0, 255, 255, 0]]


def test_a_tiff_whose_zero_is_white_keeps_its_values(tmp_path):
    tifffile.imwrite(tmp_path / "map.tif", IDS, photometric="miniswhite")
    np.testing.assert_array_equal(MapReader(TABLE).read(tmp_path / "map.tif"), IDS)


def test_a_range_of_values_is_one_type(tmp_path):
    path = save(tmp_path / "map.png", np.array([[0, 1, 300, 65535]], np.uint16))
    reader = MapReader(with_aliases(stroma=["0"], gland=[">0"]))
    assert reader.read(path).tolist() == [[0, 3, 3, 3]]
    with pytest.raises(TissueError, match="map value 300, 65535 belongs to no tissue type"):
        MapReader(with_aliases(stroma=["0"], gland=["1-299"])).read(path)


def test_values_without_a_type_are_tallied(tmp_path):
    reader = MapReader(TABLE)
    for number in range(3):
        reader.read(save(tmp_path / "map.png", np.array([[0, 255 if number else 3]], np.uint8)))
    assert (reader.tally.maps, reader.tally.unclaimed, dict(reader.tally.types)) == (3, 2, {0: 3, 3: 1})
    assert "255 (white) is in 2 of 3 maps and counts as unlabeled" in reader.tally.hint()


def test_one_value_for_two_types_is_refused():
    with pytest.raises(TissueError, match=r"3 in maps would mean both 'stroma' and 'gland'"):
        MapReader(with_aliases(stroma=["3"]))
    with pytest.raises(TissueError, match="both 'gland' and 'unlabelled'"):
        MapReader(TABLE, ("3",))


def test_a_name_is_no_unlabelled_value():
    with pytest.raises(TissueError, match="'background' is neither a value"):
        MapReader(TABLE, ("background",))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_truncated_image_names_the_file(tmp_path, suffix, share):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = save(tmp_path / f"image.{suffix}", pixels)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError, match=rf"image\.{suffix}: cannot read the picture"):
        read_image(path)


def test_images_of_other_depths_are_refused(tmp_path):
    deep = np.full((8, 8, 3), 4000, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(deep))
    (tmp_path / "c.jp2").write_bytes(imagecodecs.jpeg2k_encode(deep))
    for name in ("a.tif", "b.png", "c.jp2"):
        with pytest.raises(ImageError, match="has 16 bits per color; save it as 8-bit RGB"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("mode", "name", "found"),
    [
        ("CMYK", "a.tif", "CMYK"),
        ("CMYK", "a.jpg", "CMYK"),
        ("LAB", "a.tif", "CIELAB"),
        ("YCbCr", "a.tif", "YCbCr"),
        ("L", "a.png", "grayscale"),
        ("LA", "a.png", "grayscale"),
        ("1", "a.png", "grayscale"),
        ("I;16", "a.png", "grayscale"),
    ],
)
def test_images_in_other_colors_are_refused_by_name(tmp_path, mode, name, found):
    picture = Image.new("RGB", (8, 8), (9, 80, 200))
    if mode == "I;16":
        picture = Image.new("I;16", (8, 8))
    else:
        picture = to_lab(picture) if mode == "LAB" else picture.convert(mode)
    picture.save(tmp_path / name)
    with pytest.raises(ImageError, match=rf"{name}: .*{found}"):
        read_image(tmp_path / name)


def to_lab(picture: Image.Image) -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(picture, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparent_pixels_of_images_are_white(tmp_path, name):
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8)
    path = save(tmp_path / name, rgba, **({"lossless": True} if name == "a.webp" else {}))
    assert read_image(path).tolist() == [[[255] * 3, [10, 20, 30], [204] * 3]]


def test_a_map_of_real_numbers_is_refused(tmp_path):
    path = save(tmp_path / "map.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(ImageError, match="holds real numbers"):
        MapReader(TABLE).read(path)


def test_a_picture_stored_rotated_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "image.jpg", np.zeros((4, 4, 3), np.uint8), exif=exif)
    with pytest.raises(ImageError, match="stored rotated"):
        read_image(path)


def test_a_picture_of_several_pages_is_refused(tmp_path):
    pages = [Image.new("L", (4, 4), shade) for shade in (0, 3)]
    pages[0].save(tmp_path / "map.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="holds 2 pages"):
        MapReader(TABLE).read(tmp_path / "map.tif")


def test_indexed_images_become_rgb(tmp_path):
    path = save_indexed(tmp_path / "indexed.png", [[1]], [0, 0, 0, 1, 2, 3])
    assert read_image(path).tolist() == [[[1, 2, 3]]]


def test_a_picture_beyond_all_sizes_is_refused_before_it_is_decoded(tmp_path):
    write_gray_png(tmp_path / "huge.png", np.zeros((1, 1), int), 1, (60_000, 60_000))
    with pytest.raises(ImageError, match=r"huge\.png: is 60000 x 60000 px; at most 179 million are read whole"):
        read_image(tmp_path / "huge.png")
