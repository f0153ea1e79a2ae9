"""Watch a training: weave the same maps and crops at each checkpoint, and read them with a segmenter."""

import numpy as np
from diffusers.models.modeling_utils import ModelMixin

from histoloom.conditioning.crops import ReferenceCrops
from histoloom.conditioning.inputs import Crop
from histoloom.experiments.context import Run
from histoloom.experiments.stages import open_segmenter
from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.metrics.map_fidelity import confusion, iou, mean_over_present
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.pictures import write_picture

SAMPLES = "samples"  # the folder of a run that holds its sheets


class Watcher:
    """Called at each checkpoint: weaves the same maps and crops again, and has them read."""

    def __init__(self, run: Run, autoencoder: ModelMixin):
        self.run, self.autoencoder, self.config = run, autoencoder, run.recipe.watch
        patches, rng = run.patches, np.random.default_rng(0)
        chosen = rng.permutation(len(patches))[: self.config.patches]
        lenders = np.flatnonzero(np.isin(patches.cases, [patches.cases[i] for i in chosen]))
        references = ReferenceCrops(patches.select(lenders), run.recipe.denoiser.crops)
        self.maps = [patches.semantic_maps[i] for i in chosen]
        self.crops: list[list[Crop]] = []
        for i in chosen:
            at = int(np.searchsorted(lenders, i))  # by number: patches of one slide share its name
            nowhere = np.zeros(self.maps[0].shape, bool)
            self.crops.append(references.draw(at, nowhere, patches.semantic_maps[i], None, rng))
        self.segmenter = None
        if self.config.map_fidelity and len(run.table.ids) > 1:
            home = run.folder / "segmenter"
            self.segmenter = open_segmenter(home, patches, run.table, self.config.segmenter, run.progress)

    def __call__(self, step: int, denoiser: Denoiser) -> None:
        path = self.run.folder / SAMPLES / f"{step:06d}.png"
        if path.is_file():
            return
        table, curves = self.run.table, self.run.curves
        scheduler, _ = make_sampler(denoiser.samplers)
        pipeline = HistoloomPipeline(self.autoencoder, denoiser, scheduler, table.to_rows())
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(self.maps, self.crops, steps=self.config.steps)
        rows = [
            SheetRow(semantic_map, [(c.tissue, c.pixels) for c in crops], image)
            for semantic_map, crops, image in zip(self.maps, self.crops, images, strict=True)
        ]
        sheet = contact_sheet(rows, table, title=f"step {step}")
        if curves is not None:
            curves.add_image("woven", np.asarray(sheet.convert("RGB")), step)
            if self.segmenter:
                counts = confusion(self.segmenter.predict(images), np.stack(self.maps), table.num_ids).sum(0)
                curves.add_scalar("denoiser/map_fidelity_iou", mean_over_present(iou(counts)), step)
            curves.flush()
        write_picture(path, sheet)  # last: a step with a sheet is done
