"""Which slides are taken, and which patches of them: all settings of `histoloom patches`, which a recipe may hold, too.

Kept apart from the code that follows them, so that a recipe can be read where no slide library is installed.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.slides.labeling import AnnotationConfig

# Why a place on the grid gives no patch, in the order in which places are judged.
NO_TISSUE, NO_LABEL, NOT_MIXED, BLURRED, FULL = "tissue", "label", "mixed", "focus", "full"


@dataclass(frozen=True, kw_only=True)
class PatchRules:
    """Which patches of a slide are taken. Shares are between 0 and 1."""

    mpp: float = 0.5  # micrometers per pixel of the patch
    size: int = 256  # edge in pixels
    stride: int = 256  # pixels from one candidate to the next; less than `size` lets patches overlap
    low: float = 0.2  # the most common type covers at least this share of the labeled pixels
    high: float = 0.8  # and at most this; 1.0 lets patches of one type pass
    min_tissue: float = 0.5  # share of tissue, against glass
    min_labelled: float = 0.5  # share of labeled pixels
    min_focus: float = 0.02  # see histoloom.slides.tissue.focus; 0 leaves focus unchecked and reads no pixels for it
    per_slide: int = 1000  # patches of one slide
    per_type: int = 1000  # patches of one slide with the same most common type
    seed: int = 0  # places the grid, orders equals, draws the split

    def __post_init__(self):
        check_numbers(self)
        shares = {"low": self.low, "high": self.high, "min_tissue": self.min_tissue, "min_labelled": self.min_labelled}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} {share} is a share and must be in [0, 1]")
        if self.low > self.high:
            raise ConfigError(f"low {self.low} must not exceed high {self.high}")
        if not (math.isfinite(self.mpp) and self.mpp > 0) or not 8 <= self.size <= 2**17 or self.stride < 1:
            raise ConfigError(
                f"mpp {self.mpp}, size {self.size}, stride {self.stride}: need mpp > 0, size of 8 to 131072, stride "
                ">= 1"
            )
        if self.per_slide < 1 or self.per_type < 1 or not (self.min_focus >= 0 and math.isfinite(self.min_focus)):
            raise ConfigError("per_slide and per_type must be at least 1, min_focus at least 0")
        check_seed(self.seed)


def check_seed(seed: int) -> None:
    """Raise ConfigError for a seed that NumPy does not take."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed is {seed}; give a whole number from 0 to 2^63 - 1")


def explain_left_out(left_out: Mapping[str, int], rules: PatchRules) -> str:
    """One line that says how many places broke which rule, with the option of each; empty where there was no place."""
    reasons = {
        NO_TISSUE: f"have less than {rules.min_tissue:.0%} tissue (--min-tissue)",
        NO_LABEL: f"have less than {rules.min_labelled:.0%} labeled pixels (--min-labelled, --rest)",
        NOT_MIXED: f"have a most common type outside {rules.low:.0%} to {rules.high:.0%} (--low, --high)",
        BLURRED: f"are less sharp than {rules.min_focus:g} (--min-focus)",
        FULL: "are beyond --per-slide or --per-type",
    }
    total = sum(left_out.values())
    if not total:
        return ""
    parts = [f"{left_out[name]} {reason}" for name, reason in reasons.items() if left_out.get(name)]
    return f"of {total} places, {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class SlideList:
    """How a CSV file that lists slides is read: one row per slide, as PANDA's train.csv."""

    slide: str = "image_id"  # column with the slide's file name, with or without suffix
    case: str = ""  # column with the case; "" keeps the case of the file name
    mpp: str = ""  # column with the micrometers per level-0 pixel; wins over what the file of the slide says
    where: tuple[str, ...] = ()  # "column=value": only rows that hold all of these

    def __post_init__(self):
        for condition in self.where:
            if "=" not in condition:
                raise ConfigError(f"{condition!r} is not a condition; write column=value, as in data_provider=radboud")


@dataclass(frozen=True, kw_only=True)
class SlideDataset:
    """How slides and annotations become a dataset of patches."""

    rules: PatchRules = field(default_factory=PatchRules)
    annotations: AnnotationConfig = field(default_factory=AnnotationConfig)
    listed: SlideList = field(default_factory=SlideList)
    slide_mpp: float | None = None  # micrometers per level-0 pixel of slides that do not say it
    overrule_mpp: bool = False  # use `slide_mpp` for the slides that say another, too
    pixels: bool = False  # write pixels into the shards; without them they are read from the slides when needed
    unannotated: bool = False  # take slides without an annotation, too: all of them is of the type `annotations.rest`
    leave_out: tuple[str, ...] = ()  # patterns of file names to leave out, such as "tumor_018.*"
    annotation_suffix: str = ""  # what names of annotations add to names of slides, such as "_annotations.geojson"
    case_pattern: str | None = None  # regular expression whose one group, in the file name, is the case; else its stem
    val_share: float = 0.15  # of the slides, by case

    def __post_init__(self):
        check_numbers(self)
        if self.unannotated and not self.annotations.rest:
            raise ConfigError("slides without annotations need rest, the tissue type of all that is not annotated")
        if self.slide_mpp is not None and not (math.isfinite(self.slide_mpp) and self.slide_mpp > 0):
            raise ConfigError(
                f"--slide-mpp {self.slide_mpp} is not a pixel size; give micrometers per pixel, such as 0.25"
            )
        if self.overrule_mpp and self.slide_mpp is None:
            raise ConfigError("--overrule-mpp needs --slide-mpp, the micrometers per pixel that are used instead")
        check_case_pattern(self.case_pattern)


def check_case_pattern(pattern: str | None) -> None:
    """Raise ConfigError unless the pattern is a regular expression with one group."""
    try:
        groups = re.compile(pattern or "(x)").groups
    except re.error as error:
        raise ConfigError(f"case pattern {pattern!r} is not a regular expression ({error})") from None
    if groups != 1:
        raise ConfigError(f"case pattern {pattern!r} has {groups} groups; one is needed: '^(P[0-9]+)_'")
