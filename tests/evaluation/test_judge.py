"""A judge gives each pixel its loss over the usual loss of its type on real tissue."""

import numpy as np
import pytest
from conftest import draw_tissue
from drawn_dataset import write_drawn_dataset

from histoloom.errors import ModelError
from histoloom.evaluation.judge import ABOUT, load_judge, pixel_loss, train_judge
from histoloom.evaluation.segmenter import SegmenterConfig
from histoloom.files import write_json
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A judge of thirty patches by five cases, trained in seconds, and its folder."""
    home = tmp_path_factory.mktemp("judge")
    write_drawn_dataset(home / "dataset", TABLE, 30, 5, 64)
    config = SegmenterConfig(channels=(8, 16), size=32, steps=60, batch_size=8)
    about = train_judge(home / "dataset", home / "judge", config)
    assert train_judge(home / "dataset", home / "judge", config) == about
    assert about["held_out_patches"] == 6
    return load_judge(home / "judge"), home / "judge"


def test_tissue_where_the_map_says_has_about_the_usual_loss_and_swapped_tissue_far_more(judge):
    image, semantic_map = draw_tissue(np.random.default_rng(9), 64, 2)
    right = judge[0].relative_loss(image, semantic_map)
    wrong = judge[0].relative_loss(image, 1 - semantic_map)
    assert right.mean() < 3
    assert wrong.mean() > 5 * right.mean()


def test_the_loss_is_the_cross_entropy_and_pixels_without_a_label_have_none(judge):
    image, semantic_map = draw_tissue(np.random.default_rng(8), 64, 2)
    semantic_map[:8] = 255
    chances = judge[0].segmenter.chances(image)
    loss = pixel_loss(judge[0].segmenter, image, semantic_map)
    assert (loss[:8] == 0).all()
    assert loss[20, 30] == pytest.approx(-np.log(chances[semantic_map[20, 30], 20, 30]), rel=1e-4)
    np.testing.assert_allclose(chances.sum(axis=0), 1, rtol=1e-5)


def test_windows_shrink_to_small_patches(tmp_path):
    write_drawn_dataset(tmp_path / "dataset", TABLE, 6, 3, 40)
    train_judge(tmp_path / "dataset", tmp_path / "judge", SegmenterConfig(channels=(8, 16), steps=1, batch_size=2))
    assert load_judge(tmp_path / "judge").segmenter.config.size == 40


def test_a_folder_without_a_judge_is_refused(judge, tmp_path):
    with pytest.raises(ModelError, match=r"holds no judge .* make one with `histoloom train-judge`"):
        load_judge(tmp_path)
    write_json(tmp_path / ABOUT, {"tissue": TABLE.to_rows(), "mean_loss": {"0": -1.0}})
    with pytest.raises(ModelError, match="a mean loss is not a positive number"):
        load_judge(tmp_path)
