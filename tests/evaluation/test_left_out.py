from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.conditioning.inputs import Crop
from histoloom.encoders.encoder import Encoder, open_encoder
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.left_out import blank, measure_left_out, pasted_squares
from histoloom.evaluation.report import EvaluationConfig, evaluate
from histoloom.evaluation.sources import ImageSet


def test_the_squares_are_where_the_pipeline_pastes_the_crops(make_pipeline, small_patches):
    pipeline = make_pipeline("crops-in-place")
    for i, semantic_map in enumerate(small_patches.semantic_maps[:4, :90, :90]):
        crops = [Crop(small_patches.images[i, :40, :40], int(tissue)) for tissue in np.unique(semantic_map)]
        read, ((top, _), (left, _)) = (
            pipeline._conditions(semantic_map, crops, True, 7 + i),
            pipeline.denoiser.margins((90, 90)),
        )
        expected = read.canvas[0, 3].numpy()[top : top + 90, left : left + 90] > 0
        np.testing.assert_array_equal(pasted_squares(semantic_map, crops, 7 + i), expected)
        assert 0 < expected.mean() < 1


def test_what_is_blanked_has_the_mean_colour_of_the_rest_and_the_rest_stays(small_patches):
    images = small_patches.images[:2]
    masks = np.zeros(images.shape[:3], bool)
    masks[0, 10:40, 20:50] = True
    masks[1] = True
    found = blank(images, masks)
    np.testing.assert_array_equal(found[0][~masks[0]], images[0][~masks[0]])
    np.testing.assert_allclose(found[0, 20, 30], images[0][~masks[0]].mean(axis=0), atol=0.5)
    assert (found[1] == 255).all()
    assert not np.shares_memory(found, images)
    assert images[0, 20, 30].tolist() != found[0, 20, 30].tolist()


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> str:
    """The folder of a small encoder of four features."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=1)).eval(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(encoder_folder) -> Encoder:
    return open_encoder(encoder_folder)


@pytest.fixture(scope="module")
def sets(make_patches) -> Comparison:
    """Thirty images a side, of ten cases each."""

    def side(where: str, seed: int) -> ImageSet:
        drawn = make_patches(30, 10, 64, 3, seed)
        cases = [f"{where} {c}" for c in drawn.cases]
        return ImageSet(where, "patch dataset", "", "PNG", drawn.images, drawn.semantic_maps, cases, drawn.sources)

    control = side("control", 1)
    return Comparison(side("real", 0), control, side("fake", 2), control, ())


def test_every_figure_has_its_floor_and_its_interval_over_cases(sets, encoder):
    masks = np.zeros(sets.fake.images.shape[:3], bool)
    masks[:, 8:40, 16:48] = True
    found = measure_left_out(sets, masks, encoder)
    assert [figure.name for figure in found] == ["Fréchet distance", "KID x 1000", "precision", "recall"]
    for figure in found:
        assert figure.low <= figure.value <= figure.high
        assert figure.floor is not None
    assert all(figure.low < figure.high for figure in found[:2])
    alone = [f"{i}" for i in range(30)]
    surer = measure_left_out(
        Comparison(*(replace(side, cases=alone) for side in (sets.reference, sets.control, sets.fake)), sets.train, ()),
        masks,
        encoder,
    )
    assert [figure.value for figure in surer] == [figure.value for figure in found]
    assert [figure.low for figure in surer] != [figure.low for figure in found]


def test_with_no_square_left_out_figures_and_intervals_are_those_of_the_report(sets, encoder, encoder_folder):
    config = EvaluationConfig(encoders=(encoder_folder,), pairs=2)
    report = evaluate(sets.reference, sets.fake, sets.train, config)
    whole = {figure.name: figure for figure in report.encoders[0].overall}
    found = measure_left_out(report.sets, np.zeros(report.sets.fake.images.shape[:3], bool), encoder)
    assert found == [whole[figure.name] for figure in found]


def test_too_few_images_for_a_distance_give_a_reason(sets, encoder):
    few = Comparison(*(side.select([0, 1, 2]) for side in (sets.reference, sets.control, sets.fake)), sets.train, ())
    distance, kid, *_ = measure_left_out(few, np.zeros((3, 64, 64), bool), encoder)
    assert distance.value is None
    assert "needs more than 4 images per side for 4 dimensions, got 3" in distance.note
    assert kid.value is not None
