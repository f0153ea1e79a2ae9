"""What `histoloom canvas` can be asked for. Imports nothing heavy: the command line reads its defaults here."""

from dataclasses import dataclass

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.models.sampling import Sampling

COARSE = 1000.0  # um: edge of the cells in which crops are chosen


@dataclass(frozen=True, kw_only=True)
class CanvasConfig(Sampling):
    """How a canvas is woven."""

    seed: int = 0
    window: int = 384  # px: edge of the windows that the network sees
    overlap: float = 0.25  # share of a window that the next one covers again
    crop_cell: float = COARSE  # um: edge of the cells in which each region chooses its crop
    ome: bool = False  # write OME-TIFF, whose pyramid is in SubIFDs; OpenSlide sees only its first level

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self)
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise ConfigError(f"seed is {self.seed}; give a whole number of 0 or more")
        if not 10 <= self.crop_cell <= 1e6:
            raise ConfigError(f"crop_cell is {self.crop_cell:g}; give 10 to 1,000,000 micrometers")
