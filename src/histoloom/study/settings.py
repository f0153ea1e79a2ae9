"""How a reader study is drawn."""

from dataclasses import dataclass

from histoloom.config import check_numbers
from histoloom.errors import ConfigError

MODES = ("single", "pairs")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What decides a study, besides its images."""

    n: int = (
        120  # items that count: half real, half synthetic; in mode pairs, pairs of one real and one synthetic image
    )
    readers: int = 5  # each has an order of their own
    mode: str = "single"  # single: one image at a time; pairs: which of two is real?
    margin: float = 0.6  # readers "cannot tell" where the interval of the AUC is below it; 0.5 to 1
    controls: float = 0.1  # real against real, as a share of n; as many decoded real images, where a model is given
    repeats: float = 0.1  # items that return later, as a share of n
    practice: int = 4  # items before the study that do not count
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.mode not in MODES:
            raise ConfigError(f"mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if not 0.5 < self.margin < 1:
            raise ConfigError(f"margin must be between 0.5 and 1; got {self.margin}")
        if self.n < 4 or self.n % 2:
            raise ConfigError(f"n must be even and at least 4; got {self.n}")
        if not 1 <= self.readers <= 100:
            raise ConfigError(f"readers must be 1 to 100; got {self.readers}")
        if not (0 <= self.controls <= 1 and 0 <= self.repeats <= 0.4):
            raise ConfigError(f"controls must be 0 to 1 and repeats 0 to 0.4; got {self.controls} and {self.repeats}")
        if self.practice < 0 or self.practice % 2:
            raise ConfigError(f"practice must be even, 0 or more; got {self.practice}")

    @property
    def is_pairs(self) -> bool:
        """Whether each item is a pair of images."""
        return self.mode == "pairs"

    @property
    def num_controls(self) -> int:
        """Controls of each kind."""
        return round(self.controls * self.n)

    @property
    def num_repeats(self) -> int:
        """Items that return."""
        return round(self.repeats * self.n)
