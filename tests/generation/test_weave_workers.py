"""Workers weave what one process weaves, byte by byte."""

import pickle

import numpy as np
import pytest
from folders import files
from PIL import Image
from weaving import halves

from histoloom.distributed import Workers, run_made
from histoloom.errors import ConfigError
from histoloom.generation import weave_workers
from histoloom.generation.dataset_order import DatasetOrder, source_of
from histoloom.generation.settings import Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.models.pipeline import HistoloomPipeline

QUICK = WeaveConfig(steps=1, batch_size=2)


def test_two_processes_and_ray_give_the_bytes_of_one_process(tiny_model, tmp_path, monkeypatch):
    """Two processes are real. A worker of Ray is this process, with a copy of what it is given; the test of strips in
    tests/canvas has real ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").mkdir()
    for number in range(5):
        Image.fromarray(np.rot90(halves(0, 1, 2, size=66), number).copy()).save(f"maps/{number}.png")
    order = DatasetOrder(count=5, size=66, maps=(tmp_path / "maps").relative_to(tmp_path), band=(0.2, 0.9))
    pipeline = HistoloomPipeline.load(tiny_model)
    for name, workers in {"one": Workers(), "two": Workers(2)}.items():
        assert weave_folder(pipeline, source_of(order), QUICK, tmp_path / name, workers=workers) == 5
    monkeypatch.setattr(weave_workers, "run_made", lambda made, items, *_, **__: run_made(copied(made), items))
    assert weave_folder(pipeline, source_of(order), QUICK, tmp_path / "ray", workers=Workers(ray="local")) == 5
    whole = files(tmp_path / "one")
    for name in ("two", "ray"):
        assert files(tmp_path / name) == whole


def copied(value):
    return pickle.loads(pickle.dumps(value))


def test_a_model_that_is_in_no_folder_cannot_be_shared(make_pipeline, tmp_path):
    with pytest.raises(ConfigError, match="the model is in no folder that workers could open"):
        weave_folder(make_pipeline(), Source(), QUICK, tmp_path / "woven", workers=Workers(2))
    assert not list(tmp_path.iterdir())
