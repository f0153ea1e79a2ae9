"""How annotations become a map: which type is on top, what is left out, what the unannotated rest is.

Kept apart from the readers, so that a recipe can say it where no slide library is installed.
"""

from dataclasses import dataclass

from histoloom.errors import ConfigError
from histoloom.text import canonical


@dataclass(frozen=True, kw_only=True)
class AnnotationConfig:
    """How annotations become a map; names are tissue names or classes in the files, in any case."""

    order: tuple[str, ...] = ()  # tissue names: where polygons overlap the last wins; () takes the order of the table
    ignore: tuple[str, ...] = ()  # classes (or label values) in the files that are left out
    exclude: tuple[str, ...] = ("_2", "Exclusion")  # classes whose area is cut out of all other polygons
    rest: str = ""  # tissue name of all that is not annotated, such as Camelyon16's normal; "" leaves it unlabeled
    detections: bool = False  # read QuPath's detections, cells and tiles as well as its annotations

    def __post_init__(self):
        both = {canonical(n) for n in self.ignore} & {canonical(n) for n in self.exclude}
        if both:
            raise ConfigError(f"class {both.pop()!r} is both ignored and excluded; name it once")
