import json
import resource
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from histoloom.errors import ImageError, InputError, OutputError
from histoloom.patches.dataset import content_hash, read_description
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.patches.importer import import_pictures, is_made_from
from histoloom.patches.store import load_patches, read_table
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])
CONFIG = FolderImport(trim=1, size=8, val_share=0.25)


@pytest.fixture
def pictures(tmp_path):
    """Eight images of 20 x 20 px by four cases, each with four patches of 8 px."""
    for kind in ("images", "maps"):
        (tmp_path / kind).mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        name = f"p{index // 2}_{index}.png"
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        Image.fromarray(pixels[..., 0] % 2).save(tmp_path / "maps" / name)
    return find_pictures(tmp_path / "images", tmp_path / "maps", replace(CONFIG, case_pattern="^(p[0-9])"))


def test_a_dataset_holds_shards_table_record_and_card(tmp_path, pictures):
    record = import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "data", "dataset.json", "record.json", "tissue.toml"
    ]  # fmt: skip
    assert read_table(tmp_path / "out") == TABLE
    assert record["counts"] == {"train": {"patches": 24, "cases": 3}, "val": {"patches": 8, "cases": 1}}
    train, val = (load_patches(tmp_path / "out", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (24, 8)
    assert not set(train.cases) & set(val.cases)
    assert train.sources == sorted(train.sources)


def test_the_description_says_how_it_was_made(tmp_path, pictures):
    record = import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    assert record == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert record == read_description(tmp_path / "out")
    assert record["config"]["trim"] == 1
    assert record["sha256"] == content_hash(tmp_path / "out")
    assert record["notes"] == ["36.0 % of the pixels are in no patch (trimmed, or left over around the grid)"]


def test_the_same_files_give_the_same_bytes(tmp_path, pictures):
    records = [import_pictures(pictures, TABLE, CONFIG, tmp_path / name / "data") for name in ("one", "two")]
    assert records[0] == records[1]


def test_a_dataset_knows_what_it_was_made_from(tmp_path, pictures):
    out = tmp_path / "out"
    assert not is_made_from(out, pictures, TABLE, CONFIG)
    import_pictures(pictures, TABLE, CONFIG, out)
    assert is_made_from(out, pictures, TABLE, CONFIG)
    with pytest.raises(OutputError, match=r"made by another run \(config\.seed was 0, is now 1\)"):
        is_made_from(out, pictures, TABLE, replace(CONFIG, seed=1))
    with pytest.raises(OutputError, match="made by another run"):
        is_made_from(out, pictures, TissueTable.from_names(["stroma", "fat"]), CONFIG)
    with pytest.raises(OutputError, match="made by another run"):
        is_made_from(out, pictures[1:], TABLE, CONFIG)
    next((out / "data").glob("*.parquet")).unlink()
    with pytest.raises(OutputError, match="its files are not those that were written"):
        is_made_from(out, pictures, TABLE, CONFIG)


def test_an_image_that_changed_under_its_name_is_another_input(tmp_path, pictures):
    import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(pictures[3].image)
    with pytest.raises(OutputError, match=rf"input image {pictures[3].source} was changed"):
        is_made_from(tmp_path / "out", pictures, TABLE, CONFIG)


def test_what_is_left_out_is_said(tmp_path, pictures):
    blank = np.full((20, 20), 255, np.uint8)
    Image.fromarray(blank).save(pictures[0].map)
    small = replace(pictures[1], grid=replace(pictures[1].grid, size=1000))
    notes = import_pictures([pictures[0], small, *pictures[2:]], TABLE, CONFIG, tmp_path / "out")["notes"]
    assert "left out: 1 image smaller than a patch" in notes
    assert "left out: 4 patches without any label" in notes


def test_a_split_without_labels_is_refused(tmp_path, pictures):
    for picture in pictures:
        if picture.split == "val":
            Image.fromarray(np.full((20, 20), 255, np.uint8)).save(picture.map)
    with pytest.raises(InputError, match="split 'val' it has no label"):
        import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_broken_image_leaves_nothing_behind(tmp_path, pictures):
    pictures[-1].image.write_bytes(pictures[-1].image.read_bytes()[:100])
    with pytest.raises(ImageError, match=pictures[-1].image.name):
        import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path, pictures):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"\.out\.partial/record\.json: cannot be written .* run again"):
            import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("out*"))


def test_a_folder_that_holds_something_is_left_alone(tmp_path, pictures):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("precious")
    with pytest.raises(OutputError, match="out: exists already; name another folder"):
        import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.docx"]


def test_what_is_written_names_no_folder_of_this_machine(tmp_path, pictures):
    import_pictures(pictures, TABLE, CONFIG, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()


def test_an_image_of_two_cases_is_named(tmp_path, pictures):
    (tmp_path / "images" / "p3_6.png").write_bytes((tmp_path / "images" / "p0_1.png").read_bytes())
    (tmp_path / "images" / "p3_7.png").write_bytes((tmp_path / "images" / "p3_6.png").read_bytes())
    again = [replace(picture, split="val" if picture.case == "p3" else "train") for picture in pictures]
    notes = import_pictures(again, TABLE, CONFIG, tmp_path / "out")["notes"]
    assert notes[-1] == (
        "2 images are the same file as one of another case, 2 of them in another split: p3_6.png is p0_1.png; name one "
        "case for both, or leave one out"
    )
