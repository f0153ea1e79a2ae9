"""The public names, for type checkers and, read by lazy_loader, for `histoloom/patches/__init__.py` at run time."""

from .folder import FolderImport, Picture, find_pictures
from .from_slides import Result, extract_slides
from .heterogeneity import class_fractions, entropy, is_heterogeneous
from .importer import import_pictures
from .places import PlaceReader
from .rules import PatchRules, SlideDataset, SlideList
from .slide_jobs import SlideJob, find_jobs
from .split import hold_out, split_by_case
from .store import Patches, has_pixels, iter_rows, load_patches, read_table, splits

__all__ = [
    "FolderImport",
    "PatchRules",
    "Patches",
    "Picture",
    "PlaceReader",
    "Result",
    "SlideDataset",
    "SlideJob",
    "SlideList",
    "class_fractions",
    "entropy",
    "extract_slides",
    "find_jobs",
    "find_pictures",
    "has_pixels",
    "hold_out",
    "import_pictures",
    "is_heterogeneous",
    "iter_rows",
    "load_patches",
    "read_table",
    "split_by_case",
    "splits",
]
