"""Which slides are taken, and which patches of them: all settings of `histoloom patches`, which a recipe may hold too.

Apart from the code that follows them, so that a recipe can be read where no slide library is installed.
"""

import math
import re
from dataclasses import dataclass, field

from histoloom.errors import ConfigError
from histoloom.slides.labelling import AnnotationConfig


@dataclass(frozen=True)
class PatchRules:
    """Which patches of a slide are taken. Shares lie in 0 to 1."""

    mpp: float = 0.5  # micrometres per pixel of the patch
    size: int = 256  # edge in pixels
    stride: int = 256  # pixels from one candidate to the next; less than `size` lets patches overlap
    low: float = 0.2  # the most common type covers at least this share of the labelled pixels
    high: float = 0.8  # and at most this; 1.0 lets patches of one type pass
    min_tissue: float = 0.5  # share of tissue, against glass
    min_labelled: float = 0.5  # share of labelled pixels
    min_focus: float = 0.02  # see histoloom.slides.tissue.focus; 0 leaves focus unchecked and reads no pixels for it
    per_slide: int = 1000  # patches of one slide
    per_type: int = 1000  # patches of one slide with the same most common type
    seed: int = 0  # places the grid, orders equals, draws the split

    def __post_init__(self):
        shares = {"low": self.low, "high": self.high, "min_tissue": self.min_tissue, "min_labelled": self.min_labelled}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} {share} is a share and must lie in [0, 1]")
        if self.low > self.high:
            raise ConfigError(f"low {self.low} must not exceed high {self.high}")
        if not (math.isfinite(self.mpp) and self.mpp > 0) or self.size < 8 or self.stride < 1:
            raise ConfigError(
                f"mpp {self.mpp}, size {self.size}, stride {self.stride}: need mpp > 0, size >= 8, stride >= 1"
            )
        if self.per_slide < 1 or self.per_type < 1 or not self.min_focus >= 0:
            raise ConfigError("per_slide and per_type must be at least 1, min_focus at least 0")


@dataclass(frozen=True)
class SlideList:
    """How a CSV file that lists slides is read: one row per slide, as PANDA's train.csv."""

    slide: str = "image_id"  # column with the slide's file name, with or without suffix
    case: str = ""  # column with the case; "" keeps the case of the file name
    where: tuple[str, ...] = ()  # "column=value": only rows that hold all of these

    def __post_init__(self):
        for condition in self.where:
            if "=" not in condition:
                raise ConfigError(f"{condition!r} is no condition; write column=value, as in data_provider=radboud")


@dataclass(frozen=True)
class SlideDataset:
    """How slides become a dataset."""

    rules: PatchRules = field(default_factory=PatchRules)
    annotations: AnnotationConfig = field(default_factory=AnnotationConfig)
    listed: SlideList = field(default_factory=SlideList)
    slide_mpp: float | None = None  # micrometres per level-0 pixel where a slide does not say
    pixels: bool = False  # write pixels into the shards; without them they are read from the slides when needed
    unannotated: bool = False  # take slides without an annotation too: all of them is of the type `annotations.rest`
    leave_out: tuple[str, ...] = ()  # patterns of file names to leave out, such as "tumor_018.*"
    case_pattern: str | None = None  # regular expression whose one group, in the file name, is the case; else its stem
    val_share: float = 0.15  # of the slides, by case

    def __post_init__(self):
        if self.unannotated and not self.annotations.rest:
            raise ConfigError("slides without annotations need rest, the tissue type of all that is not annotated")
        try:
            groups = re.compile(self.case_pattern or "(x)").groups
        except re.error as error:
            raise ConfigError(f"case pattern {self.case_pattern!r} is no regular expression ({error})") from None
        if groups != 1:
            raise ConfigError(f"case pattern {self.case_pattern!r} has {groups} groups; one is needed: '^(P[0-9]+)_'")
