"""Woven patches on disk: whole or absent, the same bytes whether killed or not, readable by others."""

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from woven_folders import RECORD, TABLE, make_patch

from histoloom.errors import ImageError, InputError, OutputError, TissueError
from histoloom.generation.woven_patch import AnnotatedPatch, CropUse, read_provenance
from histoloom.generation.woven_reader import read_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

COUNT = 5


def weave(first: int):
    return (make_patch(number) for number in range(first, COUNT))


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def woven(tmp_path) -> Path:
    assert write_patches(weave, TABLE, tmp_path / "woven", RECORD) == COUNT
    return tmp_path / "woven"


def test_a_folder_holds_images_maps_index_table_and_record_and_nothing_else(woven):
    numbers = [f"{number:05d}.png" for number in range(COUNT)]
    assert sorted(all_bytes(woven)) == sorted(
        ["record.json", "index.parquet", "metadata.parquet", "tissue.toml"]
        + [f"{f}/{n}" for f in ("images", "maps") for n in numbers]
    )
    assert json.loads((woven / "record.json").read_text()) == RECORD.to_json() | {"version": VERSION}
    assert TissueTable.load(woven / "tissue.toml") == TABLE
    assert [path.name for path in woven.parent.iterdir()] == ["woven"]


def test_what_is_read_is_what_was_written(woven):
    read = read_woven(woven)
    for number, row in enumerate(read.rows):
        patch = make_patch(number)
        assert np.array_equal(read.images[number], patch.image)
        assert np.array_equal(read.semantic_maps[number], patch.semantic_map)
        assert row["seed"] == patch.provenance.seed
        assert row["map_source"] == f"layout {number}"
        assert [CropUse(**crop) for crop in row["crops"]] == list(patch.provenance.crops)
        assert sum(row["fractions"]) == pytest.approx(1)
        assert len(row["fractions"]) == 3
    assert read.table == TABLE


def test_a_map_is_an_indexed_png_whose_pixels_are_ids_and_whose_palette_is_the_table(woven):
    with Image.open(woven / "maps" / "00001.png") as opened:
        assert opened.mode == "P"
        ids, colors = np.asarray(opened), np.asarray(opened.convert("RGB"))
    assert np.array_equal(ids, make_patch(1).semantic_map)
    assert np.array_equal(colors, TABLE.colorize(ids))
    assert (colors[0, :3] == 255).all()


def test_an_image_tells_its_own_provenance(woven):
    assert read_provenance(woven / "images" / "00002.png") == make_patch(2).provenance


def test_other_libraries_read_the_index(woven):
    import datasets  # here, so that the children that get killed start fast

    rows = pq.read_table(woven / "index.parquet", columns=["image", "seed", "crops"]).to_pylist()
    assert rows[2]["image"] == "images/00002.png"
    assert rows[2]["crops"][1]["tissue_id"] == 2
    dataset = datasets.Dataset.from_parquet(str(woven / "index.parquet"), cache_dir=str(woven.parent / "cache"))
    assert dataset.num_rows == COUNT
    assert dataset[1]["scheduler"] == "DPMSolverMultistepScheduler"
    assert dataset[1]["crops"][0]["height"] == 40


def test_the_same_patches_give_the_same_bytes(woven, tmp_path):
    write_patches(weave, TABLE, tmp_path / "again", RECORD)
    assert all_bytes(tmp_path / "again") == all_bytes(woven)


@pytest.mark.parametrize("stop", range(COUNT + 1))
def test_a_run_stopped_anywhere_goes_on_and_gives_the_bytes_of_a_whole_one(woven, tmp_path, stop):
    def interrupted(first):
        yield from (make_patch(number) for number in range(first, stop))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_patches(interrupted, TABLE, tmp_path / "stopped", RECORD)
    assert not (tmp_path / "stopped").exists()
    asked = []
    write_patches(lambda first: asked.append(first) or weave(first), TABLE, tmp_path / "stopped", RECORD)
    assert asked == [stop]
    assert all_bytes(tmp_path / "stopped") == all_bytes(woven)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_woven_patches import RECORD, TABLE, weave, write_patches

def dies(source, target, replace=os.replace):
    if Path(target).match(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = dies
write_patches(weave, TABLE, sys.argv[2], RECORD)
"""


@pytest.mark.parametrize("file", ["record.json", "images/00002.png", "index.parquet"])
def test_a_run_killed_before_a_file_is_renamed_goes_on_and_gives_the_bytes_of_a_whole_one(woven, tmp_path, file):
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(out), file]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not out.exists()
    write_patches(weave, TABLE, out, RECORD)
    assert all_bytes(out) == all_bytes(woven)


def test_a_finished_folder_is_left_alone(woven):
    before = {path: path.stat().st_mtime_ns for path in woven.rglob("*")}
    assert write_patches(lambda first: pytest.fail("woven again"), TABLE, woven, RECORD) == COUNT
    assert {path: path.stat().st_mtime_ns for path in woven.rglob("*")} == before


def test_a_folder_of_another_record_is_refused_and_kept(woven):
    before = all_bytes(woven)
    with pytest.raises(
        OutputError, match=r"woven: was made by another run \(seed was 7, is now 8\); name another folder"
    ):
        write_patches(weave, TABLE, woven, replace(RECORD, settings=RECORD.settings | {"seed": 8}))
    assert all_bytes(woven) == before


def test_an_interrupted_folder_of_another_record_is_refused(tmp_path):
    def interrupted(first):
        yield make_patch(first)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_patches(interrupted, TABLE, tmp_path / "woven", RECORD)
    with pytest.raises(OutputError, match=r"woven\.partial: was made by another run \(input model was changed\)"):
        write_patches(weave, TABLE, tmp_path / "woven", replace(RECORD, inputs={"model": "def"}))


def test_a_folder_of_something_else_is_refused_and_an_empty_one_is_used(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(OutputError, match="thesis: exists already; name another folder"):
        write_patches(weave, TABLE, tmp_path / "thesis", RECORD)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    (tmp_path / "empty").mkdir()
    assert write_patches(weave, TABLE, tmp_path / "empty", RECORD) == COUNT


def test_a_bad_first_patch_leaves_nothing_behind(tmp_path):
    patch = make_patch(0)
    unfit = AnnotatedPatch(patch.image, patch.semantic_map[:20], patch.provenance)
    unknown = AnnotatedPatch(patch.image, np.full_like(patch.semantic_map, 9), patch.provenance)
    for bad, error, message in ((unfit, ImageError, "differ in size"), (unknown, TissueError, r"patch 0.*\[9\]")):
        with pytest.raises(error, match=message):
            write_patches(lambda first, bad=bad: [bad], TABLE, tmp_path / "woven", RECORD)
    with pytest.raises(OutputError, match="nothing to weave"):
        write_patches(lambda first: [], TABLE, tmp_path / "woven", RECORD)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_when_there_is_room(woven, tmp_path):
    """The kernel refuses files above a limit, as a full disk does: an OSError in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def large_third(first):
        for number in range(first, COUNT):
            if number == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
            yield make_patch(number)

    try:
        with pytest.raises(OutputError, match=r"cannot be written.*free some space and run again") as caught:
            write_patches(large_third, TABLE, tmp_path / "full", RECORD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "full").exists()
    assert not list(tmp_path.rglob("*.png*.partial"))
    write_patches(weave, TABLE, tmp_path / "full", RECORD)
    assert all_bytes(tmp_path / "full") == all_bytes(woven)


def test_a_place_that_cannot_be_written_to_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_patches(weave, TABLE, tmp_path / "file" / "woven", RECORD)


def test_reading_a_folder_that_is_unfinished_or_damaged_says_what_is_wrong(woven, tmp_path):
    with pytest.raises(InputError, match=r"index\.parquet: is not a readable Parquet file"):
        read_woven(tmp_path)
    shutil.copytree(woven, tmp_path / "empty")
    pq.write_table(pq.read_table(woven / "index.parquet").slice(0, 0), tmp_path / "empty" / "index.parquet")
    shutil.copytree(woven, tmp_path / "foreign")
    pq.write_table(pq.read_table(woven / "index.parquet").drop("crops"), tmp_path / "foreign" / "index.parquet")
    with pytest.raises(
        InputError, match=r"index\.parquet: has no column 'crops', so it is not an index of woven patches"
    ):
        read_woven(tmp_path / "foreign")
    with pytest.raises(InputError, match=r"index\.parquet: names no patches"):
        read_woven(tmp_path / "empty")
    with pytest.raises(InputError, match="0 patches were asked for"):
        read_woven(tmp_path, 0)
    (woven / "images" / "00003.png").write_bytes((woven / "images" / "00003.png").read_bytes()[:200])
    with pytest.raises(ImageError, match=r"00003\.png"):
        read_woven(woven)
    os.remove(woven / "maps" / "00001.png")
    with pytest.raises(ImageError, match=r"00003\.png|00001\.png"):
        read_woven(woven)


@pytest.mark.parametrize("column", ["image", "semantic_map"])
@pytest.mark.parametrize("name", ["../secret.png", "images/../../secret.png", "{}/secret.png", "link.png", "images/\0"])
def test_an_index_that_leads_out_of_its_folder_is_refused_before_anything_is_opened(woven, tmp_path, column, name):
    secret = tmp_path / "secret.png"
    Image.fromarray(np.zeros((24, 24, 3 if column == "image" else 1), np.uint8).squeeze()).save(secret)
    (woven / "link.png").symlink_to(secret)
    (woven / "images" / "00000.png").unlink()  # would be said of first, were files opened one by one
    index = pq.read_table(woven / "index.parquet")
    named = index.column(column).to_pylist()
    named[3] = name.format(tmp_path)
    at = index.column_names.index(column)
    pq.write_table(index.set_column(at, index.schema.field(at), [named]), woven / "index.parquet")
    with pytest.raises(InputError, match=rf"index\.parquet, row 3: {column} .* leads out of the folder; copy the file"):
        read_woven(woven)


def test_a_folder_that_is_itself_a_link_is_read(woven, tmp_path):
    (tmp_path / "link").symlink_to(woven)
    assert len(read_woven(tmp_path / "link").images) == COUNT


def test_a_picture_from_elsewhere_has_no_provenance(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    (tmp_path / "other.png").write_bytes(buffer.getvalue())
    with pytest.raises(ImageError, match="no readable provenance"):
        read_provenance(tmp_path / "other.png")


def test_a_folder_of_a_version_that_guided_at_all_times_is_read(woven):
    index = pq.read_table(woven / "index.parquet").drop_columns(["guidance_interval"])
    pq.write_table(index, woven / "index.parquet")
    assert [row["guidance_interval"] for row in read_woven(woven).rows] == [[0.0, 1.0]] * COUNT
    path = woven / "images" / "00000.png"
    with Image.open(path) as opened:
        image, said = opened.copy(), json.loads(opened.info["histoloom"])
    del said["guidance_interval"]
    text = PngImagePlugin.PngInfo()
    text.add_text("histoloom", json.dumps(said))
    image.save(path, pnginfo=text)
    assert read_provenance(path).guidance_interval == (0.0, 1.0)
