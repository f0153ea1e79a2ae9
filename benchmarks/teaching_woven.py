"""Patches woven from the maps of real ones, for `teaching.py`; weaving takes minutes, so they are kept."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from outlined import outlined

from histoloom.cli.progress import bar
from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.conditioning.inputs import Crop
from histoloom.evaluation.sources import ImageSet
from histoloom.files import whole_file
from histoloom.generation.bank import load_bank
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.patches.store import Patches, load_patches
from histoloom.weights import find_model

OWN, CASE, NONE = "own", "case", "none"  # crops: of the patch itself, of other patches of its case; else a bank


@dataclass(frozen=True)
class Way:
    """How a set is woven."""

    model: str = "ebhi-seg-few-steps"
    steps: int = 2
    map: float = Sampling.map_guidance
    crop: float = Sampling.crop_guidance
    crops: str = CASE
    types: str = ""  # ids joined by -: only maps that show one of these types; "": all
    maps: int = 0  # as many maps, drawn with seed 0; 0: all
    times: int = 1  # patches per map
    seed: int = 0
    lumens: int = 0  # 1: the model sees lumens and glass outlined; the segmenter learns from the maps as they are

    @classmethod
    def read(cls, text: str) -> "Way":
        """From KEY:VALUE;KEY:VALUE."""
        given = dict(part.split(":", 1) for part in text.split(";") if part)
        return cls(**{key: type(getattr(cls, key))(value) for key, value in given.items()})


def woven(images: ImageSet, way: Way, kept: Path) -> ImageSet:
    """Each map of `images`, woven again; the cases stay those of the maps. No gate against copies."""
    patches = load_patches(images.where, images.split)
    rng = np.random.default_rng(way.seed)
    chosen = np.arange(len(patches))
    if way.types:
        wanted = [int(tissue) for tissue in way.types.split("-")]
        chosen = np.flatnonzero([np.isin(semantic_map, wanted).mean() > 0.01 for semantic_map in patches.semantic_maps])
    chosen = rng.permutation(chosen)[: way.maps] if way.maps else chosen
    chosen = np.repeat(chosen, way.times)
    pipeline = HistoloomPipeline.load(find_model(way.model))
    key = [asdict(way), pipeline.fingerprint, images.fingerprint()]
    path = kept / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npy"
    if not path.is_file():
        draw = _crops(patches, way, pipeline)
        maps = outlined(patches, pipeline.table) if way.lumens else patches.semantic_maps
        with bar(f"weaving {way}", len(chosen), "patches") as running:
            made = pipeline(
                [maps[i] for i in chosen],
                [draw(int(i), rng) for i in chosen],
                steps=way.steps,
                map_guidance=way.map,
                crop_guidance=way.crop,
                seed=way.seed,
                bar=running,
            )
        with whole_file(path) as aside, aside.open("wb") as file:
            np.save(file, made)
    return replace(images.select(chosen), images=np.load(path))


def _crops(patches: Patches, way: Way, pipeline: HistoloomPipeline):
    references = ReferenceCrops(patches, CropConfig(drop_type=0.0, candidates=1))
    everywhere = np.ones(patches.semantic_maps.shape[1:], bool)
    bank = None if way.crops in (OWN, CASE, NONE) else load_bank(way.crops, pipeline.table)

    def draw(index: int, rng: np.random.Generator) -> list[Crop]:
        wanted = patches.semantic_maps[index]
        if way.crops == NONE:
            return []
        if bank is not None:
            return bank.draw(wanted, rng)
        if way.crops == OWN:
            alone = ReferenceCrops(patches.select([index]), references.config)
            return alone.draw(0, everywhere, wanted, None, rng)
        return references.draw(index, ~everywhere, wanted, None, rng)

    return draw
