"""The public names, for type checkers and, read by lazy_loader, for `histoloom/__init__.py` at run time."""

from .conditioning.crops import CropConfig
from .conditioning.inputs import Crop
from .discovery.tree import TypeTree
from .errors import (
    AnnotationError,
    ConfigError,
    HistoloomError,
    ImageError,
    InputError,
    Interrupted,
    LockedError,
    MissingExtraError,
    ModelError,
    OutputError,
    RequestError,
    SlideError,
    TissueError,
)
from .evaluation.report import evaluate
from .experiments.recipe import Recipe, read_recipe
from .experiments.run import run_recipe
from .generation.bank import CropBank, load_bank
from .generation.contact_sheet import contact_sheet
from .generation.layouts import LayoutConfig, draw_layouts
from .generation.order import Order
from .generation.patches import weave
from .generation.settings import WeaveConfig
from .generation.woven_reader import read_woven
from .models.denoiser import Denoiser
from .models.pipeline import HistoloomPipeline
from .patches.places import PlaceReader
from .patches.store import Patches, load_patches
from .tissue import UNLABELLED, TissueTable, TissueType
from .weights import find_model

__all__ = [
    "UNLABELLED",
    "AnnotationError",
    "ConfigError",
    "Crop",
    "CropBank",
    "CropConfig",
    "Denoiser",
    "HistoloomError",
    "HistoloomPipeline",
    "ImageError",
    "InputError",
    "Interrupted",
    "LayoutConfig",
    "LockedError",
    "MissingExtraError",
    "ModelError",
    "Order",
    "OutputError",
    "Patches",
    "PlaceReader",
    "Recipe",
    "RequestError",
    "SlideError",
    "TissueError",
    "TissueTable",
    "TissueType",
    "TypeTree",
    "WeaveConfig",
    "contact_sheet",
    "draw_layouts",
    "evaluate",
    "find_model",
    "load_bank",
    "load_patches",
    "read_recipe",
    "read_woven",
    "run_recipe",
    "weave",
]

__version__: str
