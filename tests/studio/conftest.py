"""A tiny model with a bank, as the studio opens it."""

import numpy as np
import pytest
from weaving import grain

from histoloom.conditioning.inputs import Crop
from histoloom.generation.bank import CropBank, save_bank
from histoloom.studio.catalog import Model


@pytest.fixture(scope="session")
def studio_folder(make_pipeline, tmp_path_factory):
    """The folder of a tiny model whose bank has two sets of crops, and which has a copy limit."""
    folder, pipeline = tmp_path_factory.mktemp("studio") / "tiny", make_pipeline()
    pipeline.register_to_config(copy_limit=0.9)
    pipeline.save_pretrained(folder)
    sets = {f"stain-{n}": [Crop(grain(10 * n + t), t, f"{n}-{t}") for t in (0, 1, 2)] for n in (0, 1)}
    save_bank(CropBank(sets), pipeline.table, folder / "crops")
    return folder


@pytest.fixture(scope="session")
def tiny(studio_folder):
    return Model.open(str(studio_folder))


@pytest.fixture(scope="session")
def tissue_image():
    """A picture of 300 x 200 px in the colors of H&E."""
    from conftest import draw_tissue

    return draw_tissue(np.random.default_rng(3), 300)[0][:200]
