import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bars import Counter

from histoloom.discovery.classifier import Window
from histoloom.discovery.names import name_types
from histoloom.discovery.open_classifier import open_classifier
from histoloom.discovery.pseudo_maps import MapConfig
from histoloom.discovery.pseudo_patches import Kept, draw_patches
from histoloom.distributed import Workers
from histoloom.errors import InputError, OutputError
from histoloom.license import License
from histoloom.patches.dataset import read_description, write_description
from histoloom.patches.store import iter_rows, load_patches, read_table
from histoloom.progress import SILENT

CONFIG = MapConfig(stride=8)
KEPT = Kept()


@pytest.fixture
def dataset(known_dataset):
    return known_dataset


@pytest.fixture
def named(tree):
    return name_types(tree.ancestors, tree.levels)


def test_maps_are_new_and_all_else_is_as_it_was(dataset, by_color, named, tmp_path):
    dataset = Path(shutil.copytree(dataset, tmp_path / "licensed"))
    write_description(dataset, read_description(dataset) | License("cc-by-4.0", "Doe 2023").said())
    record = draw_patches(dataset, lambda: by_color, "print", named, 1, CONFIG, Kept(), tmp_path / "pseudo")
    assert record["config"]["types"] == 3
    assert License.of(record) == License.of_card(tmp_path / "pseudo") == License("cc-by-4.0", "Doe 2023")
    assert read_table(tmp_path / "pseudo").names == ["type 0", "type 1", "type 2"]
    for split in ("train", "val"):
        before, after = load_patches(dataset, split), load_patches(tmp_path / "pseudo", split)
        np.testing.assert_array_equal(before.images, after.images)
        assert (before.cases, before.sources) == (after.cases, after.sources)
        assert (before.semantic_maps == after.semantic_maps).mean() > 0.93
        for row, semantic_map in zip(iter_rows(tmp_path / "pseudo", split), after.semantic_maps, strict=True):
            shares = np.bincount(semantic_map.ravel(), minlength=3) / semantic_map.size
            np.testing.assert_allclose(row["fractions"], shares, atol=1e-6)
            assert row["entropy"] == pytest.approx(-sum(p * np.log(p) for p in shares if p), abs=1e-5)
    assert "pseudo maps of discovered tissue types" in (tmp_path / "pseudo" / "README.md").read_text()


def test_a_coarser_level_has_fewer_types_and_the_same_borders(dataset, by_color, named, tmp_path):
    for level, out in ((0, "coarse"), (1, "fine")):
        draw_patches(dataset, lambda: by_color, "print", named, level, CONFIG, Kept(), tmp_path / out)
    coarse, fine = (load_patches(tmp_path / out, "train").semantic_maps for out in ("coarse", "fine"))
    np.testing.assert_array_equal(coarse, named.levels.of[0][fine])


def test_only_patches_that_show_more_than_one_type_are_kept_when_asked(dataset, by_color, named, tmp_path):
    draw_patches(dataset, lambda: by_color, "print", named, 1, CONFIG, Kept(0.2, 0.8), tmp_path / "mixed")
    rows = [row for split in ("train", "val") for row in iter_rows(tmp_path / "mixed", split)]
    assert 0 < len(rows) < 18
    assert all(0.2 <= max(row["fractions"]) <= 0.8 for row in rows)


def test_the_same_again_does_nothing_and_a_stopped_run_goes_on_to_the_same_bytes(dataset, by_color, named, tmp_path):
    class Stopped(BaseException):
        pass

    def stop(count):
        if bar.total == 16:
            raise Stopped

    bar = Counter(stop)

    def run(out, bar=SILENT, kept=KEPT):
        return draw_patches(dataset, lambda: by_color, "print", named, 1, CONFIG, kept, tmp_path / out, bar=bar)

    whole = run("whole")
    with pytest.raises(Stopped):
        run("stopped", bar)
    with pytest.raises(OutputError, match=r"stopped.partial: was made by another run .*low was 0.0, is now 0.2"):
        run("stopped", kept=Kept(0.2))
    assert (tmp_path / "stopped.partial" / "data" / "train-00000.parquet").is_file()
    assert not (tmp_path / "stopped").exists()
    assert run("stopped")["sha256"] == whole["sha256"]
    assert run("whole", bar=(again := Counter())) == whole
    assert again.counts == [18]
    assert not (tmp_path / "stopped.partial").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_ray_workers_write_the_same_bytes_as_one_process(dataset, discovered, named, tmp_path):
    bars = {"one": Counter(), "many": Counter()}

    def run(out, **how):
        open_names = partial(open_classifier, discovered)
        return draw_patches(dataset, open_names, "m", named, 1, CONFIG, Kept(), tmp_path / out, bar=bars[out], **how)

    assert run("one")["sha256"] == run("many", workers=Workers(ray="local"))["sha256"]
    assert [bar.total for bar in bars.values()] == [18, 18]


def test_a_damaged_shard_is_named_and_the_others_are_drawn(dataset, by_color, named, tmp_path):
    shutil.copytree(dataset, tmp_path / "set")
    shard = tmp_path / "set" / "data" / "val-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    record = draw_patches(tmp_path / "set", lambda: by_color, "print", named, 1, CONFIG, KEPT, tmp_path / "pseudo")
    assert len(record["failures"]) == 1
    assert record["failures"][0].startswith("data/val-00000.parquet: is not a readable Parquet file")
    np.testing.assert_array_equal(
        load_patches(tmp_path / "pseudo", "train").images, load_patches(dataset, "train").images
    )
    again = draw_patches(tmp_path / "set", lambda: by_color, "print", named, 1, CONFIG, KEPT, tmp_path / "pseudo")
    assert again == record
    for path in (tmp_path / "set" / "data").iterdir():
        path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"no map of 2 shards was drawn: .*train-00000.parquet"):
        draw_patches(tmp_path / "set", lambda: by_color, "print", named, 1, CONFIG, KEPT, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_does_not_fit_is_refused(dataset, by_color, named, tmp_path):
    other = replace(by_color, window=Window(32, 1.0))
    with pytest.raises(InputError, match=r"has 0\.5 um/px, the types were found at 1; cut patches at that mpp"):
        draw_patches(dataset, lambda: other, "print", named, 1, CONFIG, Kept(), tmp_path / "a")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OutputError, match="taken: exists already"):
        draw_patches(dataset, lambda: by_color, "print", named, 1, CONFIG, Kept(), tmp_path / "taken")
    with pytest.raises(InputError, match="no patch was kept by its new map"):
        draw_patches(dataset, lambda: by_color, "print", named, 1, CONFIG, Kept(0.0, 0.1), tmp_path / "b")


def test_a_license_that_was_given_holds_and_the_same_command_may_leave_it_out(dataset, by_color, named, tmp_path):
    dataset = Path(shutil.copytree(dataset, tmp_path / "licensed"))
    write_description(dataset, read_description(dataset) | License("cc-by-4.0", "Doe 2023").said())

    def draw(*given: License) -> License:
        way = (CONFIG, Kept(), tmp_path / "pseudo", *given)
        return License.of(draw_patches(dataset, lambda: by_color, "print", named, 1, *way))

    assert draw(License("cc0-1.0")) == draw() == License("cc0-1.0", "Doe 2023")
    with pytest.raises(OutputError, match=r"was made with license 'cc0-1.0', not 'mit'; remove the folder"):
        draw(License("mit"))
