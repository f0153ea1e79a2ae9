"""The public names, for type checkers and, read by lazy_loader, for `histoloom/slides/__init__.py` at run time."""

from .annotations import AnnotationMap, read_annotations, read_polygons
from .find import FoundSlide, find_slides
from .labeling import AnnotationConfig
from .overlay import draw_overlay, save_overlay
from .polygon import Annotations, Polygon
from .pyramid import Level
from .reader import Slide, open_slide
from .tissue import TissueMap, TissueRules, find_tissue, focus

__all__ = [
    "AnnotationConfig",
    "AnnotationMap",
    "Annotations",
    "FoundSlide",
    "Level",
    "Polygon",
    "Slide",
    "TissueMap",
    "TissueRules",
    "draw_overlay",
    "find_slides",
    "find_tissue",
    "focus",
    "open_slide",
    "read_annotations",
    "read_polygons",
    "save_overlay",
]
