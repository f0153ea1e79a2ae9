"""A tree of tissue types: nested, found again on disk, and asked for the type of a vector."""

import json

import numpy as np
import pytest

from histoloom.discovery.tree import BLOCK, TypeTree, unit
from histoloom.errors import ConfigError, InputError


def tree(**changes) -> TypeTree:
    """Six directions in three dimensions, in two levels: along each axis, both ways."""
    centroids = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    ancestors = np.array([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]])
    return TypeTree(**({"levels": (3, 6), "centroids": centroids, "ancestors": ancestors} | changes), **NAMES)


NAMES = {"encoder": "histoloom-small", "fingerprint": "f00d"}


def test_a_vector_is_of_the_type_whose_centroid_is_nearest_whatever_its_length():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2 * BLOCK + 5, 3)).astype(np.float32)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.linalg.norm(directions[:, None] - tree().centroids, axis=2)
    assert np.array_equal(tree().assign(vectors * rng.uniform(0.1, 10, (len(vectors), 1))), distances.argmin(1))
    assert np.array_equal(tree().assign(vectors.astype(np.float16)[:9]), distances[:9].argmin(1))


def test_each_level_says_which_of_the_finest_types_belong_together():
    assert tree().at(3).tolist() == [0, 1, 2, 0, 1, 2]
    assert tree().at(6).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="no level of 4 types; known: 3, 6"):
        tree().at(4)


def test_a_tree_is_found_again_as_it_was_saved(tmp_path):
    made = tree(sizes=np.arange(6), variances=np.linspace(0, 1, 6), made={"seed": 3})
    made.save(tmp_path / "types")
    found = TypeTree.load(tmp_path / "types")
    assert (found.levels, found.encoder, found.fingerprint, found.made) == (
        (3, 6),
        "histoloom-small",
        "f00d",
        {"seed": 3},
    )
    for name in ("centroids", "ancestors", "sizes", "variances"):
        assert np.array_equal(getattr(found, name), getattr(made, name)), name
    assert sorted(path.name for path in (tmp_path / "types").iterdir()) == ["types.json", "types.parquet"]


def test_a_tree_that_is_missing_damaged_or_of_two_runs_is_one_line_with_the_cure(tmp_path):
    with pytest.raises(InputError, match="has no tissue types; make them with `histoloom discover cluster`"):
        TypeTree.load(tmp_path)
    tree().save(tmp_path)
    first = (tmp_path / "types.json").read_text()
    tree(made={"seed": 4}, sizes=np.ones(6, np.int64)).save(tmp_path)
    (tmp_path / "types.json").write_text(first)
    with pytest.raises(InputError, match=r"types.parquet belongs to another run than types.json\); run"):
        TypeTree.load(tmp_path)
    (tmp_path / "types.json").write_text(json.dumps({"levels": [3, 6]}))
    with pytest.raises(InputError, match=r"cannot be read .*run `histoloom discover cluster` again"):
        TypeTree.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"levels": (2, 6)}, "the level of 2 types must use exactly the ids 0 to 1"),
        ({"levels": (6,)}, r"1 levels of 6 types need ancestors of that shape, got \(2, 6\)"),
        ({"ancestors": np.array([[0, 1, 2, 0, 1, 2], [1, 0, 2, 3, 4, 5]])}, "the finest level must be the ids"),
    ],
)
def test_what_is_no_tree_is_refused(changes, line):
    with pytest.raises(InputError, match=line):
        tree(**changes)


def test_levels_that_contradict_each_other_are_refused():
    ancestors = np.array([[0, 0, 1, 1, 0, 0], [0, 1, 1, 2, 0, 0], [0, 1, 2, 3, 4, 5]])
    with pytest.raises(InputError, match="not nested: a finer type belongs to two coarser ones"):
        tree(levels=(2, 3, 6), ancestors=ancestors)


def test_vectors_of_another_encoder_and_vectors_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="have 4 dimensions, not 3: another encoder made them; use one for all"):
        tree().assign(np.ones((2, 4), np.float32))
    vectors = np.ones((3, 3), np.float32)
    vectors[1, 2] = np.nan
    with pytest.raises(InputError, match="vector 1 of 3 is not finite; embed its patch again"):
        tree().assign(vectors)


def test_unit_vectors_have_length_one_and_zeros_stay():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert np.allclose(unit(vectors), [[0.6, 0.8], [0, 0]])
    assert vectors[0, 0] == 3
