"""Whole reports on tissue that is drawn: good synthetic sets, bad ones, copies. Each is made once per process."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.evaluation.report import EvaluationConfig, evaluate
from histoloom.evaluation.segmenter import SegmenterConfig, train_segmenter
from histoloom.evaluation.sources import ImageSet
from histoloom.generation.woven_patch import CropUse
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])


@pytest.fixture(scope="session")
def image_sets(make_patches):
    """`image_sets(where, seed, count)`: drawn tissue of ten cases as one side of a comparison."""

    def make(where: str, seed: int, count: int = 60) -> ImageSet:
        drawn = make_patches(count, 10, 64, 3, seed)
        cases, names = [f"{where} {c}" for c in drawn.cases], [f"{where} {s}" for s in drawn.sources]
        return ImageSet(where, "patch dataset", "", "PNG", drawn.images, drawn.semantic_maps, cases, names, TABLE)

    return make


@pytest.fixture(scope="session")
def report_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1, 2), told=1)).eval(), folder)
    return EvaluationConfig(encoders=(str(folder),), pairs=4)


@pytest.fixture(scope="session")
def good(image_sets, report_config):
    """A report on synthetic images that are as real ones, maps and segmenter included."""
    real, train = image_sets("real", 0), image_sets("train", 1)
    network = train_segmenter(
        train.images, train.semantic_maps, 3, SegmenterConfig(channels=(8, 8), size=32, steps=2, batch_size=2)
    )
    return evaluate(real, replace(image_sets("fake", 2), kind="woven patches"), train, report_config, network)


@pytest.fixture(scope="session")
def copied(image_sets, report_config):
    """A report on training images with a little noise, and one real image among them; no maps."""
    real, train = image_sets("real", 0), image_sets("train", 1)
    noise = np.random.default_rng(0).integers(-2, 3, train.images.shape)
    images = np.clip(train.images + noise, 0, 255).astype(np.uint8)
    images[3] = real.images[5]
    fake = replace(train, where="fake", images=images, semantic_maps=None, cases=train.names)
    return evaluate(real, fake, train, report_config)


@pytest.fixture(scope="session")
def pasted(image_sets, report_config):
    """A report on patches whose crops, of training patches but for the last, were pasted into them."""
    real, train, fake = image_sets("real", 0), image_sets("train", 1), image_sets("fake", 2)
    images, crops = fake.images.copy(), [[CropUse(name, 0, 10, 6, 40, 40)] for name in train.names]
    images[:, 4:44, 20:60] = train.images[:, 6:46, 10:50][:, ::-1]
    crops[-1] = [CropUse("stain-07/gland/a.png", 1, 0, 0, 48, 48)]
    fake = replace(fake, kind="woven patches", images=images, crops=crops)
    return evaluate(real, fake, train, replace(report_config, pairs=12))
