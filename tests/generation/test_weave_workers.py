"""Workers weave what one process weaves, byte by byte."""

import numpy as np
import pytest
from folders import files
from PIL import Image
from weaving import halves

from histoloom.distributed import Workers
from histoloom.errors import ConfigError
from histoloom.generation.dataset_order import DatasetOrder, source_of
from histoloom.generation.settings import Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.models.pipeline import HistoloomPipeline

QUICK = WeaveConfig(steps=1, batch_size=2)


@pytest.mark.usefixtures("ray_cluster")
def test_two_processes_and_ray_give_the_bytes_of_one_process(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").mkdir()
    for number in range(5):
        Image.fromarray(np.rot90(halves(0, 1, 2, size=66), number).copy()).save(f"maps/{number}.png")
    order = DatasetOrder(count=5, size=66, maps=(tmp_path / "maps").relative_to(tmp_path), band=(0.2, 0.9))
    pipeline = HistoloomPipeline.load(tiny_model)
    ways = {"one": Workers(), "two": Workers(2), "ray": Workers(ray="local")}
    for name, workers in ways.items():
        assert weave_folder(pipeline, source_of(order), QUICK, tmp_path / name, workers=workers) == 5
    whole = files(tmp_path / "one")
    for name in ("two", "ray"):
        assert files(tmp_path / name) == whole


def test_a_model_that_is_in_no_folder_cannot_be_shared(make_pipeline, tmp_path):
    with pytest.raises(ConfigError, match="the model is in no folder that workers could open"):
        weave_folder(make_pipeline(), Source(), QUICK, tmp_path / "woven", workers=Workers(2))
    assert not list(tmp_path.iterdir())
