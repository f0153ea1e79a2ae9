"""Someone who watches a training: the same maps and crops woven at each checkpoint, and read by a segmenter."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from diffusers import ModelMixin
from torch.utils.tensorboard import SummaryWriter

from histoloom.conditioning.crops import ReferenceCrops
from histoloom.conditioning.inputs import Crop
from histoloom.evaluation.segmenter import Segmenter
from histoloom.experiments.recipe import Watch
from histoloom.experiments.stages import MakeBar, open_segmenter
from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.metrics.map_fidelity import confusion, iou, mean_over_present
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.store import Patches
from histoloom.tissue import TissueTable


class Watcher:
    """Called at each checkpoint: weaves the same maps and crops again, and has them read."""

    def __init__(
        self,
        config: Watch,
        patches: Patches,
        table: TissueTable,
        autoencoder: ModelMixin,
        folder: Path,
        writer: SummaryWriter,
        make_bar: MakeBar,
    ):
        self.config, self.table, self.autoencoder, self.folder, self.writer = config, table, autoencoder, folder, writer
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(patches))[: config.patches]
        lenders = np.flatnonzero(np.isin(patches.cases, [patches.cases[i] for i in chosen]))
        references = ReferenceCrops(patches.select(lenders))
        self.maps = [patches.semantic_maps[i] for i in chosen]
        self.crops: list[list[Crop]] = []
        for i in chosen:
            at = int(np.searchsorted(lenders, i))  # by number: patches of one slide share its name
            self.crops.append(
                references.draw(at, np.zeros(self.maps[0].shape, bool), patches.semantic_maps[i], None, rng)
            )
        self.segmenter = self._segmenter(patches, make_bar) if config.map_fidelity and len(table.ids) > 1 else None

    def __call__(self, step: int, denoiser: Denoiser) -> None:
        scheduler, _ = make_sampler(denoiser.config.objective)
        pipeline = HistoloomPipeline(self.autoencoder, denoiser, scheduler, self.table.to_rows())
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(self.maps, self.crops, steps=self.config.steps)
        shown = [[(c.tissue, c.pixels) for c in mine] for mine in self.crops]
        sheet = contact_sheet(
            [SheetRow(*row) for row in zip(self.maps, shown, images, strict=True)], self.table, title=f"step {step}"
        )
        path = self.folder / "samples" / f"{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        aside = path.with_suffix(".partial")
        sheet.save(aside, "PNG")
        os.replace(aside, path)
        self.writer.add_image("woven", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")
        if self.segmenter:
            counts = confusion(self.segmenter.predict(images), np.stack(self.maps), self.table.num_ids).sum(0)
            self.writer.add_scalar("denoiser/map_fidelity_iou", mean_over_present(iou(counts)), step)
        self.writer.flush()

    def _segmenter(self, patches: Patches, make_bar: MakeBar) -> Segmenter:
        config = self.config.segmenter
        unit = 2 ** len(config.channels)
        largest = min(patches.images.shape[1:3]) // unit * unit  # of small patches the segmenter takes all
        config = replace(config, size=min(config.size, largest))
        return open_segmenter(self.folder / "segmenter", patches, self.table, config, make_bar)
