"""What `histoloom canvas` and `pairs` can be asked for. Imports nothing heavy: the command line reads defaults here."""

from dataclasses import dataclass
from typing import Literal, get_args

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.models.sampling import Sampling

Rule = Literal["grow", "shrink", "thicken", "move", "merge", "change"]
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


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A rule, the type that it is for, and by how much.

    grow and shrink move the border of every region of the type outwards or inwards; thicken grows regions, but keeps
    them apart; move moves only the border with one other type, into that; merge fills what separates regions of the
    type; change gives the largest region of the type another one.
    """

    rule: Rule = "grow"
    tissue: str = ""  # the type that is edited
    by: int = 6  # px: how far a border moves; merge fills gaps of up to twice that; without effect for change
    to: str = ""  # the type that change gives, or into which a border moves

    def __post_init__(self):
        check_numbers(self)
        if self.rule not in get_args(Rule):
            raise ConfigError(f"rule {self.rule!r} is unknown; known: {', '.join(get_args(Rule))}")
        if not 1 <= self.by <= 256:
            raise ConfigError(f"by is {self.by}; give 1 to 256 px")
        needs = self.rule in ("change", "move")
        if needs != bool(self.to):
            raise ConfigError(f"rule {self.rule} {'needs' if needs else 'takes no'} --to")
