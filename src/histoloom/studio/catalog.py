"""The models that a studio serves, with their banks and what the page must know of them."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.inputs import content_id
from histoloom.errors import ConfigError, RequestError
from histoloom.evaluation.judge import JUDGE, load_judge
from histoloom.evaluation.nearest_training import TRAINING, TrainingPatches
from histoloom.generation.bank import CropBank, load_bank
from histoloom.generation.layouts import MIN_SIZE, LayoutConfig, Layouts
from histoloom.generation.self_check import MapCheck
from histoloom.generation.settings import CheckConfig, DrawnMaps
from histoloom.generation.woven_folder import config_hash
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import MOST_STEPS, Sampling
from histoloom.studio.settings import StudioConfig
from histoloom.studio.shelf import ShownCrop, url_of
from histoloom.tissue import TissueTable

MOST_GUIDANCE = 10.0  # that the page offers for a model that takes any


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is open, the crops of its bank by name, and what judges its patches."""

    name: str
    pipeline: HistoloomPipeline
    bank: CropBank
    map_check: MapCheck | None = None
    training: TrainingPatches | None = None
    crops: dict[str, ShownCrop] = field(default_factory=dict)  # by content, so that a name outlives this server
    rows: list[dict] = field(default_factory=list)  # of the bank, for the page

    @cached_property
    def hash(self) -> str:
        """What tells this model from others: its weights, and how its parts are configured."""
        return f"{self.pipeline.fingerprint}-{config_hash(self.pipeline)}"

    @cached_property
    def table(self) -> TissueTable:
        """Its tissue types."""
        return self.pipeline.table

    @classmethod
    def open(
        cls,
        source: str,
        bank: Path | None = None,
        judge: Path | None = None,
        training: TrainingPatches | None = None,
    ) -> "Model":
        """Open a model with its bank, judge and training patches, where it has them, or with others; raises ModelError
        or InputError."""
        pipeline, name = HistoloomPipeline.load(source), Path(source).name
        own = Path(pipeline.name_or_path)
        if judge is None and (own / JUDGE).is_dir():
            judge = own / JUDGE
        check = None if judge is None else MapCheck(CheckConfig(judge=judge), load_judge(judge), pipeline.table)
        if training is None and (own / TRAINING).is_file():
            training = TrainingPatches.load(own)
        folder = bank or own / "crops"
        crops = load_bank(folder, pipeline.table) if folder.is_dir() or bank else CropBank({})
        model = cls(name, pipeline, crops if pipeline.denoiser.reads.crops else CropBank({}), check, training)
        names = {tissue.id: tissue.name for tissue in pipeline.table.types}
        for group, mine in model.bank.sets.items():
            for crop in mine:
                key = content_id(crop.pixels)
                model.crops[key] = ShownCrop(crop.pixels)
                row = {"set": group, "tissue": names[crop.tissue], "crop": key, "url": url_of(key), "model": name}
                model.rows.append(row)
        return model

    def state(self, config: StudioConfig) -> dict:
        """What the page must know."""
        pipeline, student = self.pipeline, self.pipeline.denoiser.student
        _, usual = pipeline.resolve(Sampling())
        guidance = {
            name: dict(zip(("least", "most"), getattr(student, name) if student else (0.0, MOST_GUIDANCE), strict=True))
            for name in ("map_guidance", "crop_guidance")
        }
        most = max(limits["most"] for limits in guidance.values())
        choices = sorted(student.steps) if student is not None and student.family is not None else None
        return {
            "name": self.name,
            "hash": self.hash,
            "mpp": pipeline.mpp,
            "types": [{"id": t.id, "name": t.name, "color": t.color} for t in self.table.types],
            "size": {"default": DrawnMaps.size, "multiple": 1, "least": MIN_SIZE, "most": config.most_edge},
            "defaults": {
                "steps": usual.steps,
                "sampler": usual.sampler,
                "map_guidance": usual.map_guidance,
                "crop_guidance": usual.crop_guidance,
            },
            "steps": {"least": choices[0], "most": choices[-1], "choices": choices}
            if choices
            else {"least": 1, "most": min(MOST_STEPS, 100), "choices": None},
            "guidance": {"least": min(limits["least"] for limits in guidance.values()), "most": most},
            **guidance,
            "copy_limit": pipeline.copy_limit,
            "reads_crops": pipeline.denoiser.reads.crops,
            "reads_map": pipeline.denoiser.reads.map,
        }

    def layout(self, width: int, height: int, seed: int, types: list[int] | None = None) -> UInt8[np.ndarray, "h w"]:
        """A map that a procedure draws; `types` are those that it may show. Raises ConfigError."""
        table = self.table
        if types is not None:
            if unknown := sorted(set(types) - set(table.ids)):
                known = ", ".join(f"{tissue.id} {tissue.name}" for tissue in table.types)
                raise ConfigError(f"{self.name} has no type {unknown[0]}; known are {known}")
            table = TissueTable(tuple(tissue for tissue in table.types if tissue.id in types))
        drawn = Layouts(LayoutConfig(mpp=self.pipeline.mpp or LayoutConfig.mpp), table, seed, max(width, height))
        return drawn.draw(0)[:height, :width]


class Catalog:
    """The models of a studio, by name."""

    def __init__(self, models: list[Model]):
        if len({model.name for model in models}) < len(models):
            raise ConfigError(f"two models have one name ({', '.join(m.name for m in models)}); name each folder once")
        self.models = models
        self.crops = {key: crop for model in models for key, crop in model.crops.items()}

    def find(self, name: object) -> Model:
        """The model of this name; raises RequestError."""
        found = next((model for model in self.models if model.name == name), None)
        if found is None:
            raise RequestError(f"no such model here; known: {', '.join(m.name for m in self.models)}", 400)
        return found

    def of_hash(self, found: object, name: str) -> Model:
        """The model with this hash; raises RequestError for another model."""
        model = next((model for model in self.models if model.hash == found), None)
        if model is None:
            here = ", ".join(m.name for m in self.models)
            raise RequestError(f"this was woven by another model, {name!r}; this studio serves {here}", 400)
        return model
