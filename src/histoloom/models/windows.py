"""Overlapping windows along one axis of a field, and the share of each place that each window decides.

Shares fall off towards the ends of a window as a Hann window does, and those of all windows at a place sum to one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.config import check_numbers
from histoloom.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How a field is cut into windows."""

    edge: int = 384  # px; rounded up to what the network takes
    overlap: float = 0.25  # share of a window that the next one covers again; above 0, up to 0.75
    jitter: bool = True  # begin the windows of every step at another place

    def __post_init__(self):
        check_numbers(self)
        if not 0 < self.overlap <= 0.75 or self.edge < 64:
            raise ConfigError(
                f"windows need an overlap above 0, up to 0.75, and an edge of 64 px or more; got overlap "
                f"{self.overlap:g} and edge {self.edge}"
            )


@dataclass(frozen=True, eq=False)
class Axis:
    """Windows of `edge` places along an axis: where each starts, and its shares of the places it covers."""

    starts: tuple[int, ...]
    edge: int
    shares: tuple[Float[np.ndarray, " edge"], ...]

    @classmethod
    def of(cls, length: int, edge: int, stride: int, offset: int = 0) -> "Axis":
        """Windows that cover `length` places, at most `stride` apart; the grid is moved by `-offset`, its ends are not.

        A window that its neighbors make superfluous is left out.
        """
        last = length - edge
        wanted = np.unique(np.clip(np.arange(-offset, length, stride), 0, last)).tolist()
        starts = [0]
        for number, place in enumerate(wanted[1:], start=1):
            if place == last or wanted[number + 1] - starts[-1] > stride:
                starts.append(place)
        hann = np.sin(np.pi * (np.arange(edge) + 0.5) / edge) ** 2
        total = np.zeros(length)
        for start in starts:
            total[start : start + edge] += hann
        shares = [(hann / total[start : start + edge]).astype(np.float32) for start in starts]
        return cls(tuple(starts), edge, tuple(shares))

    def first_over(self, place: int) -> int:
        """Number of the first window that covers `place` or begins after it."""
        return next(number for number, start in enumerate(self.starts) if start + self.edge > place)
