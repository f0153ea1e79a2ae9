"""An order: how many patches, of which tissues, shapes and stains. An order file is TOML with these keys:

    count = 1000
    maps = "patches"                 # a patch dataset or a folder of maps; without it, layouts are drawn
    crops = "crops"                  # a crop bank; "own" is that of the model

    [shares]                         # of the labeled pixels of all patches together
    stroma = 0.4
    "normal gland" = 0.6

Imports nothing heavy: the command line reads its defaults here.
"""

from dataclasses import dataclass
from pathlib import Path

from histoloom.config import build, check_numbers, load_recipe
from histoloom.errors import ConfigError
from histoloom.generation.settings import Drawing, Source, check_band, check_mpp, check_whole
from histoloom.models.sampling import MOST_EDGE

OWN, NONE = "own", "none"  # crops: of the model's bank, or none at all
_HELD_OUT = ("val", "test", "eval", "dev", "held", "hold")  # how the names of splits begin that judge what is trained


@dataclass(frozen=True, kw_only=True)
class DatasetOrder(Drawing):
    """What is ordered."""

    count: int = 64  # patches
    size: int = 224  # px, edge; maps of files that are not warped keep theirs
    mpp: float | None = None  # micrometers per pixel of maps and patches; None: the model's
    shares: tuple[tuple[str, float], ...] = ()  # of labeled pixels by type, sum 1; (): as maps or styles have them
    band: tuple[float, float] = (0.2, 0.8)  # shares of a patch that its most common type covers at least, at most
    maps: Path | None = None  # patch dataset or folder of maps that lend their shapes; None: layouts are drawn
    split: str = "train"  # of the dataset
    warp: bool = True  # turn, mirror, scale and bend each map; False: weave maps as they are, each once
    recombine: float = 0.5  # share of patches that join parts of two maps
    crops: str = OWN  # a crop bank, own: the model's, or none
    stains: tuple[str, ...] = ()  # sets of the bank, by name; (): all

    def __post_init__(self):
        check_numbers(self)
        check_whole("count", self.count, 1, 10**7)
        check_whole("size", self.size, 64, MOST_EDGE)
        if self.mpp is not None:
            check_mpp(self.mpp)
        if not 0 <= self.recombine <= 1:
            raise ConfigError(f"recombine is {self.recombine:g}; give a share from 0 to 1")
        check_band(self.band)
        self._check_shares()
        if self.split.lower().startswith(_HELD_OUT):
            raise ConfigError(
                f"split {self.split!r} is held out to judge what is trained, and an order is for training; order from "
                "split 'train'"
            )

    def _check_shares(self) -> None:
        for name, share in self.shares:
            if not 0 <= share <= 1:
                raise ConfigError(f"share of {name!r} is {share:g}; give 0 to 1")
        total = sum(share for _, share in self.shares)
        if self.shares and abs(total - 1) > 1e-6:
            raise ConfigError(f"shares sum to {total:g}; they must sum to 1")
        names = [name for name, _ in self.shares]
        if len(set(names)) < len(names):
            raise ConfigError(f"shares name a type twice: {', '.join(names)}")


def read_order(path: Path) -> DatasetOrder:
    """Read an order file; folders in it are relative to the file. Raises ConfigError naming file and key."""
    values = dict(load_recipe(path))
    for key in ("shares", "styles"):
        if isinstance(values.get(key), dict):
            values[key] = [[name, value] for name, value in values[key].items()]
    if isinstance(values.get("maps"), str):
        values["maps"] = str(path.parent / values["maps"])
    if isinstance(values.get("crops"), str) and values["crops"] not in (OWN, NONE):
        values["crops"] = str(path.parent / values["crops"])
    return build(DatasetOrder, values, str(path))


def source_of(order: DatasetOrder, record_names: bool = False) -> Source:
    """The source that weaves an order; crops of the model's own bank are left to the caller, who has the model."""
    crops = None if order.crops in (OWN, NONE) else Path(order.crops)
    return Source(maps=order, crops=crops, stains=order.stains, mpp=order.mpp, record_names=record_names)
