"""Types: found where they are, nested, the same under the same seed, nearly the same under another."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from bars import Counter
from embedding_files import write_part
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from histoloom.discovery.choose import ChooseConfig, choose
from histoloom.discovery.cluster import ClusterConfig, cluster, draw_sample, grow_tree
from histoloom.discovery.embeddings import open_chosen
from histoloom.discovery.kmeans import Clusters, KMeansConfig, find_clusters, measure, nest, ward
from histoloom.discovery.tree import TypeTree, nearest, unit
from histoloom.errors import ConfigError, InputError, OutputError

LEVELS = (3, 6, 12)


def kin(rng: np.random.Generator, count: int = 2400, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of 12 types in 3 families of four, with the type of each."""
    family = rng.normal(size=(3, 1, 16))
    centers = (family + 0.35 * rng.normal(size=(3, 4, 16))).reshape(12, 16)
    types = rng.integers(12, size=count)
    return unit(centers[types] + spread * rng.normal(size=(count, 16))), types


def test_nearest_is_the_nearest_centroid_and_its_squared_distance():
    rng = np.random.default_rng(0)
    vectors, centroids = rng.normal(size=(500, 9)).astype(np.float32), rng.normal(size=(7, 9)).astype(np.float32)
    distances = np.linalg.norm(vectors[:, None] - centroids, axis=2)
    types, squares = nearest(vectors, centroids)
    assert np.array_equal(types, distances.argmin(1))
    assert np.allclose(squares, distances.min(1) ** 2, rtol=1e-3)


def test_types_are_found_where_they_are():
    vectors, truth = kin(np.random.default_rng(0))
    types, _ = nearest(vectors, find_clusters(vectors, 12, KMeansConfig()).centroids)
    assert adjusted_rand_score(truth, types) > 0.99


def test_inertia_is_near_that_of_scikit_learns_best_of_three_even_without_any_structure():
    vectors = unit(np.random.default_rng(0).normal(size=(3000, 8)))
    theirs = KMeans(20, n_init=3, random_state=0).fit(vectors).inertia_ / len(vectors)
    ours = find_clusters(vectors, 20, KMeansConfig())
    assert measure(vectors, ours.centroids).inertia < 1.02 * theirs
    assert np.isclose(measure(vectors, ours.centroids).inertia, ours.inertia)


def test_ward_merges_as_scipy_does_where_all_sizes_are_one():
    centroids = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    rows = ward(centroids, np.ones(30, np.int64), (4, 11, 30))
    for level, row in zip((4, 11), rows, strict=False):
        assert adjusted_rand_score(row, fcluster(linkage(centroids, "ward"), level, "maxclust")) == 1
    assert rows[2].tolist() == list(range(30))


def test_ward_heeds_sizes():
    centroids = np.array([[0.0], [1.0], [2.1]], np.float32)
    assert ward(centroids, np.array([1, 1, 1]), (2,)).tolist() == [[0, 0, 1]]
    assert ward(centroids, np.array([1000, 1000, 1]), (2,)).tolist() == [[1, 0, 0]]


def test_the_coarsest_level_is_k_means_of_the_centroids_and_the_others_refine_it():
    rng = np.random.default_rng(0)
    centroids, sizes = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(1, 99, 40)
    coarse, middle, fine = nest(centroids, sizes, (4, 12, 40), seed=0)
    best = KMeans(4, n_init=50, random_state=0).fit(centroids, sample_weight=sizes)
    groups = [(centroids[coarse == i], sizes[coarse == i]) for i in range(4)]
    spread = sum((n * ((c - np.average(c, 0, n)) ** 2).sum(1)).sum() for c, n in groups)
    assert spread < 1.01 * best.inertia_
    assert len(set(zip(coarse, middle, strict=True))) == 12
    assert fine.tolist() == list(range(40))
    assert np.all(np.diff(np.bincount(coarse, sizes)) <= 0)  # largest first


def test_levels_are_nested_and_families_are_the_coarsest():
    vectors, truth = kin(np.random.default_rng(0))
    tree, notes = grow_tree(vectors, ClusterConfig(LEVELS), "e", "f")
    assert (tree.levels, notes) == (LEVELS, [])
    assert adjusted_rand_score(truth // 4, tree.at(3)[tree.assign(vectors)]) > 0.99
    assert (np.diff(tree.at(3)) >= 0).sum() >= 9  # kin have neighboring ids
    again, _ = grow_tree(vectors, ClusterConfig(LEVELS), "e", "f")
    assert again.centroids.tobytes() == tree.centroids.tobytes()


def test_another_seed_finds_nearly_the_same_types():
    vectors, _ = kin(np.random.default_rng(0), spread=0.1)
    trees = [grow_tree(vectors, ClusterConfig(LEVELS, KMeansConfig(seed=seed)), "e", "f")[0] for seed in range(3)]
    types = [tree.assign(vectors) for tree in trees]
    for level in LEVELS:
        rows = [tree.at(level)[of] for tree, of in zip(trees, types, strict=True)]
        assert min(adjusted_rand_score(rows[0], row) for row in rows[1:]) > 0.95


def test_a_wide_type_is_split_and_a_near_empty_one_merged():
    from histoloom.discovery.kmeans import _mend

    rng = np.random.default_rng(0)
    near = unit(np.array([[1, 0, 0.0], [1, 0.05, 0]])).repeat(300, 0)
    far = unit(np.array([[0, 1, 0.5], [0, 1, -0.5]])).repeat(300, 0)
    vectors = unit(np.concatenate([near, far]) + 0.005 * rng.normal(size=(1200, 3)))
    # One centroid in the middle of two far types, and one that a single vector of a near type has for itself.
    start = measure(vectors, np.stack([unit(near.mean(0)[None])[0], vectors[near[:, 1].argmax()] * 1.01, far.mean(0)]))
    lonely = Clusters(start.centroids, np.array([599, 1, 600]), start.variances)
    mended = _mend(vectors, lonely, KMeansConfig(), rng)
    assert mended.inertia < 0.2 * start.inertia
    assert mended.sizes.min() > 200


@pytest.fixture
def found(tmp_path):
    """A folder with chosen patches of two slides."""
    vectors, _ = kin(np.random.default_rng(0), 700)
    write_part(tmp_path, "a", ["s1"] * 300, vectors[:300])
    write_part(tmp_path, "b", ["s2"] * 400, vectors[300:])
    choose(tmp_path, ChooseConfig(per_slide=250))
    return tmp_path


def test_every_chosen_patch_gets_the_type_of_its_vector(found):
    bar = Counter()
    tree, _ = cluster(found, ClusterConfig(LEVELS), bar)
    rows = [row for batch in open_chosen(found).batches() for row in batch.to_pylist()]
    assigned = pq.read_table(found / "assignments.parquet").to_pylist()
    assert [(r["slide"], r["x"], r["y"], r["size"]) for r in assigned] == [
        (r["slide"], r["x"], r["y"], r["size"]) for r in rows
    ]
    types = tree.assign(np.array([row["vector"] for row in rows]))
    assert [row["type"] for row in assigned] == types.tolist()
    loaded = TypeTree.load(found)
    assert np.array_equal(loaded.sizes, np.bincount(types, minlength=12))
    assert bar.total == len(rows) == loaded.made["patches"] == 500
    distances = ((unit(np.array([r["vector"] for r in rows])) - tree.centroids[types]) ** 2).sum(1)
    assert np.isclose(loaded.made["inertia"], distances.mean(), rtol=1e-3)


def test_the_same_seed_gives_the_same_bytes(found, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copy(found / "chosen.parquet", other)
    for folder in (found, other):
        cluster(folder, ClusterConfig(LEVELS))
    for name in ("types.parquet", "types.json", "assignments.parquet"):
        assert (found / name).read_bytes() == (other / name).read_bytes()


def test_a_sample_is_drawn_evenly_from_the_file(found):
    table = open_chosen(found)
    everything = draw_sample(table, 10_000, 0)
    sample = draw_sample(table, 100, 0)
    assert everything.shape == (500, 16)
    where = [int((everything == row).all(1).argmax()) for row in sample]
    assert sorted(set(where)) == where
    assert len(where) == 100
    assert where[0] < 50
    assert where[-1] > 450


def test_few_patches_leave_out_fine_levels_and_three_are_refused(tmp_path):
    vectors, _ = kin(np.random.default_rng(0), 80)
    write_part(tmp_path, "a", ["s"] * 80, vectors)
    choose(tmp_path, ChooseConfig())
    tree, notes = cluster(tmp_path, ClusterConfig(LEVELS))
    assert tree.levels == (3, 6)
    assert notes == ["80 different patches are too few for levels 12; embed more slides for them"]
    with pytest.raises(InputError, match="3 different patches are too few for 5 types, which need 10 each; embed more"):
        grow_tree(np.repeat(vectors[:3], 50, axis=0), ClusterConfig(), "e", "f")


def test_settings_without_sense_are_refused():
    for levels in ((), (1, 5), (10, 5), (5, 10**18)):
        with pytest.raises(ConfigError, match="must be numbers of types from 2 to 4096, coarse to fine"):
            ClusterConfig(levels)
    with pytest.raises(ConfigError, match="starts 0 must be in"):
        KMeansConfig(starts=0)
    for split_above in (1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"split_above .* must exceed 1"):
            KMeansConfig(split_above=split_above)
    for seed in (-1, 10**18):
        with pytest.raises(ConfigError, match=r"seed .* must be at least 0 and below 2\^31"):
            KMeansConfig(seed=seed)


def test_a_finished_clustering_is_left_alone_and_another_one_is_refused(found):
    cluster(found, ClusterConfig(LEVELS))
    names = ("types.parquet", "types.json", "assignments.parquet")
    before = {name: ((found / name).stat().st_mtime_ns, (found / name).read_bytes()) for name in names}
    tree, notes = cluster(found, ClusterConfig(LEVELS))
    assert (tree.levels, notes) == (LEVELS, [])
    cure = r"remove assignments.parquet and types.json to cluster again"
    with pytest.raises(OutputError, match=rf"levels was \[3, 6, 12\], is now \[3, 6\]\); {cure}"):
        cluster(found, ClusterConfig((3, 6)))
    (found / "chosen.parquet").unlink()
    choose(found, ChooseConfig(per_slide=100))
    with pytest.raises(OutputError, match=r"input chosen.parquet was changed"):
        cluster(found, ClusterConfig(LEVELS))
    assert before == {name: ((found / name).stat().st_mtime_ns, (found / name).read_bytes()) for name in names}


def test_how_types_were_made_is_on_record(found):
    cluster(found, ClusterConfig(LEVELS))
    made = json.loads((found / "types.json").read_text())["made"]
    assert made["config"]["levels"] == list(LEVELS)
    assert made["normalization"] == "unit length"
