"""Overlapping windows along one axis of a field, and the share of each place that each window decides.

Shares fall off toward the ends of a window as a Hann window does, and those of all windows at a place sum to one.
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
    """Windows along an axis: where each starts, and its shares of the places that it covers, one per place."""

    starts: tuple[int, ...]
    shares: tuple[Float[np.ndarray, " _edge"], ...]

    @classmethod
    def of(cls, length: int, edge: int, stride: int, offset: int = 0, unit: int = 1) -> "Axis":
        """Windows of `edge` that cover `length` places; each covers at least `edge - stride` of the next one.

        The grid is moved by `-offset`, its ends are not: there a window may be narrower, a multiple of `unit` and at
        least half of `edge`. A window that its neighbors make superfluous is left out.
        """
        last, overlap, least = length - edge, edge - stride, (edge + 1) // 2
        wanted = np.unique(np.clip(np.arange(-offset, length, stride), 0, last)).tolist()
        starts = [0]
        for number, place in enumerate(wanted[1:], start=1):
            if place == last or wanted[number + 1] - starts[-1] > stride:
                starts.append(place)
        ends = [start + edge for start in starts]
        if len(starts) > 1:
            ends[0] = min(edge, _rounded(max(starts[1] + overlap, least), unit))
            starts[-1] = max(last, length - _rounded(max(length - ends[-2] + overlap, least), unit))
        hann = [
            np.sin(np.pi * (np.arange(end - s) + 0.5) / (end - s)) ** 2 for s, end in zip(starts, ends, strict=True)
        ]
        total = np.zeros(length)
        for start, end, weight in zip(starts, ends, hann, strict=True):
            total[start:end] += weight
        shares = [(w / total[s:end]).astype(np.float32) for s, end, w in zip(starts, ends, hann, strict=True)]
        return cls(tuple(starts), tuple(shares))

    def end(self, number: int) -> int:
        """The place after the last of window `number`."""
        return self.starts[number] + len(self.shares[number])

    def first_over(self, place: int) -> int:
        """Number of the first window that covers `place` or begins after it."""
        return next(number for number in range(len(self.starts)) if self.end(number) > place)


def _rounded(edge: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `edge`."""
    return -(-edge // unit) * unit
