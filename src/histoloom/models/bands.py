"""A pass over a field that streams: bands of rows come in, windows are worked on row by row, and bands go out.

A pass holds the bands that its row of windows covers, and no others. Passes are chained: each pulls bands from the one
before, so that they advance as a wavefront, and what is held in memory does not depend on the height of the field.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from histoloom.models.windows import Axis

Work = Callable[[int, int, Tensor], Tensor]  # row and column of a window, and its part of the field -> its result


@dataclass(eq=False)
class Band:
    """Rows of a field from `top` on, the sampler that has its own history of them, and the sum of windows' results."""

    top: int
    values: Float[Tensor, "1 c r w"]
    sampler: Any = None
    total: Tensor | None = None

    @property
    def bottom(self) -> int:
        """The row below the last."""
        return self.top + self.values.shape[2]


@dataclass(frozen=True, eq=False)
class Grid:
    """The windows of a pass, in units of its results, of which there are `scale` to a place of the field."""

    rows: Axis
    columns: Axis
    scale: int = 1

    def start(self, needed: int, block: int) -> tuple[int, int]:
        """The first row of windows that a result at row `needed` takes, and the first row of the field that it takes.

        The latter is the first row of a block.
        """
        number = self.rows.first_over(needed * self.scale)
        top = min(needed, self.rows.starts[number] // self.scale)
        return number, top - top % block

    def count(self, first: int = 0) -> int:
        """Windows from row `first` of windows on."""
        return (len(self.rows.starts) - first) * len(self.columns.starts)


def sweep(bands: Iterator[Band], grid: Grid, work: Work, first: int, needed: int) -> Iterator[Band]:
    """Each band from row `needed` of the field on, with the sum of what `work` makes of all windows that cover it.

    Results are weighted by the shares of the grid. `first` is the number of the first row of windows; see `Grid.start`.
    """
    held: deque[Band] = deque()
    rows, scale = grid.rows, grid.scale
    for number in range(first, len(rows.starts)):
        top, bottom = rows.starts[number] // scale, rows.end(number) // scale
        while not held or held[-1].bottom < bottom:
            held.append(next(bands))
        _add(held, top, _row(held, top, bottom, grid, work, number), scale)
        done = rows.starts[number + 1] // scale if number + 1 < len(rows.starts) else bottom
        while held and held[0].bottom <= done:
            band = held.popleft()
            if band.top >= needed:
                yield band


def _row(
    held: deque[Band], top: int, bottom: int, grid: Grid, work: Work, number: int
) -> Float[Tensor, "1 k edge width"]:
    """The weighted results of one row of windows, side by side."""
    columns, scale = grid.columns, grid.scale
    covered = [band for band in held if band.bottom > top]
    values = torch.cat([band.values for band in covered], 2)[:, :, top - covered[0].top : bottom - covered[0].top]
    down, total = torch.from_numpy(grid.rows.shares[number]).to(values.device)[:, None], None
    for start, share in zip(columns.starts, columns.shares, strict=True):
        end = start + len(share)
        left, right = start // scale, end // scale
        result = work(top, left, values[..., left:right])
        if total is None:
            total = result.new_zeros(*result.shape[:3], values.shape[3] * scale)
        total[..., start:end] += result * (down * torch.from_numpy(share).to(values.device))
    assert total is not None
    return total


def _add(held: deque[Band], top: int, row: Float[Tensor, "1 k edge width"], scale: int) -> None:
    """Add the results of a row of windows that begins at row `top` of the field to the bands that it covers."""
    bottom = top + row.shape[2] // scale
    for band in held:
        first, last = max(top, band.top), min(bottom, band.bottom)
        if first >= last:
            continue
        if band.total is None:
            band.total = row.new_zeros(*row.shape[:2], (band.bottom - band.top) * scale, row.shape[3])
        mine, its = (
            slice((first - band.top) * scale, (last - band.top) * scale),
            slice((first - top) * scale, (last - top) * scale),
        )
        band.total[:, :, mine] += row[:, :, its]
