"""Files that others wrote, cut short or changed: one line each, whatever reads them."""

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from histoloom.discovery.choose import ChooseConfig, choose
from histoloom.discovery.classifier import Classifier, ClassifierConfig, ViT, Window, load_classifier, save_classifier
from histoloom.discovery.cluster import ClusterConfig, cluster
from histoloom.discovery.embedding_run import read_embedding
from histoloom.discovery.embeddings import open_table
from histoloom.discovery.levels import read_levels, write_levels
from histoloom.discovery.names import draft_names, name_types
from histoloom.discovery.open_classifier import classifier_fingerprint
from histoloom.discovery.tree import TypeTree
from histoloom.discovery.windows import open_windows, read_assigned, window_of
from histoloom.errors import HistoloomError

VALUES = (None, 3, -1, 1e18, [], {}, "x", [[[]]], True, float("nan"))
TEXTS = ("", "[]", "null", '"x"', "[" * 5000, '{"levels": [1e999]}', '{"command": "discover embed", "format": 2}')


@pytest.fixture(scope="module")
def whole(discovered, tmp_path_factory) -> Path:
    """What all steps of discovery leave."""
    folder = tmp_path_factory.mktemp("whole") / "found"
    shutil.copytree(discovered, folder)
    tree = TypeTree.load(folder)
    network = ViT(ClassifierConfig(input=24, patch=12, depth=1), len(tree.centroids)).eval()
    save_classifier(Classifier(network, tree, Window(32, 0.5)), folder / "classifier")
    named = name_types(tree.ancestors, tree.levels)
    write_levels(named.levels, folder)
    (folder / "names.toml").write_text(draft_names(named))
    return folder


def damaged(path: Path, rng: random.Random) -> bytes:
    """The file, cut, flipped, padded, replaced, or with one value or column of another kind."""
    data = bytearray(path.read_bytes())
    way = rng.randrange(6)
    if way == 0:
        return bytes(data[: rng.randrange(len(data))])
    if way == 1:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if way == 2:
        return rng.choice(TEXTS).encode()
    if path.suffix == ".json":
        values = json.loads(data)
        values[rng.choice(sorted(values))] = rng.choice(VALUES)
        return json.dumps(values).encode()
    if path.suffix == ".parquet":
        return foreign_column(path, rng)
    return rng.randbytes(rng.randrange(2000))


def foreign_column(path: Path, rng: random.Random) -> bytes:
    table = pq.read_table(path)
    at = rng.randrange(table.num_columns)
    name, count = table.column_names[at], len(table)
    text = pa.array([b"\xff"] * count, pa.binary()).view(pa.string())  # not UTF-8
    others = (pa.nulls(count, table.schema.types[at]), pa.array(["../x"] * count), pa.array([-5] * count), text)
    way = rng.randrange(len(others) + 1)
    changed = table.drop_columns([name]) if way == len(others) else table.set_column(at, name, others[way])
    buffer = pa.BufferOutputStream()
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), buffer)
    return buffer.getvalue().to_pybytes()


def read_everything(folder: Path) -> None:
    """Whatever reads one of the files; each may refuse, by one line."""
    ancestors = TypeTree.load(folder.parent / "whole").ancestors
    reads = (
        lambda: TypeTree.load(folder),
        lambda: list(open_table(folder).batches()),
        lambda: choose(folder, ChooseConfig()),
        lambda: cluster(folder, ClusterConfig((2, 3))),
        lambda: read_assigned(folder),
        lambda: read_embedding(folder),
        lambda: window_of(folder),
        lambda: open_windows(folder),
        lambda: load_classifier(folder / "classifier"),
        lambda: classifier_fingerprint(folder),
        lambda: read_levels(folder / "levels.toml"),
        lambda: name_types(ancestors, (2, 3), folder / "names.toml"),
    )
    for read in reads:
        with suppress(HistoloomError):
            read()


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_by_one_line_or_does_no_harm(whole, seed, tmp_path):
    rng = random.Random(seed)
    shutil.copytree(whole, tmp_path / "whole")
    shutil.copytree(whole, tmp_path / "damaged")
    names = sorted(path for path in (tmp_path / "damaged").rglob("*") if path.is_file() and path.suffix != ".md")
    path = rng.choice(names)
    path.write_bytes(damaged(path, rng))
    read_everything(tmp_path / "damaged")
