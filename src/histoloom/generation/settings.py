"""What the commands that generate can be asked for. Imports nothing heavy: the command line reads its defaults here."""

from dataclasses import dataclass, field
from pathlib import Path

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.models.sampling import MOST_EDGE, Sampling

MOST_PIXELS = 2**32  # of all drawn maps, which are kept in memory


@dataclass(frozen=True, kw_only=True)
class WeaveConfig(Sampling):
    """How patches are woven: sampling, seed, and the search for copies."""

    seed: int = 0  # patch i has seed + i; a later attempt has one that follows from it
    batch_size: int = 8  # patches generated at once
    copy_limit: float | None = None  # similarity to a crop above which to retry; None: the model's; 1: no limit
    tries: int = 6  # most attempts with the crops; then as many with only the colors of the crops that are copied

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "tries"):
            _check_whole(name, getattr(self, name), 1, 2**20)
        if self.copy_limit is not None and not 0 < self.copy_limit <= 1:
            raise ConfigError(f"copy_limit is {self.copy_limit}; give a number above 0, up to 1 (no limit)")


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """How many crops a woven bank has."""

    tries: int = 96  # patches to weave and choose from
    keep: int = 24  # sets of crops to keep
    seed: int = 0  # patch i has seed + i

    def __post_init__(self):
        check_numbers(self)
        for name in ("tries", "keep"):
            _check_whole(name, getattr(self, name), 1, 10_000)


@dataclass(frozen=True, kw_only=True)
class DrawnMaps:
    """Maps that are drawn rather than read."""

    count: int = 16
    size: int = 224  # px, edge

    def __post_init__(self):
        _check_whole("layouts", self.count, 1, 10**6)
        _check_whole("size", self.size, 1, MOST_EDGE)
        if self.count * self.size**2 > MOST_PIXELS:
            raise ConfigError(
                f"{self.count} layouts of {self.size} px do not fit in memory; draw at most "
                f"{MOST_PIXELS // self.size**2}, and more with another seed"
            )


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where maps and crops come from."""

    maps: Path | DrawnMaps = field(default_factory=DrawnMaps)  # a folder of label maps, or maps to draw
    crops: Path | None = None  # folder of a crop bank; None: no crops
    mpp: float | None = None  # micrometers per pixel of the maps; None: the model's
    record_names: bool = False  # file names of maps and crops in what is written, instead of ids

    def __post_init__(self):
        if self.mpp is not None:
            check_mpp(self.mpp)


def check_mpp(mpp: float) -> None:
    """Raise ConfigError for a scale that no microscope has."""
    if not 0.01 <= mpp <= 100:
        raise ConfigError(f"mpp is {mpp}; give 0.01 to 100 micrometers per pixel")


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not (isinstance(value, int) and low <= value <= high):
        raise ConfigError(f"{name} is {value}; give a whole number from {low} to {high}")
