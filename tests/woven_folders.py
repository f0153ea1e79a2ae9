"""Woven patches of noise, as `write_patches` takes them."""

import numpy as np

from histoloom.generation.woven_patch import AnnotatedPatch, CropUse, Provenance
from histoloom.records import Record
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
RECORD = Record(command="generate", format=1, settings={"seed": 7, "steps": 20}, inputs={"model": "abc"})


def make_patch(number: int, size: int = 24) -> AnnotatedPatch:
    rng = np.random.default_rng(number)
    semantic_map = rng.integers(0, 3, (size, size)).astype(np.uint8)
    semantic_map[0, :3] = 255
    crops = (CropUse("bank/a.png", 1, 4, 8, 32, 40), CropUse("bank/b.png", 2, 0, 0, 24, 24))[: number % 3]
    provenance = Provenance(
        seed=2**40 + number,
        map_source=f"layout {number}",
        crops=crops,
        conditioning="crops-as-reference",
        map_guidance=1.5,
        crop_guidance=2.0,
        steps=20,
        scheduler="DPMSolverMultistepScheduler",
        model_hash="abc",
        version="0.1.0",
    )
    return AnnotatedPatch(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), semantic_map, provenance)
