import base64
import io

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from histoloom.evaluation.measures import FeatureSets
from histoloom.evaluation.plots import feature_map, inline, picture, principal_plane, scores
from histoloom.metrics.two_sample import TwoSample

RNG = np.random.default_rng(0)


def test_the_plane_is_that_of_principal_components_up_to_sign():
    features = RNG.standard_normal((50, 6)) * [5, 3, 1, 1, 1, 1]
    found, expected = principal_plane(features), PCA(2).fit_transform(features)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)
    np.testing.assert_array_equal(found, principal_plane(features))


def test_plots_are_pictures_and_the_same_ones_each_time():
    test = TwoSample(0.7, 0.6, 0.8, 40, RNG.random(20), RNG.random(20))
    sets = FeatureSets(*RNG.standard_normal((4, 20, 5)))
    for draw, values in ((scores, test), (feature_map, sets)):
        png = draw(values)
        assert min(Image.open(io.BytesIO(png)).size) > 200
        assert png == draw(values)


def test_a_patch_is_shown_pixel_by_pixel_and_shrunk_only_where_large():
    image = RNG.integers(0, 256, (60, 60, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture(image)))), image)
    assert Image.open(io.BytesIO(picture(image, 30))).size == (30, 30)
    encoded = inline(picture(image)).removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded) == picture(image)
