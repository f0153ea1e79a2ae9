"""How many readers and items does a study need?"""

from dataclasses import dataclass

from histoloom.errors import ConfigError
from histoloom.progress import Progress, silent
from histoloom.readers.simulation import RoeMetz, power

READERS = (3, 4, 5, 6, 8, 10, 12)
ITEMS = (40, 80, 120, 160, 200, 240)  # half of them real


@dataclass(frozen=True)
class Design:
    """A size, and the share of simulated studies that find that readers cannot tell."""

    readers: int
    n: int
    power: float


def designs(
    model: RoeMetz, margin: float, wanted: float, studies: int = 400, seed: int = 0, progress: Progress = silent
) -> list[Design]:
    """Designs by readers, each with more items until the `wanted` power is reached; raises ConfigError."""
    if not 0.5 < margin < 1:
        raise ConfigError(f"margin must be between 0.5 and 1; got {margin}")
    if not 0 < wanted < 1 or studies < 1:
        raise ConfigError(f"power must be between 0 and 1, and studies at least 1; got {wanted} and {studies}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; give 0 or more")
    if model.auc >= margin:
        raise ConfigError(f"readers with an AUC of {model.auc} can tell by a margin of {margin}; lower auc")
    found = []
    with progress("designs", len(READERS) * len(ITEMS), "designs") as bar:
        for readers in READERS:
            for n in ITEMS:
                found.append(Design(readers, n, power(model, readers, n // 2, margin, studies, seed)))
                bar.advance()
                if found[-1].power >= wanted:
                    break
    return found


def smallest(found: list[Design], wanted: float) -> Design | None:
    """The design that reaches the `wanted` power with the fewest answers; None where none does."""
    enough = [design for design in found if design.power >= wanted]
    return min(enough, key=lambda design: (design.readers * design.n, design.readers), default=None)
