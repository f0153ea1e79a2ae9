import numpy as np

from histoloom.conditioning.inputs import Crop
from histoloom.evaluation.left_out import blank, pasted_squares


def test_the_squares_are_where_the_pipeline_pastes_the_crops(make_pipeline, small_patches):
    pipeline = make_pipeline("crops-in-place")
    for i, semantic_map in enumerate(small_patches.semantic_maps[:4, :90, :90]):
        crops = [Crop(small_patches.images[i, :40, :40], int(tissue)) for tissue in np.unique(semantic_map)]
        read = pipeline._conditions(pipeline._pad(semantic_map), crops, True, 7 + i)
        expected = read.canvas[0, 3].numpy()[:90, :90] > 0
        np.testing.assert_array_equal(pasted_squares(semantic_map, crops, 7 + i, pipeline.denoiser.multiple), expected)
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
