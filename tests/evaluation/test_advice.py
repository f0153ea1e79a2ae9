from dataclasses import replace

import numpy as np
import pytest

from histoloom.conditioning.inputs import content_id
from histoloom.evaluation.advice import advice, confusions
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.woven_patch import CropUse
from histoloom.tissue import UNLABELLED, TissueTable

NAN = float("nan")
UNKNOWN = (NAN, NAN)


@pytest.fixture
def sets() -> tuple[ImageSet, ImageSet]:
    """Four real patches of two cases, and one woven from each of their maps, with a crop of the case's other patch."""
    rng, table = np.random.default_rng(0), TissueTable.from_names(["stroma", "gland"])
    maps = rng.integers(0, 2, (4, 32, 32), dtype=np.uint8)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    names, cases = [f"p{i}.png" for i in range(4)], ["a", "a", "b", "b"]
    real = ImageSet("real", "patch dataset", "train", "PNG", images, maps, cases, names, table)
    crops = [[CropUse(names[i ^ 1], 0, 0, 0, 24, 24)] for i in range(4)]
    ids = [content_id(semantic_map) for semantic_map in maps]
    return real, replace(real, where="woven", kind="woven patches", cases=ids, names=list("wxyz"), crops=crops)


def test_advice_follows_the_interval_of_both_against_real(sets):
    assert advice((0.01, 0.2), UNKNOWN, *sets) == [
        "Real and synthetic patches together teach more than real ones alone: train on both."
    ]
    assert advice((-0.2, -0.01), UNKNOWN, *sets)[0].endswith("train on real ones alone.")
    assert advice((-0.1, 0.1), (-0.1, 0.1), *sets) == [
        "This test sees no difference between real patches and both together."
    ]
    assert advice(UNKNOWN, UNKNOWN, *sets) == []


def test_norms_of_real_images_are_advised_where_they_help(sets):
    assert advice(UNKNOWN, (0.01, 0.2), *sets) == [
        "Networks of synthetic patches read real ones better with the norms of real images: adapt yours to unlabeled "
        "images (histoloom.evaluation.deeplab.adapted)."
    ]


def test_a_student_as_the_weaver_is_named(sets):
    real, fake = sets
    assert advice(UNKNOWN, UNKNOWN, real, replace(fake, made={"scheduler": "UniPCMultistepScheduler"})) == []
    assert advice(UNKNOWN, UNKNOWN, real, replace(fake, made={"scheduler": "FewStepScheduler"})) == [
        "The synthetic patches come from a few-step student; in our tests, patches woven by its teacher taught more: "
        "weave with the model that it was distilled from."
    ]


def test_types_that_no_real_patch_shows_are_named(sets):
    real, fake = sets
    plain = np.where(real.maps == 1, UNLABELLED, real.maps).astype(np.uint8)
    said = advice(UNKNOWN, UNKNOWN, replace(real, semantic_maps=plain), fake)
    assert len(said) == 1
    assert said[0].startswith("No real training patch shows gland: ")
    assert advice(UNKNOWN, UNKNOWN, real, replace(fake, semantic_maps=plain)) == []


def test_crops_of_other_cases_are_named(sets):
    real, fake = sets
    foreign = [[CropUse(real.names[3 - i], 0, 0, 0, 24, 24)] for i in range(4)]
    said = advice(UNKNOWN, UNKNOWN, real, replace(fake, crops=foreign))
    assert said == [
        "100% of the synthetic patches have crops of other cases than their map, which models do not see in training: "
        "weave with --maps DATASET --crops DATASET."
    ]
    by_id = [[CropUse(content_id(real.images[3 - i]), 0, 0, 0, 24, 24)] for i in range(4)]
    assert advice(UNKNOWN, UNKNOWN, real, replace(fake, crops=by_id)) == said
    of_a_bank = [[CropUse("0123456789abcdef", 0, 0, 0, 24, 24)] for _ in range(4)]
    assert advice(UNKNOWN, UNKNOWN, real, replace(fake, crops=of_a_bank)) == []


def test_types_that_are_mistaken_are_named_worst_first():
    shares = [[0.7, 0.25, 0.05], [0.1, 0.9, 0.0], [0.1, 0.5, 0.4]]
    assert confusions(shares, ["stroma", "gland", "tumor"]) == [
        "50% of tumor is read as gland",
        "25% of stroma is read as gland",
    ]
    assert confusions([[NAN, NAN], [0.1, 0.9]], ["stroma", "gland"]) == []
