"""What is woven while training: the maps and crops of the patches that were chosen, whatever they are called."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from histoloom.experiments.recipe import Watch
from histoloom.experiments.watch import Watcher
from histoloom.tissue import TissueTable


def test_patches_of_one_slide_get_the_crops_of_their_own_maps(small_patches, make_pipeline, tmp_path):
    table, autoencoder = TissueTable.from_names(["stroma", "gland", "tumour"]), make_pipeline().autoencoder
    places = np.array([[200 * i, 0, 96] for i in range(len(small_patches))])
    slide = replace(small_patches, sources=["slide.svs"] * len(small_patches), places=places)
    with SummaryWriter(str(tmp_path)) as writer:
        named, shared = (
            Watcher(
                Watch(patches=5, map_fidelity=False),
                patches,
                table,
                autoencoder,
                tmp_path,
                writer,
                lambda *_: nullcontext(),
            )
            for patches in (small_patches, slide)
        )
    assert any(named.crops)
    for mine, theirs in zip(named.crops, shared.crops, strict=True):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
