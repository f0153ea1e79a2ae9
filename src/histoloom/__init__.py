"""Histoloom weaves annotated synthetic tissue: a semantic map and raw crops in, an H&E patch that follows both out.

Public names, in the order that data passes through them. Importing the package loads no torch; a name loads its module.
"""

import importlib

_HOMES = {
    "HistoloomError": "histoloom.errors",
    "TissueTable": "histoloom.tissue",
    "TissueType": "histoloom.tissue",
    "UNLABELLED": "histoloom.tissue",
    "Patches": "histoloom.patches.store",
    "load_patches": "histoloom.patches.store",
    "PlaceReader": "histoloom.patches.places",
    "TypeTree": "histoloom.discovery.tree",
    "Crop": "histoloom.conditioning.inputs",
    "CropConfig": "histoloom.conditioning.crops",
    "Denoiser": "histoloom.models.denoiser",
    "HistoloomPipeline": "histoloom.models.pipeline",
    "draw_layouts": "histoloom.generation.layouts",
    "LayoutConfig": "histoloom.generation.layouts",
    "CropBank": "histoloom.generation.bank",
    "load_bank": "histoloom.generation.bank",
    "contact_sheet": "histoloom.generation.contact_sheet",
    "read_woven": "histoloom.generation.export",
    "find_model": "histoloom.weights",
    "read_recipe": "histoloom.experiments.recipe",
    "run_recipe": "histoloom.experiments.run",
}
__all__ = tuple(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'histoloom' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
