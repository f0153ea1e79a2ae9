"""What is woven while training: the maps and crops of the patches that were chosen, whatever they are called."""

from dataclasses import replace

import numpy as np

from histoloom.conditioning.crops import CropConfig
from histoloom.evaluation.segmenter import SegmenterConfig
from histoloom.experiments.context import Run
from histoloom.experiments.recipe import DataSource, Recipe, Watch
from histoloom.experiments.stages import open_segmenter
from histoloom.experiments.watch import Watcher
from histoloom.progress import silent
from histoloom.tissue import TissueTable
from histoloom.training.denoiser import DenoiserTraining


def test_patches_of_one_slide_get_the_crops_of_their_own_maps(small_patches, make_pipeline, tmp_path):
    table, autoencoder = TissueTable.from_names(["stroma", "gland", "tumour"]), make_pipeline().autoencoder
    places = np.array([[200 * i, 0, 96] for i in range(len(small_patches))])
    slide = replace(small_patches, sources=["slide.svs"] * len(small_patches), places=places)
    recipe = Recipe(data=DataSource(dataset="here"), watch=Watch(patches=5, map_fidelity=False))
    named, shared = (
        Watcher(
            Run(recipe=recipe, folder=tmp_path, table=table, patches=patches, levels=None, progress=silent), autoencoder
        )
        for patches in (small_patches, slide)
    )
    assert any(named.crops)
    for mine, theirs in zip(named.crops, shared.crops, strict=True):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_segmenter_that_learned_from_other_patches_or_types_is_trained_again(small_patches, tmp_path):
    config, labels = SegmenterConfig(steps=1, batch_size=1, size=32, channels=(4, 8)), []

    def bar(label: str, total: int | None, unit: str = "items"):
        labels.append(label)
        return silent(label, total, unit)

    relabeled = replace(small_patches, semantic_maps=np.where(small_patches.semantic_maps == 1, 0, 1).astype(np.uint8))
    turned = replace(relabeled, images=np.ascontiguousarray(relabeled.images[:, ::-1]))
    three, four = (TissueTable.from_names(["stroma", "gland", "tumor", "polyp"][:n]) for n in (3, 4))
    other = TissueTable.from_names(["stroma", "tumor", "gland", "polyp"])
    for patches, table, trained in ((small_patches, three, 1), (small_patches, three, 1), (relabeled, three, 2),
                                    (turned, three, 3), (turned, four, 4), (turned, other, 5)):  # fmt: skip
        assert open_segmenter(tmp_path, patches, table, config, bar).num_types == table.num_ids
        assert labels == ["segmenter"] * trained


def test_crops_are_as_large_as_those_that_the_denoiser_learns_from(small_patches, make_pipeline, tmp_path):
    table, autoencoder = TissueTable.from_names(["stroma", "gland", "tumour"]), make_pipeline().autoencoder
    denoiser = DenoiserTraining(crops=CropConfig(base=24, largest=28))
    recipe = Recipe(data=DataSource(dataset="here"), denoiser=denoiser, watch=Watch(patches=12, map_fidelity=False))
    run = Run(recipe=recipe, folder=tmp_path, table=table, patches=small_patches, levels=None, progress=silent)
    edges = {max(crop.pixels.shape[:2]) for crops in Watcher(run, autoencoder).crops for crop in crops}
    assert edges
    assert max(edges) <= 28
