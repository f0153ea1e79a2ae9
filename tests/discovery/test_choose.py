"""The chosen patches of a slide cover it better than as many at random, whatever stopped the run in between."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bars import Counter
from embedding_files import write_part

from histoloom.discovery.choose import ChooseConfig, choose, coverage, diverse
from histoloom.discovery.embeddings import open_chosen, open_table
from histoloom.discovery.tree import unit
from histoloom.distributed import Workers
from histoloom.errors import ConfigError, InputError, OutputError


def uneven_tissue(rng: np.random.Generator, count: int = 3000, types: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around `types` directions, the first of which is a thousand times as common as the last."""
    share = np.geomspace(1, 1e-3, types)
    labels = rng.choice(types, count, p=share / share.sum())
    return unit(rng.normal(size=(types, 24))[labels] + 0.3 * rng.normal(size=(count, 24))), labels


def test_the_choice_covers_rare_tissue_that_a_random_one_misses():
    rng = np.random.default_rng(0)
    vectors, labels = uneven_tissue(rng)
    chosen = diverse(vectors, 60)
    radius = coverage(vectors, chosen).max()
    drawn = [rng.choice(len(vectors), 60, replace=False) for _ in range(20)]
    assert radius < 0.8 * min(coverage(vectors, random).max() for random in drawn)
    assert len(set(labels[chosen])) == len(set(labels))
    assert max(len(set(labels[random])) for random in drawn) < len(set(labels)) - 5


def test_the_covering_radius_is_within_twice_of_the_best_possible():
    vectors = unit(np.random.default_rng(1).normal(size=(14, 3)))
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    best = min(distances[:, [i, j, k]].min(1).max() for i in range(14) for j in range(i) for k in range(j))
    radius = coverage(vectors, diverse(vectors, 3)).max()
    assert radius <= 2 * best
    assert np.isclose(radius, distances[:, diverse(vectors, 3)].min(1).max(), atol=1e-3)


def test_equal_patches_are_chosen_once():
    vectors = unit(np.repeat(np.eye(3), 5, axis=0))
    assert sorted(diverse(vectors, 10) // 5) == [0, 1, 2]


def test_blank_patches_without_direction_are_chosen_once():
    vectors = unit(np.abs(np.random.default_rng(0).normal(size=(50, 8))))
    vectors[[7, 9]] = 0
    chosen = diverse(vectors, 20)
    assert len(set(chosen.tolist())) == 20
    assert len(set(chosen.tolist()) & {7, 9}) == 1


def test_each_slide_gives_at_most_so_many_and_keeps_its_order(tmp_path):
    rng = np.random.default_rng(0)
    write_part(tmp_path, "a", ["s1"] * 50 + ["s2"] * 3, rng.normal(size=(53, 8)))
    write_part(tmp_path, "b", ["s3"] * 40, rng.normal(size=(40, 8)))
    assert choose(tmp_path, ChooseConfig(per_slide=10)) == 23
    table = open_chosen(tmp_path)
    rows = [row for batch in table.batches() for row in batch.to_pylist()]
    assert (table.encoder, table.fingerprint, table.dimensions) == ("histoloom-small", "f00d", 8)
    assert [row["slide"] for row in rows] == ["s1"] * 10 + ["s2"] * 3 + ["s3"] * 10
    assert all(a["x"] < b["x"] for a, b in pairwise(rows[:10]))
    original = {(r["slide"], r["x"]): r["vector"] for b in open_table(tmp_path).batches() for r in b.to_pylist()}
    assert all(original[row["slide"], row["x"]] == row["vector"] for row in rows)


def test_a_killed_choice_goes_on_and_a_finished_one_is_left_alone(tmp_path):
    rng = np.random.default_rng(0)
    parts = [write_part(tmp_path, name, [name] * 30, rng.normal(size=(30, 8))) for name in "ab"]
    choose(tmp_path, ChooseConfig(per_slide=5))
    whole = (tmp_path / "chosen.parquet").read_bytes()
    before = (tmp_path / "chosen.parquet").stat().st_mtime_ns
    choose(tmp_path, ChooseConfig(per_slide=5))
    assert (tmp_path / "chosen.parquet").stat().st_mtime_ns == before
    (tmp_path / "chosen.parquet").unlink()

    def stop(count: int) -> None:
        if count == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(tmp_path, ChooseConfig(per_slide=5), bar=Counter(stop))
    begun = sorted(path.name for path in (tmp_path / "choosing").iterdir())
    assert begun == [parts[0].name, "record.json"]
    choose(tmp_path, ChooseConfig(per_slide=5))
    assert (tmp_path / "chosen.parquet").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chosen.parquet", "embeddings"]


def test_a_choice_with_other_settings_or_of_other_embeddings_is_refused_and_nothing_is_deleted(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        write_part(tmp_path, name, [name] * 30, rng.normal(size=(30, 8)))

    def stop(count: int) -> None:
        if count == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(tmp_path, ChooseConfig(per_slide=5), bar=Counter(stop))
    with pytest.raises(OutputError, match=r"choosing: was made by another run \(per_slide was 5, is now 6\)"):
        choose(tmp_path, ChooseConfig(per_slide=6))
    assert (tmp_path / "choosing" / "a.parquet").is_file()
    choose(tmp_path, ChooseConfig(per_slide=5))
    whole = (tmp_path / "chosen.parquet").read_bytes()
    with pytest.raises(OutputError, match=r"per_slide was 5, is now 6\); remove it to choose again"):
        choose(tmp_path, ChooseConfig(per_slide=6))
    write_part(tmp_path, "b", ["b"] * 30, rng.normal(size=(30, 8)))
    with pytest.raises(OutputError, match=r"input b\.parquet was changed"):
        choose(tmp_path, ChooseConfig(per_slide=5))
    assert (tmp_path / "chosen.parquet").read_bytes() == whole


@pytest.mark.usefixtures("ray_cluster")
def test_ray_workers_in_another_folder_choose_the_same_bytes_as_one_process(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(30, 8)) for _ in range(3)]
    monkeypatch.chdir(tmp_path)  # the cluster was started elsewhere
    for out in (Path("one"), Path("ray")):
        for name, vectors in zip("abc", parts, strict=True):
            write_part(out, name, [name] * 30, vectors)
    assert choose(Path("one"), ChooseConfig(per_slide=5)) == choose(
        Path("ray"), ChooseConfig(per_slide=5), workers=Workers(ray="local")
    )
    assert Path("one", "chosen.parquet").read_bytes() == Path("ray", "chosen.parquet").read_bytes()


def test_vectors_that_are_not_finite_are_one_line(tmp_path):
    vectors = np.ones((4, 8))
    vectors[2] = np.nan
    write_part(tmp_path, "a", ["s"] * 4, vectors)
    with pytest.raises(
        InputError, match=r"a.parquet: vector 2 of 4 is not finite; .* `histoloom discover embed` again"
    ):
        choose(tmp_path, ChooseConfig())
    with pytest.raises(ConfigError, match="per_slide 0 must be at least 1"):
        ChooseConfig(per_slide=0)
    with pytest.raises(InputError, match=r"has no chosen.parquet; make it with `histoloom discover choose`"):
        open_chosen(tmp_path)
