"""Which patches are cut from an input, and the batches that they come in."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Int, UInt8

from histoloom.errors import ConfigError


@dataclass(frozen=True)
class Cutting:
    """Which patches are cut from slides, or from the patches of a dataset."""

    mpp: float = 0.5  # micrometers per pixel; a dataset keeps its own
    size: int | None = None  # edge in pixels; None: 256 on slides, the whole patch of a dataset
    stride: int | None = None  # pixels from one patch to the next; None: the edge
    min_tissue: float = 0.5  # minimum share of tissue in a patch; slides only
    min_focus: float = 0.02  # minimum sharpness, see histoloom.slides.tissue.focus; 0 includes blurred patches
    split: str = "train"  # of a dataset
    slide_mpp: float | None = None  # micrometers per level-0 pixel, for slides that do not state it
    case_pattern: str | None = None  # regular expression whose one group in the file name of a slide is the case
    of_chosen: str | None = None  # folder of `discover choose` whose chosen patches alone are embedded

    def __post_init__(self):
        if not 0.001 <= self.mpp <= 1000 or (self.slide_mpp is not None and not 0.001 <= self.slide_mpp <= 1000):
            raise ConfigError(f"mpp {self.mpp}, slide_mpp {self.slide_mpp}: give micrometers in [0.001, 1000]")
        if self.size is not None and not 8 <= self.size <= 16384:
            raise ConfigError(f"size {self.size}: need size >= 8, and at most 16384")
        if self.stride is not None and not 1 <= self.stride <= 2**31:
            raise ConfigError(f"stride {self.stride}: need stride >= 1, and at most 2^31")
        if not 0 <= self.min_tissue <= 1 or not 0 <= self.min_focus < math.inf:
            raise ConfigError(f"min_tissue {self.min_tissue} must be in [0, 1], min_focus {self.min_focus} at least 0")


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches of one size and their places."""

    slides: list[str]
    cases: list[str]
    places: Int[np.ndarray, "n 3"]  # x, y and edge in level-0 pixels
    mpp: list[float | None]
    images: UInt8[np.ndarray, "n h w 3"]


Read = Callable[[], list[Batch]]  # reads pixels when called, in any thread


def chunks(items: Iterator, count: int) -> Iterator[list]:
    """Lists of `count` items; the last may be shorter."""
    while chunk := list(islice(items, count)):
        yield chunk
