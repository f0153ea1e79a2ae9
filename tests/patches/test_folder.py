import numpy as np
import pytest
from picture_folders import labels, pixels, save, write_pair, write_pairs
from PIL import Image

from histoloom.errors import ConfigError, ImageError, InputError, TissueError
from histoloom.patches.folder import FolderImport, dropped_share, find_pictures, patch_rows
from histoloom.patches.importer import dataset_record
from histoloom.pictures import read_image, read_labels
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "fat"])


def find(root, **config):
    return find_pictures(root / "images", root / "maps", FolderImport(**config))


def read(pictures, **config):
    return list(patch_rows(pictures, TABLE, FolderImport(**config)))


def test_pixels_and_maps_come_through_unchanged(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    rows = read(find(tmp_path, mpp=0.5), mpp=0.5)
    assert [row["source"] for row in rows] == ["a.png", "b.png"]
    for seed, found in enumerate(rows):
        np.testing.assert_array_equal(read_image(found["image"]["bytes"], ""), pixels(seed))
        np.testing.assert_array_equal(read_labels(found["semantic_map"]["bytes"], ""), labels(seed))
        assert (found["x"], found["y"], found["size"], found["mpp"]) == (0, 0, 24, 0.5)


def test_fractions_and_entropy_are_of_the_labelled_pixels(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    semantic_map = np.full((24, 24), 255, np.uint8)
    semantic_map[:4], semantic_map[4:8] = 0, 2
    save(tmp_path / "maps" / "a.png", semantic_map)
    first = read(find(tmp_path))[0]
    assert first["fractions"] == [0.5, 0, 0.5]
    assert first["entropy"] == pytest.approx(np.log(2))


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "webp", "jpg", "JPEG"])
def test_images_may_be_png_tiff_jpeg_or_webp(tmp_path, suffix):
    for seed, name in enumerate("ab"):
        save(tmp_path / "images" / f"{name}.{suffix}", pixels(seed))
        save(tmp_path / "maps" / f"{name}.png", labels(seed))
    found = read(find(tmp_path))
    assert [row["source"] for row in found] == [f"a.{suffix}", f"b.{suffix}"]
    with Image.open(tmp_path / "images" / f"a.{suffix}") as opened:
        np.testing.assert_array_equal(read_image(found[0]["image"]["bytes"], ""), np.asarray(opened))


def test_trimming_cuts_the_frame_of_image_and_map(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    first = read(find(tmp_path, trim=2))[0]
    assert (first["x"], first["y"], first["size"]) == (2, 2, 20)
    np.testing.assert_array_equal(read_image(first["image"]["bytes"], ""), pixels(0)[2:-2, 2:-2])
    np.testing.assert_array_equal(read_labels(first["semantic_map"]["bytes"], ""), labels(0)[2:-2, 2:-2])


def test_a_large_image_becomes_a_centred_grid_of_patches(tmp_path):
    write_pair(tmp_path, "a", 0, shape=(25, 36))
    write_pair(tmp_path, "b", 1, shape=(12, 12))
    pictures = find(tmp_path, size=10, trim=1)
    rows = [row for row in read(pictures) if row["source"] == "a.png"]
    assert [(row["x"], row["y"]) for row in rows] == [(3, 2), (13, 2), (23, 2), (3, 12), (13, 12), (23, 12)]
    for found in rows:
        window = slice(found["y"], found["y"] + 10), slice(found["x"], found["x"] + 10)
        np.testing.assert_array_equal(read_image(found["image"]["bytes"], ""), pixels(0, 25, 36)[window])
    assert {row["split"] for row in rows} == {rows[0]["split"]}
    assert dropped_share(pictures) == pytest.approx(1 - 700 / (25 * 36 + 144))


def test_one_patch_of_an_image_is_its_centre(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    assert [picture.places for picture in find(tmp_path, size=16)] == [((4, 4),)] * 2


def test_images_smaller_than_a_patch_have_none(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    write_pair(tmp_path, "small", 3, shape=(24, 15))
    assert [len(picture.places) for picture in find(tmp_path, size=16)] == [1, 1, 0]
    with pytest.raises(InputError, match=r"every image is smaller than 30 px after trimming; ask for a smaller --size"):
        find(tmp_path, size=30)


def test_images_of_several_shapes_need_a_size(tmp_path):
    write_pair(tmp_path, "a", 0)
    write_pair(tmp_path, "b", 1, shape=(24, 26))
    with pytest.raises(ImageError, match=r"b\.png: is 26 x 24 px .* where 24 x 24 is expected; .*--size"):
        find(tmp_path)


def test_patches_without_a_label_are_left_out(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    semantic_map = labels(0)
    semantic_map[:12, :12] = 255
    save(tmp_path / "maps" / "a.png", semantic_map)
    rows = read(find(tmp_path, size=12))
    assert [(row["x"], row["y"]) for row in rows if row["source"] == "a.png"] == [(12, 0), (0, 12), (12, 12)]


def test_the_folder_of_an_image_is_its_case(tmp_path):
    write_pairs(tmp_path, ["p1/a", "p1/b", "p2/a", "loose"])
    assert [(p.source, p.case) for p in find(tmp_path)] == [
        ("loose.png", "loose"), ("p1/a.png", "p1"), ("p1/b.png", "p1"), ("p2/a.png", "p2")
    ]  # fmt: skip


def test_in_one_folder_each_image_is_a_case(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    assert [picture.case for picture in find(tmp_path)] == ["a", "b"]


def test_a_pattern_finds_the_case_in_the_file_name(tmp_path):
    write_pairs(tmp_path, ["P1_a", "P1_b", "P2_a"])
    assert [picture.case for picture in find(tmp_path, case_pattern="^(P[0-9]+)_")] == ["P1", "P1", "P2"]
    with pytest.raises(InputError, match=r"P1_a\.png: the case pattern .* finds nothing"):
        find(tmp_path, case_pattern="^(Q[0-9]+)_")


@pytest.mark.parametrize("pattern", ["P[0-9]+", "(a)(b)", "(unclosed"])
def test_a_pattern_needs_one_group(pattern):
    with pytest.raises(ConfigError, match="case_pattern"):
        FolderImport(case_pattern=pattern)


@pytest.mark.parametrize("wrong", [{"trim": -1}, {"size": 0}, {"val_share": 1.0}, {"mpp": 0.0}, {"mpp": float("nan")}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FolderImport(**wrong)


def test_a_drawn_split_keeps_cases_together(tmp_path):
    write_pairs(tmp_path, [f"p{case}/{image}" for case in range(5) for image in range(2)])
    pictures = find(tmp_path, val_share=0.4)
    assert sum(picture.split == "val" for picture in pictures) == 4
    assert len({(picture.case, picture.split) for picture in pictures}) == 5
    assert find(tmp_path, val_share=0.4) == pictures
    assert any(find(tmp_path, val_share=0.4, seed=seed) != pictures for seed in range(1, 4))


def test_maps_may_lie_below_the_images(tmp_path):
    for seed, name in enumerate("ab"):
        save(tmp_path / f"{name}.png", pixels(seed))
        save(tmp_path / "maps" / f"{name}.png", labels(seed))
    pictures = find_pictures(tmp_path, tmp_path / "maps", FolderImport())
    assert [picture.source for picture in pictures] == ["a.png", "b.png"]


def test_maps_beside_the_images_need_a_suffix(tmp_path):
    for seed, name in enumerate("ab"):
        save(tmp_path / f"{name}.png", pixels(seed))
        save(tmp_path / f"{name}_mask.png", labels(seed))
    pictures = find_pictures(tmp_path, tmp_path, FolderImport(map_suffix="_mask"))
    assert [(p.source, p.map.name) for p in pictures] == [("a.png", "a_mask.png"), ("b.png", "b_mask.png")]
    with pytest.raises(InputError, match="--map-suffix"):
        find_pictures(tmp_path, tmp_path, FolderImport())


def test_the_record_sees_a_changed_label(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    before = dataset_record(find(tmp_path), TABLE, FolderImport())
    assert dataset_record(find(tmp_path), TABLE, FolderImport()) == before
    save(tmp_path / "maps" / "a.png", labels(9))
    after = dataset_record(find(tmp_path), TABLE, FolderImport())
    assert {name for name in before.inputs if before.inputs[name] != after.inputs[name]} == {"map a.png"}


def test_a_map_of_another_size_names_both_sizes(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    save(tmp_path / "maps" / "b.png", labels(0, 20, 24))
    with pytest.raises(ImageError, match=r"maps/b\.png: is 24 x 20 px but its image b\.png is 24 x 24; export both"):
        find(tmp_path)


def test_an_unknown_value_names_the_map(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    save(tmp_path / "maps" / "b.png", np.full((24, 24), 77, np.uint8))
    with pytest.raises(TissueError, match=r"maps/b\.png: map value 77 .*aliases"):
        read(find(tmp_path))


def test_an_empty_folder_names_the_formats(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "maps").mkdir()
    with pytest.raises(InputError, match=r"images: no images \(png, .*webp, bmp, jp2\)"):
        find(tmp_path)


def test_a_truncated_image_names_the_file(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    broken = tmp_path / "images" / "b.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"images/b\.png: cannot read the picture"):
        read(find(tmp_path))


def test_an_image_without_map_is_named(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    (tmp_path / "maps" / "b.png").unlink()
    with pytest.raises(InputError, match=r"images/b\.png: has no map .*maps/b\.\*; add it"):
        find(tmp_path)


def test_two_images_for_one_map_are_refused(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    save(tmp_path / "images" / "a.tif", pixels(5))
    with pytest.raises(InputError, match=r"a\.tif: shares its map with a\.png"):
        find(tmp_path)


def test_two_maps_for_one_image_are_refused(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    save(tmp_path / "maps" / "a.tif", labels(5))
    with pytest.raises(InputError, match=r"a\.tif: has the name of a\.png; keep one map"):
        find(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    outside = save(tmp_path / "outside.png", pixels(0))
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "a.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"a\.png leads out of .*images to .*outside\.png; copy the file"):
        find(tmp_path)


@pytest.mark.parametrize("mpp", [1e-9, 1e9, 0.0, -0.5])
def test_an_mpp_that_no_slide_has_is_refused(mpp):
    with pytest.raises(ConfigError, match=r"mpp is .*; give micrometers per pixel in"):
        FolderImport(mpp=mpp)


def test_images_of_another_magnification_are_resampled_and_maps_keep_their_ids(tmp_path):
    for seed, name in enumerate("ab"):
        save(tmp_path / "images" / f"{name}.png", np.kron(pixels(seed), np.ones((2, 2, 1), np.uint8)))
        save(tmp_path / "maps" / f"{name}.png", np.kron(labels(seed), np.ones((2, 2), np.uint8)))
    config = {"trim": 8, "mpp": 0.25, "to_mpp": 0.5, "size": 10}
    first, _ = read(find(tmp_path, **config), **config)
    assert (first["x"], first["y"], first["size"], first["mpp"]) == (14, 14, 20, 0.5)
    np.testing.assert_array_equal(read_labels(first["semantic_map"]["bytes"], ""), labels(0)[7:17, 7:17])
    assert abs(read_image(first["image"]["bytes"], "").astype(int) - pixels(0)[7:17, 7:17]).mean() < 25


@pytest.mark.parametrize(
    ("stride", "starts", "dropped"),
    [(None, [2, 12], 1 - 20**2 / 24**2), (7, [0, 7, 14], 0), (14, [0, 14], 1 - 20**2 / 24**2)],
)
def test_a_stride_lets_patches_overlap_or_keep_apart(tmp_path, stride, starts, dropped):
    write_pairs(tmp_path, ["a", "b"])
    pictures = find(tmp_path, size=10, stride=stride)
    assert sorted({x for x, _ in pictures[0].places}) == starts
    assert dropped_share(pictures) == pytest.approx(dropped)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"to_mpp": 0.5}, "mpp of the images is unknown"),
        ({"stride": 5}, "needs the size of a patch"),
        ({"stride": 0, "size": 8}, "stride is 0"),
        ({"mpp": 0.5, "to_mpp": 0.0}, "to_mpp is 0.0; give micrometers"),
    ],
)
def test_a_magnification_or_stride_that_cannot_be_is_refused(config, reason):
    with pytest.raises(ConfigError, match=reason):
        FolderImport(**config)


@pytest.mark.parametrize(("mpp", "to_mpp"), [(1000.0, 0.01), (0.5, 900.0)])
def test_a_magnification_that_leaves_nothing_or_too_much_is_refused(tmp_path, mpp, to_mpp):
    write_pairs(tmp_path, ["a"])
    with pytest.raises(ImageError, match="check --mpp and --to-mpp"):
        find(tmp_path, mpp=mpp, to_mpp=to_mpp, size=8)


def test_labels_of_a_tiff_that_does_not_say_what_zero_means_are_its_values(tmp_path):
    stored = np.full((8, 8), 2, np.uint8)
    Image.fromarray(stored).save(tmp_path / "map.tif")
    data = (tmp_path / "map.tif").read_bytes()
    tag = (262).to_bytes(2, "little") + b"\3\0"  # PhotometricInterpretation, a short
    assert data.count(tag) == 1
    assert (read_labels(data.replace(tag, b"\0\x80\3\0")) == stored).all()
