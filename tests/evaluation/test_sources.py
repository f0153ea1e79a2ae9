import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import draw_tissue
from PIL import Image

from histoloom.conditioning.inputs import content_id
from histoloom.errors import ConfigError, ImageError, InputError
from histoloom.evaluation.comparison import compare
from histoloom.evaluation.hidden_types import hide_types
from histoloom.evaluation.map_origin import with_cases
from histoloom.evaluation.sources import (
    ImageSet,
    compare_scales,
    compare_sizes,
    compare_tables,
    load_images,
    num_duplicates,
    shared_images,
    training_images,
)
from histoloom.generation.woven_patch import AnnotatedPatch, CropUse, Provenance
from histoloom.generation.woven_writer import write_patches
from histoloom.patches.dataset import write_description
from histoloom.patches.store import encode_png, write_shards
from histoloom.records import Record
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])
CROP = CropUse("0.png", 1, 4, 2, 6, 6)


def pixels(seed: int, edge: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (edge, edge, 3), np.uint8)


def save(folder, names: list[str], edge: int = 12, first: int = 0) -> None:
    for seed, name in enumerate(names, first):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed, edge)).save(folder / name)


@pytest.fixture
def dataset(tmp_path):
    """A patch dataset with two patches to train on and one to validate."""
    folder = tmp_path / "dataset"
    for split, seeds in (("train", (0, 1)), ("val", (2,))):
        rows = [
            {"image": encode_png(pixels(s)), "semantic_map": encode_png(np.full((12, 12), s % 2, np.uint8)),
             "source": f"{s}.png", "x": 0, "y": 0, "size": 12, "mpp": None, "fractions": [0.5, 0.5], "entropy": 0.0,
             "case": f"case {s}", "split": split}
            for s in seeds
        ]  # fmt: skip
        write_shards(rows, TABLE, folder, split)
    (folder / "tissue.toml").write_text(TABLE.to_toml())
    write_description(folder, {})
    return folder


@pytest.fixture
def woven(tmp_path):
    """Two woven patches, the first from the map of 2.png, the second with a crop of 0.png."""

    def weave(first: int):
        for seed, source, crops in ((7, "2.png", ()), (8, "layout 1", (CROP,)))[first:]:
            made = Provenance(seed, source, crops, "map", 1.0, 1.0, 5, "unipc", "abc", "0")
            yield AnnotatedPatch(pixels(seed), np.zeros((12, 12), np.uint8), made)

    write_patches(weave, TABLE, tmp_path / "woven", Record(command="test", format=1, settings={}))
    return tmp_path / "woven"


def test_a_dataset_is_read_by_split_val_unless_asked(dataset):
    found = load_images(dataset)
    assert (found.split, found.kind, found.cases) == ("val", "patch dataset", ["case 2"])
    np.testing.assert_array_equal(found.images[0], pixels(2))
    assert found.table == TABLE
    assert load_images(dataset, "train").names == ["0.png", "1.png"]
    with pytest.raises(InputError, match=r"no shards of split 'test'.*known: train, val"):
        load_images(dataset, "test")


def test_a_split_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(InputError, match="is not a patch dataset, so it has no split 'val'"):
        load_images(tmp_path, "val")


def test_training_images_are_those_of_the_dataset_unless_named(dataset, tmp_path):
    real = load_images(dataset)
    assert training_images(None, real).split == "train"
    assert training_images(None, load_images(dataset, "train")) is None
    save(tmp_path / "plain", ["a.png", "b.png"])
    assert training_images(tmp_path / "plain", real).kind == "image folder"
    assert training_images(None, load_images(tmp_path / "plain")) is None


def test_woven_patches_keep_their_maps_and_take_the_case_of_a_known_map(dataset, woven):
    found = load_images(woven)
    assert (found.kind, found.cases) == ("woven patches", ["2.png", "layout 1"])
    assert found.semantic_maps.shape == (2, 12, 12)
    assert found.made["model_hash"] == "abc"
    assert (found.made["scheduler"], found.made["steps"], found.made["map_guidance"]) == ("unipc", "5", "1.0")
    real = load_images(dataset)
    assert with_cases(found, [real]).cases == ["case 2", "layout 1"]
    of_map = content_id(real.semantic_maps[0])
    assert with_cases(replace(found, cases=[of_map, "layout 1"]), [real]).cases == ["case 2", "layout 1"]
    shared = replace(real, cases=["another case"])  # a map that two cases have names neither
    assert with_cases(replace(found, cases=[of_map, "layout 1"]), [real, shared]).cases == [of_map, "layout 1"]


def test_woven_patches_keep_the_names_and_places_of_their_crops(dataset, woven):
    found = load_images(woven)
    assert found.crops == [[], [CROP]]
    assert found.select([1, 0, 1]).crops == [[CROP], [], [CROP]]
    assert load_images(dataset).crops == load_images(dataset).select([0]).crops == []


def test_in_a_plain_folder_a_sub_folder_is_a_case(tmp_path):
    save(tmp_path, ["P1/a.png", "P1/b.png", "P2/a.png", "c.bmp", "c.png"])
    found = load_images(tmp_path)
    assert found.names == ["P1/a.png", "P1/b.png", "P2/a.png", "c.bmp", "c.png"]
    assert found.cases == ["P1", "P1", "P2", f"{tmp_path}/c.bmp", f"{tmp_path}/c.png"]
    assert found.semantic_maps is None
    assert found.file_format == "BMP, PNG"


def test_equal_file_names_in_two_folders_are_two_cases_and_equal_sub_folders_are_one(tmp_path):
    for folder in ("real", "train", "fake"):
        save(tmp_path / folder, ["0001.png", "0002.png"], first=100 * len(folder) + ord(folder[0]))
        save(tmp_path / folder / "by case", ["P1/0001.png", "P2/0001.png"])
    real, train, fake = (load_images(tmp_path / folder) for folder in ("real", "train", "fake"))
    assert set(real.cases) & set(train.cases) == {"by case/P1", "by case/P2"}
    flat = [images.select([0, 1]) for images in (real, fake, train)]
    assert compare(*flat).unseen == "reference"
    with pytest.raises(InputError, match=r"train: case 'by case/P1' is also in .*real"):
        compare(real, fake, train)


def test_a_lossy_format_is_named(tmp_path):
    save(tmp_path, ["a.jpg", "b.png"])
    assert load_images(tmp_path).kept_as == "JPEG (lossy), PNG"


def test_the_bytes_of_an_image_say_its_format_and_not_its_name(tmp_path):
    Image.fromarray(draw_tissue(np.random.default_rng(0), 64)[0]).save(tmp_path / "a.png", "JPEG")
    assert load_images(tmp_path).kept_as == "JPEG (lossy)"


def test_a_dataset_says_what_it_keeps_and_what_that_was_made_from(tmp_path):
    def dataset(name: str, sources: list[str], encode=encode_png) -> ImageSet:
        rows = [
            {"image": encode(pixels(i)), "semantic_map": encode_png(np.zeros((12, 12), np.uint8)), "source": source,
             "x": 0, "y": 0, "size": 12, "mpp": None, "fractions": [1.0, 0.0], "entropy": 0.0, "case": source,
             "split": "train"}
            for i, source in enumerate(sources)
        ]  # fmt: skip
        write_shards(rows, TABLE, tmp_path / name, "train")
        (tmp_path / name / "tissue.toml").write_text(TABLE.to_toml())
        return load_images(tmp_path / name)

    def jpeg(image: np.ndarray) -> dict:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG")
        return {"bytes": buffer.getvalue(), "path": None}

    pictures = dataset("pictures", ["images/a.jpg", "images/b.JPEG", "images/c.png"])
    assert pictures.kept_as == "PNG (in Parquet), made from JPEG (lossy), PNG"
    assert dataset("slides", ["CMU-1.svs"] * 2).kept_as == "PNG (in Parquet), made from SVS"
    assert dataset("unknown", ["a.png", "field 7"]).kept_as == "PNG (in Parquet)"
    assert dataset("foreign", ["field 7"], jpeg).kept_as == "JPEG (lossy) (in Parquet)"


def test_folders_that_are_no_use_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        load_images(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no images"):
        load_images(tmp_path)
    save(tmp_path, ["a.png"])
    Image.fromarray(pixels(0, 20)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"b\.png: is 20 x 20 px where a\.png is 12 x 12; cut all images to one size"):
        load_images(tmp_path)


@pytest.mark.parametrize("kind", ["indexed", "gray", "rgb"])
def test_label_maps_are_no_images(tmp_path, kind):
    save(tmp_path, ["images/P1/a.png", "images/P1/b.png"])
    indices = np.arange(144, dtype=np.uint8).reshape(12, 12) % 3
    picture = Image.fromarray(indices if kind == "gray" else TABLE.colorize(indices % 2))
    (tmp_path / "maps" / "P1").mkdir(parents=True)
    (picture.convert("P") if kind == "indexed" else picture).save(tmp_path / "maps" / "P1" / "a.png")
    with pytest.raises(ImageError, match=r"maps/P1/a\.png: is a label map, .* the images alone, such as .*/images$"):
        load_images(tmp_path)
    assert load_images(tmp_path / "images").names == ["P1/a.png", "P1/b.png"]


def test_blank_glass_and_indexed_tissue_are_images(tmp_path):
    for case in ("P1", "P2"):
        save(tmp_path, [f"{case}/a.png"])
        Image.fromarray(pixels(0)).quantize(100).save(tmp_path / case / "b.png")
        Image.new("RGB", (12, 12), (253, 252, 254)).save(tmp_path / case / "d.png")
        white = Image.new("P", (12, 12), 0)
        white.putpalette([255] * 3)
        white.save(tmp_path / case / "c.png")
    assert len(load_images(tmp_path)) == 8


def test_what_a_plain_folder_leaves_out_is_noted(tmp_path):
    save(tmp_path, ["a.png", ".hidden.png", ".ipynb_checkpoints/a.png", "made/b.png"])
    (tmp_path / "made" / "record.json").write_text("{}")
    (tmp_path / "c.gif").write_bytes(b"")
    found = load_images(tmp_path)
    assert found.names == ["a.png"]
    assert found.select([0]).notes == tuple(
        f"{tmp_path}: {note}"
        for note in (
            "1 folders that histoloom has written were left out: made",
            "1 hidden files were left out: .hidden.png",
            "1 files are not images that can be opened: c.gif",
        )
    )


def image_set(seeds: list[int], edge: int = 12) -> ImageSet:
    names = [f"{s}.png" for s in seeds]
    return ImageSet("here", "image folder", "", "PNG", np.stack([pixels(s, edge) for s in seeds]), None, names, names)


def test_the_real_folder_in_the_place_of_the_synthetic_one_is_noticed():
    real = image_set([0, 1, 2, 3])
    with pytest.raises(InputError, match="all 2 images are images of here, pixel by pixel: this is the real folder"):
        shared_images(real, image_set([3, 1]))
    assert shared_images(real, image_set([9, 2, 8])) == [1]


def test_repeated_images_are_counted():
    assert num_duplicates(image_set([0, 1, 2])) == 0
    assert num_duplicates(image_set([0, 1, 0, 0, 1])) == 3


def test_other_sizes_are_refused():
    with pytest.raises(ImageError, match="images are 20 x 20 px where those of here are 12 x 12"):
        compare_sizes(image_set([0]), replace(image_set([1], 20), where="there"))


def test_another_tissue_table_is_refused_and_its_first_difference_named():
    real = replace(image_set([0]), table=TissueTable.from_names(["stroma", "gland", "tumour"]))

    def other(*names: str) -> ImageSet:
        return replace(image_set([1]), where="there", table=TissueTable.from_names(list(names)))

    with pytest.raises(InputError, match=r"there/tissue\.toml: id 1 is 'tumour' and in here/tissue\.toml 'gland'"):
        compare_tables(real, other("stroma", "tumour", "gland"))
    wider = other("stroma", "gland", "tumour", "fat")
    with pytest.raises(InputError, match=r"id 3 is 'fat' and in here/tissue\.toml no tissue"):
        compare_tables(real, replace(wider, semantic_maps=np.full((1, 12, 12), 3, np.uint8)))
    unseen = replace(wider, semantic_maps=np.zeros((1, 12, 12), np.uint8))
    for same in (real, other("Stroma", "gland"), image_set([2]), unseen):
        compare_tables(real, same)


def test_types_that_are_left_out_give_their_pixels_to_the_nearest_other_type():
    maps = np.zeros((1, 12, 12), np.uint8)
    maps[0, :, 4:] = 1
    maps[0, 5:7, 8:10] = 2
    table = TissueTable.from_names(["stroma", "gland", "Lumen"])
    known = replace(image_set([0]), semantic_maps=maps, table=table)
    plain = replace(image_set([1]), table=TissueTable.from_names(["stroma", "gland"]))
    bare, other = hide_types(["lumen"], [known, plain])
    assert bare.known_table.names == ["stroma", "gland"]
    assert np.array_equal(bare.maps, np.where(maps == 2, np.uint8(1), maps))
    assert other is plain
    assert bare.hidden == (2,)
    assert bare.map_ids == known.map_ids  # woven patches name whole maps
    with pytest.raises(ConfigError, match="no set has a tissue type 'fat'; known: Lumen, gland, stroma"):
        hide_types(["fat"], [known, plain])
    with pytest.raises(InputError, match="all of its types are hidden"):
        hide_types(table.names, [known])


def test_a_type_is_left_out_of_every_set_by_whatever_name_it_has_there():
    maps = np.repeat(np.arange(3, dtype=np.uint8), 48).reshape(1, 12, 12)
    rows = TissueTable.from_names(["stroma", "gland", "lumen or glass"]).types
    aliased = TissueTable((*rows[:2], replace(rows[2], aliases=("lumen",))))
    named = TissueTable.from_names(["stroma", "gland", "lumen"])
    sets = [replace(image_set([0]), semantic_maps=maps, table=table) for table in (aliased, named)]
    for name in ("lumen or glass", "Lumen"):
        assert [images.known_table.num_ids for images in hide_types([name], sets)] == [2, 2]
        assert all(images.maps.max() == 1 for images in hide_types([name], sets))


def test_woven_patches_find_their_case_by_what_their_map_shows_besides_hidden_types():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 2, (3, 48, 48), dtype=np.uint8)
    outlined = maps.copy()
    outlined[:, 10:30, 10:30] = 2
    plain, wider = TissueTable.from_names(["stroma", "gland"]), TissueTable.from_names(["stroma", "gland", "lumen"])
    images = rng.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    ids = [content_id(semantic_map) for semantic_map in outlined]
    real = ImageSet("real", "patch dataset", "val", "PNG", images, maps, ["a", "b", "b"], ["1", "2", "3"], plain)
    fake = ImageSet("fake", "woven patches", "", "PNG", images, outlined, ids, ["x", "y", "z"], wider)
    assert with_cases(fake, [real]).cases == ids
    hidden, same = hide_types(["lumen"], [fake, real])
    assert with_cases(hidden, [same]).cases == ["a", "b", "b"]
    # The other way round: the real maps are outlined, and those that were woven are not.
    fake, real = replace(fake, semantic_maps=maps, table=plain), replace(real, semantic_maps=outlined, table=wider)
    hidden, same = hide_types(["lumen"], [fake, real])
    assert with_cases(hidden, [same]).cases == ["a", "b", "b"]
    blank = replace(fake, semantic_maps=np.full_like(maps, 2), cases=list("123"), names=list("123"), table=wider)
    hidden, same = hide_types(["lumen"], [blank, replace(real, names=list("456"))])
    assert with_cases(hidden, [same]).cases == list("123")  # nothing is left to tell it by


def test_names_of_types_are_part_of_the_fingerprint(dataset):
    real = load_images(dataset, "train")
    swapped = replace(real, table=TissueTable.from_names(real.known_table.names[::-1]))
    assert swapped.fingerprint() != real.fingerprint()


def test_images_of_another_scale_are_refused_where_both_scales_are_known(dataset, woven):
    real, fake = load_images(dataset, "train"), load_images(woven)
    assert (real.mpp, fake.mpp) == (None, None)
    compare_scales(real, replace(fake, mpp=0.5))
    compare_scales(replace(real, mpp=0.5), replace(fake, mpp=0.52))
    with pytest.raises(ImageError, match=r"has 0\.25 um per pixel where .* has 0\.5; weave or import both at one mpp"):
        compare_scales(replace(real, mpp=0.5), replace(fake, mpp=0.25))
