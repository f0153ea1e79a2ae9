"""Does a result follow its map, and how near is the nearest training patch: what a model carries answers by itself."""

import shutil

import pytest
from drawn_dataset import write_drawn_dataset
from studio_server import Page, studio

from histoloom.evaluation.judge import JUDGE, train_judge
from histoloom.evaluation.nearest_training import TrainingPatches
from histoloom.evaluation.segmenter import SegmenterConfig
from histoloom.patches.store import load_patches
from histoloom.studio.catalog import Model

QUICK = SegmenterConfig(channels=(8, 8), size=64, steps=2, batch_size=2)


@pytest.fixture(scope="module")
def dataset(tiny, tmp_path_factory):
    """Ten patches of five cases, of the tissue types of the model."""
    return write_drawn_dataset(tmp_path_factory.mktemp("answers") / "dataset", tiny.table, 10, 5, 64)


@pytest.fixture(scope="module")
def informed(studio_folder, dataset, tmp_path_factory):
    """A model that carries a judge, and what it was trained on."""
    folder = tmp_path_factory.mktemp("informed") / "tiny"
    shutil.copytree(studio_folder, folder)
    train_judge(dataset, folder / JUDGE, QUICK)
    TrainingPatches.of_dataset(dataset).save(folder)
    return Model.open(str(folder))


def test_a_model_answers_by_what_it_carries(informed, dataset):
    with studio(informed) as port:
        page = Page(port)
        (result,) = page.weave(page.example())
        assert not result["reasons"]
        assert 0 <= result["map_agreement"]["share"] <= 1
        image = page.picture(result["url_image"])
    known = TrainingPatches.of_dataset(dataset)
    assert result["nearest"]["distance"] == round(known.distance(image), 2)
    assert f"{known.usual:.2f}" in result["nearest"]["explanation"]
    assert known.distance(load_patches(dataset, "train").images[0]) < result["nearest"]["distance"]


def test_a_model_without_them_says_what_is_missing(tiny):
    with studio(tiny) as port:
        page = Page(port)
        (result,) = page.weave(page.example())
    assert result["map_agreement"] is None
    assert result["nearest"] is None
    assert "--judge" in result["reasons"]["map_agreement"]
    assert "--training" in result["reasons"]["nearest"]
