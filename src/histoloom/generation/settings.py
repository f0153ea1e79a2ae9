"""What the commands that generate can be asked for. Imports nothing heavy: the command line reads its defaults here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.models.sampling import MOST_EDGE, Sampling

SMALLEST_CROP = 24  # px, as in histoloom.conditioning.inputs, which is heavy


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
            check_whole(name, getattr(self, name), 1, 2**20)
        if self.copy_limit is not None and not 0 < self.copy_limit <= 1:
            raise ConfigError(f"copy_limit is {self.copy_limit}; give a number above 0, up to 1 (no limit)")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How layouts are drawn; `histoloom.generation.layouts.LayoutConfig` explains and checks it."""

    background: str = ""  # tissue type between the others; empty: the one whose name says so
    two_types: float = 0.0  # share of layouts with two types on the background
    styles: tuple[tuple[str, str], ...] = ()  # (tissue type, style)


@dataclass(frozen=True, kw_only=True)
class BankConfig(Drawing):
    """How many crops a woven bank has."""

    tries: int = 96  # patches to weave and choose from
    keep: int = 24  # sets of crops to keep
    seed: int = 0  # patch i has seed + i
    mpp: float | None = None  # micrometers per pixel of the layouts; None: the model's

    def __post_init__(self):
        check_numbers(self)
        if self.mpp is not None:
            check_mpp(self.mpp)
        for name in ("tries", "keep"):
            check_whole(name, getattr(self, name), 1, 10_000)


@dataclass(frozen=True, kw_only=True)
class RealBankConfig:
    """How a bank of real crops is cut from a patch dataset."""

    clusters: ClassVar[int] = 12  # sets where `by` is cluster and `keep` is not given

    split: str = "train"
    by: Literal["case", "cluster"] = "case"  # a set of crops per case, or per cluster of stains
    keep: int | None = None  # sets; None: one per case, or 12 clusters
    per_type: int = 4  # crops of each type in a set
    edge: int = 96  # px of a crop; smaller where its tissue is narrow
    min_texture: float = 6.0  # gray levels, standard deviation
    min_focus: float = 0.02  # of the patch; see histoloom.slides.tissue.focus
    seed: int = 0  # draws the places

    def __post_init__(self):
        check_numbers(self)
        check_whole("per_type", self.per_type, 1, 1000)
        check_whole("edge", self.edge, SMALLEST_CROP, 1024)
        if self.keep is not None:
            check_whole("keep", self.keep, 1, 10_000)
        if self.by not in ("case", "cluster"):
            raise ConfigError(f"by is {self.by!r}; give case or cluster")
        if min(self.min_texture, self.min_focus) < 0:
            raise ConfigError("min_texture and min_focus must be at least 0")


@dataclass(frozen=True, kw_only=True)
class DrawnMaps(Drawing):
    """Maps that are drawn rather than read."""

    count: int = 16
    size: int = 224  # px, edge

    def __post_init__(self):
        check_numbers(self)
        check_whole("layouts", self.count, 1, 10**6)
        check_whole("size", self.size, 1, MOST_EDGE)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where maps and crops come from."""

    maps: Path | Drawing = field(default_factory=DrawnMaps)  # a folder of maps, a patch dataset, `DrawnMaps`, or an
    # order (histoloom.generation.dataset_order.DatasetOrder)
    split: str = ""  # of the patch dataset
    only: tuple[str, ...] = ()  # maps of a folder or dataset that show one of these tissue types; (): all
    per_map: int = 1  # patches of each of those maps
    crops: Path | None = None  # folder of a crop bank; None: no crops
    stains: tuple[str, ...] = ()  # sets of the bank, by name; (): all
    mpp: float | None = None  # micrometers per pixel of the maps; None: the model's
    record_names: bool = False  # file names of maps and crops in what is written, instead of ids

    def __post_init__(self):
        if self.split and isinstance(self.maps, Drawing):
            raise ConfigError(f"split {self.split!r} has no effect without --maps, which names a patch dataset")
        check_whole("per_map", self.per_map, 1, 10**6)
        if (self.only or self.per_map > 1) and isinstance(self.maps, Drawing):
            raise ConfigError("--only and --per-map have no effect without --maps; name a folder of maps or a dataset")
        if self.mpp is not None:
            check_mpp(self.mpp)


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """When a patch is dropped."""

    judge: Path | None = None  # folder of a judge; None: maps are not checked
    lossy_above: float = 1.25  # loss of a pixel over the mean of its type on real tissue; FreeMask's factor
    most_lossy: float = 0.5  # share of a patch's labeled pixels; more and the patch is dropped
    replacements: int = 4  # patches that are tried in the place of one that fails

    def __post_init__(self):
        check_numbers(self)
        check_whole("replacements", self.replacements, 0, 1000)
        if self.lossy_above <= 0:
            raise ConfigError(f"lossy_above is {self.lossy_above:g}; give a factor above 0, such as 1.25")
        if not 0 < self.most_lossy <= 1:
            raise ConfigError(f"most_lossy is {self.most_lossy:g}; give a share above 0, up to 1")


def check_band(band: tuple[float, float]) -> None:
    """Raise ConfigError unless the band is two shares in ascending order, between which a most common type can be."""
    low, high = band
    if not 0 <= low < high <= 1 or high < 0.5:
        raise ConfigError(f"band is {low:g} to {high:g}; give two shares, such as 0.2 and 0.8, the second 0.5 or more")


def check_mpp(mpp: float) -> None:
    """Raise ConfigError for a scale that no microscope has."""
    if not 0.01 <= mpp <= 100:
        raise ConfigError(f"mpp is {mpp}; give 0.01 to 100 micrometers per pixel")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ConfigError for a number that is not whole or out of bounds."""
    if not (isinstance(value, int) and low <= value <= high):
        raise ConfigError(f"{name} is {value}; give a whole number from {low} to {high}")
