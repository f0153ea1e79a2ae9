"""Patches become vectors: from slides or a dataset, part by part, resumed, with the same bytes wherever it ran."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from bars import Counter
from conftest import draw_tissue
from slide_files import MPP, write_tiled_tiff

from histoloom.discovery.choose import ChooseConfig, choose
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.embed import embed
from histoloom.discovery.embedding_run import EmbedConfig, read_embedding
from histoloom.discovery.embeddings import open_chosen, open_table
from histoloom.discovery.parts import find_parts
from histoloom.discovery.plan import count_patches
from histoloom.discovery.slide_parts import SlidePart
from histoloom.discovery.windows import open_windows
from histoloom.distributed import Workers
from histoloom.encoders.encoder import Encoder, open_encoder
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.errors import ConfigError, InputError, ModelError, OutputError
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.patches.importer import import_pictures
from histoloom.slides.reader import open_slide
from histoloom.tissue import TissueTable

CUTTING = Cutting(mpp=2 * MPP, size=64, slide_mpp=MPP)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    """A small encoder with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=3)), folder)
    return str(folder)


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    """Three slides: tissue on the left two thirds, glass on the right."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(3):
        rng = np.random.default_rng(number)
        pixels = np.full((400, 900, 3), 245, np.uint8)
        pixels[:, :600] = np.concatenate([draw_tissue(rng, 600, 3)[0][:400]])
        write_tiled_tiff(folder / f"P{number}-a.tif", pixels)
    return folder


def run(source: Path, out: Path, config: EmbedConfig, **how):
    parts, notes = find_parts(source, config.cutting)
    return embed(parts, config, out, source, **how), notes


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "embeddings").iterdir()}


def test_every_batch_is_filled_up_so_that_all_are_rounded_alike(slides, encoder, tmp_path, monkeypatch):
    seen, config = [], EmbedConfig(encoder, CUTTING, batch_size=5, precision="float32")
    whole, _ = run(slides, tmp_path / "out", config)
    call = Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda self, images: seen.append(len(images)) or call(self, images))
    run(slides, tmp_path / "again", config)
    assert set(seen) == {5}
    assert len(seen) * 5 > whole.patches  # the last of a slide is smaller
    assert files(tmp_path / "out") == files(tmp_path / "again")


def test_a_row_is_the_encoders_vector_of_the_pixels_at_its_place(slides, encoder, tmp_path):
    config = EmbedConfig(encoder, replace(CUTTING, case_pattern="^(P[0-9])"), precision="float32")
    done, notes = run(slides, tmp_path / "out", config)
    table = open_table(tmp_path / "out")
    assert (done.patches, done.parts, done.failures, notes) == (table.rows, 3, [], [])
    assert read_embedding(tmp_path / "out") == (slides, config)
    opened = open_encoder(encoder)
    assert (table.encoder, table.fingerprint, table.dimensions) == (opened.name, opened.fingerprint, 12)
    rows = [row for batch in table.batches(7) for row in batch.to_pylist()]
    assert {row["case_id"] for row in rows} == {"P0", "P1", "P2"}
    assert {(row["size"], row["mpp"]) for row in rows} == {(128, 2 * MPP)}
    assert max(row["x"] + row["size"] for row in rows) < 600 + 128  # glass is left out
    for row in rows[::5]:
        with open_slide(slides / row["slide"]) as slide:
            image = slide.read(row["x"], row["y"], 64, 2 * MPP)
        assert np.allclose(row["vector"], opened(image[None])[0], atol=1e-5)


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(slides, encoder, tmp_path):
    config = EmbedConfig(encoder, CUTTING)
    run(slides, tmp_path / "whole", config)
    run(slides, tmp_path / "killed", config)
    broken = sorted((tmp_path / "killed" / "embeddings").iterdir())[1]
    broken.rename(broken.with_name(".half.partial"))  # as a kill in the middle of a part leaves it
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "embeddings").glob("*.parquet")}
    run(slides, tmp_path / "killed", config)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert (
        kept.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "killed" / "embeddings").iterdir()}.items()
    )


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
@pytest.mark.usefixtures("ray_cluster")
def test_ray_writes_the_bytes_of_one_process_even_where_a_worker_is_killed_in_the_middle(slides, encoder, tmp_path):
    killed = []

    def kill_a_worker(count: int) -> None:
        if count == 1 and not killed:
            killed.append(min(ray_workers()))
            os.kill(killed[0], signal.SIGKILL)

    config = EmbedConfig(encoder, CUTTING)
    run(slides, tmp_path / "one", config)
    done, _ = run(slides, tmp_path / "ray", config, workers=Workers(ray="local"), bar=Counter(kill_a_worker))
    assert killed
    assert done.failures == []
    assert files(tmp_path / "ray") == files(tmp_path / "one")


def ray_workers() -> list[int]:
    """Processes in which Ray runs our callable, started by this process and no other."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            pid, parents = int(folder.name), []
            if b"_RayWorker" in (folder / "cmdline").read_bytes():
                while pid > 1:
                    pid = int((Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    parents.append(pid)
            if os.getpid() in parents:
                found.append(int(folder.name))
    return found


STOPS = """
import os, signal, sys
from pathlib import Path
from histoloom.discovery.embed import embed
from histoloom.discovery.embedding_run import EmbedConfig, read_embedding
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.parts import find_parts
from histoloom.distributed import Workers

source, out, encoder = sys.argv[1:]
config = EmbedConfig(encoder, Cutting(mpp=0.5, size=64, slide_mpp=0.25))
class Kill:
    def advance(self, count=1, note=""):
        count and os.kill(os.getpid(), signal.SIGKILL)

parts, _ = find_parts(Path(source), config.cutting)
embed(parts, config, Path(out), Path(source), Workers(), Kill())
"""


def test_a_run_killed_for_good_goes_on_when_it_is_repeated(slides, encoder, tmp_path):
    config = EmbedConfig(encoder, CUTTING)
    run(slides, tmp_path / "whole", config)
    done = subprocess.run([sys.executable, "-c", STOPS, slides, tmp_path / "killed", encoder])
    assert done.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "embeddings").glob("*.parquet")}
    assert len(kept) == 1
    run(slides, tmp_path / "killed", config)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_slide_without_tissue_a_broken_one_and_a_copy_are_named_and_the_rest_is_embedded(slides, encoder, tmp_path):
    folder = tmp_path / "slides"
    shutil.copytree(slides, folder)
    write_tiled_tiff(folder / "glass.tif", np.full((400, 600, 3), 245, np.uint8))
    (folder / "broken.tif").write_bytes((folder / "P0-a.tif").read_bytes()[:3000])
    shutil.copy(folder / "P1-a.tif", folder / "Q1-copy.tif")
    done, notes = run(folder, tmp_path / "out", EmbedConfig(encoder, CUTTING))
    assert done.parts == 3
    assert len(done.failures) == 2
    assert done.failures[0].startswith(f"{folder}/broken.tif: ")
    assert done.failures[1].startswith(f"{folder}/glass.tif: no patch of 64 px at 0.5 um/px holds 50% tissue; view it")
    assert notes == [f"{folder}/Q1-copy.tif: is the same file as {folder}/P1-a.tif and is skipped; remove one of them"]
    shutil.rmtree(tmp_path / "out")
    only = [part for part in find_parts(folder, CUTTING)[0] if "glass" in part.source]
    with pytest.raises(InputError, match=r"no patch of 1 slide was embedded: .*glass.tif: no patch"):
        embed(only, EmbedConfig(encoder, CUTTING), tmp_path / "out", folder)


def test_slides_without_compression_that_differ_in_their_middle_are_no_copies(tmp_path):
    for name in "ab":
        pixels = np.full((1400, 1000, 3), 245, np.uint8)
        pixels[500:900, :, 0] = 100 if name == "a" else 200
        about = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "metadata": None}
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", rowsperstrip=64, **about)
    shutil.copy(tmp_path / "a.tif", tmp_path / "c.tif")
    assert len({path.stat().st_size for path in tmp_path.iterdir()}) == 1
    parts, notes = find_parts(tmp_path, CUTTING)
    assert [part.source for part in parts] == ["a.tif", "b.tif"]
    assert notes == [f"{tmp_path}/c.tif: is the same file as {tmp_path}/a.tif and is skipped; remove one of them"]


def test_a_slide_that_was_gone_for_a_moment_is_embedded_by_the_next_run(slides, encoder, tmp_path):
    folder, config = tmp_path / "slides", EmbedConfig(encoder, CUTTING)
    shutil.copytree(slides, folder)
    run(folder, tmp_path / "whole", config)
    (folder / "P1-a.tif").rename(tmp_path / "away")
    (folder / "P1-a.tif").symlink_to(tmp_path / "nowhere" / "P1-a.tif")
    parts = [replace(part, slide=folder / part.source) for part in find_parts(slides, CUTTING)[0]]
    done = embed(parts, config, tmp_path / "out", folder)
    assert (done.parts, len(done.failures)) == (2, 1)
    (folder / "P1-a.tif").unlink()
    (tmp_path / "away").rename(folder / "P1-a.tif")
    done = embed(parts, config, tmp_path / "out", folder)
    assert (done.parts, done.failures) == (3, [])
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_an_mpp_that_is_not_used_is_reported(slides, encoder, tmp_path):
    cutting = replace(CUTTING, slide_mpp=2 * MPP)
    parts, _ = find_parts(slides, cutting)
    done = embed(parts, EmbedConfig(encoder, cutting), tmp_path / "out", slides)
    assert len(done.notes) == 3
    assert all("P0-a.tif" in note or "P1-a.tif" in note or "P2-a.tif" in note for note in done.notes)


def test_a_slide_that_was_replaced_under_its_name_is_refused(slides, encoder, tmp_path):
    folder, config = tmp_path / "slides", EmbedConfig(encoder, CUTTING)
    shutil.copytree(slides, folder)
    run(folder, tmp_path / "out", config)
    before = files(tmp_path / "out")
    shutil.copy(folder / "P0-a.tif", folder / "P1-a.tif")
    parts = [SlidePart(folder / f"P{i}-a.tif", f"P{i}-a.tif", "case") for i in range(3)]
    with pytest.raises(OutputError, match=r"out: was made by another run \(input P1-a.tif was changed\)"):
        embed(parts, config, tmp_path / "out", folder)
    assert files(tmp_path / "out") == before


def test_nothing_in_the_record_or_the_embeddings_names_this_machine(slides, encoder, tmp_path):
    run(slides, tmp_path / "out", EmbedConfig(encoder, CUTTING))
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.name != "paths.local.json":
            data = path.read_bytes()
            assert str(tmp_path).encode() not in data, path
            assert encoder.encode() not in data, path
    assert str(slides) in (tmp_path / "out" / "paths.local.json").read_text()
    (tmp_path / "out" / "paths.local.json").unlink()
    with pytest.raises(InputError, match=r"paths\.local\.json: is missing, so the slides cannot be found"):
        read_embedding(tmp_path / "out")


def test_a_list_of_slides_with_missing_files_says_so(slides, tmp_path):
    (tmp_path / "list.csv").write_text("slide\nP0-a.tif\nP7-a.tif\n")
    parts, notes = find_parts(slides, CUTTING, tmp_path / "list.csv")
    assert [part.source for part in parts] == ["P0-a.tif"]
    listed = f"listed in {tmp_path}/list.csv are not in {slides}"
    assert notes == [f"1 of 2 slides {listed} (add them, or take them off the list): P7-a.tif"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A patch dataset of nine patches of 80 px."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    for number in range(9):
        for kind, pixels in zip(("images", "maps"), draw_tissue(rng, 80, 2), strict=True):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"P{number % 3}_{number}.png")
    table = TissueTable.from_names(["stroma", "gland"])
    config = FolderImport(case_pattern="^(P[0-9])_", val_share=0.3)
    import_pictures(find_pictures(folder / "images", folder / "maps", config), table, config, folder / "out")
    return folder / "out"


def test_a_dataset_is_embedded_whole_or_in_windows(dataset, encoder, tmp_path):
    whole, _ = run(dataset, tmp_path / "whole", EmbedConfig(encoder))
    rows = [row for batch in open_table(tmp_path / "whole").batches() for row in batch.to_pylist()]
    assert whole.patches == len(rows) == 6
    assert {(row["x"], row["size"], row["case_id"][0]) for row in rows} == {(0, 80, "P")}
    cut = EmbedConfig(encoder, Cutting(size=32, stride=24))
    windows, _ = run(dataset, tmp_path / "windows", cut)
    assert windows.patches == 9 * len(rows)
    rows = [row for batch in open_table(tmp_path / "windows").batches() for row in batch.to_pylist()]
    assert {(row["x"], row["y"], row["size"]) for row in rows[:9]} == {
        (x, y, 32) for x in (0, 24, 48) for y in (0, 24, 48)
    }
    with pytest.raises(InputError, match=r"has no window of 96 px; lower --size"):
        run(dataset, tmp_path / "large", EmbedConfig(encoder, Cutting(size=96)))
    with pytest.raises(InputError, match=r"no split 'test'; known: train, val"):
        find_parts(dataset, Cutting(split="test"))


def test_settings_that_have_no_effect_on_the_input_are_refused(dataset, slides, tmp_path):
    """A list that is not read would embed all patches, and say nothing."""
    (tmp_path / "list.csv").write_text("slide\nP0_0.png\n")
    with pytest.raises(ConfigError, match=r"^--list: for slides only, and .* is a patch dataset"):
        find_parts(dataset, Cutting(), tmp_path / "list.csv")
    given = {"mpp": 1.0, "slide_mpp": 0.5, "min_focus": 0.0, "case_pattern": "(.)", "of_chosen": "x"}
    for name, value in given.items():
        option = name.replace("_", "-")
        with pytest.raises(ConfigError, match=rf"^--{option}: for slides only"):
            find_parts(dataset, replace(Cutting(), **{name: value}))
    with pytest.raises(ConfigError, match="is not a patch dataset, so it has no split 'val'; leave it out"):
        find_parts(slides, Cutting(split="val"))


def test_a_damaged_shard_is_named_and_the_others_are_embedded(dataset, encoder, tmp_path):
    shutil.copytree(dataset, tmp_path / "set")
    data = tmp_path / "set" / "data"
    (data / "train-00001.parquet").write_bytes((data / "train-00000.parquet").read_bytes()[:-20])
    shutil.copy(data / "train-00000.parquet", data / "train-00002.parquet")
    config = EmbedConfig(str(encoder), Cutting())
    parts, _ = find_parts(tmp_path / "set", config.cutting)
    done = embed(parts, config, tmp_path / "found", tmp_path / "set")
    assert len(done.failures) == 1
    assert "train-00001.parquet: is not a readable Parquet file" in done.failures[0]
    whole = embed(find_parts(dataset, config.cutting)[0], config, tmp_path / "whole", dataset)
    assert done.patches == 2 * whole.patches > 0
    counted = count_patches(parts, config.cutting)
    assert (counted[1], len(counted[2])) == (done.patches, 1)
    choose(tmp_path / "found", ChooseConfig(20))
    row = open_chosen(tmp_path / "found")
    place = next(row.batches(1, ["slide", "x", "y", "size"])).to_pylist()[0]
    read, _ = open_windows(tmp_path / "found")
    assert read(place["slide"], place["x"], place["y"], place["size"]).ndim == 3


def test_a_folder_of_another_run_is_left_alone(dataset, encoder, tmp_path):
    run(dataset, tmp_path / "out", EmbedConfig(encoder))
    with pytest.raises(OutputError, match=r"was made by another run \(precision was .float16., is now .float32.\)"):
        run(dataset, tmp_path / "out", EmbedConfig(encoder, precision="float32"))
    with pytest.raises(OutputError, match=r"was made by another run \(command was .import., is now .discover embed.\)"):
        run(dataset, dataset, EmbedConfig(encoder))


def test_embeddings_of_two_encoders_do_not_mix(dataset, encoder, tmp_path):
    run(dataset, tmp_path / "out", EmbedConfig(encoder))
    file = next((tmp_path / "out" / "embeddings").iterdir())
    other = pq.read_table(file)
    pq.write_table(
        other.replace_schema_metadata({"histoloom.encoder": "uni", "histoloom.fingerprint": "beef" * 3}),
        file.with_name("z.parquet"),
    )
    with pytest.raises(InputError, match=r"z.parquet: was made by encoder uni \(beefbeef\), other files here by .*"):
        open_table(tmp_path / "out")
    short = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(5 * len(other), np.float16)), 5)
    pq.write_table(other.set_column(6, "vector", short), file.with_name("z.parquet"))
    with pytest.raises(InputError, match=r"z.parquet: its vectors have 5 dimensions, not 12: another encoder"):
        open_table(tmp_path / "out")
    file.with_name("z.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"z.parquet: is not a table of embeddings .*; remove it and run"):
        open_table(tmp_path / "out")
    with pytest.raises(InputError, match="has no embeddings; make them with `histoloom discover embed`"):
        open_table(tmp_path)


def test_damaged_weights_are_named(dataset, tmp_path):
    network = SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=3))
    torch.nn.init.constant_(network.heads[0][1].weight, 1e9)
    save_small_encoder(network, tmp_path / "encoder")
    with pytest.raises(ModelError, match="are not finite in float16; store them as float32, or replace"):
        run(dataset, tmp_path / "out", EmbedConfig(str(tmp_path / "encoder")))


def test_settings_without_sense_are_refused():
    with pytest.raises(ConfigError, match="batch_size 0 must be in"):
        EmbedConfig(batch_size=0)
    with pytest.raises(ConfigError, match=r"mpp -1.0, slide_mpp None"):
        Cutting(mpp=-1.0)
    with pytest.raises(ConfigError, match=r"min_tissue 2.0 must be in"):
        Cutting(min_tissue=2.0)
