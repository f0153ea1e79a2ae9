"""The map of a slide that nobody annotated: windows are named, and their overlapping votes make a finer map.

A map comes in rows, from top to bottom, of ids of the finest types as they were found; 255 outside the tissue. Memory
does not grow with the height of the slide.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from histoloom.discovery.classifier import NamesWindows, Window
from histoloom.discovery.votes import cell_rows, finer_rows, most_likely
from histoloom.errors import ConfigError, SlideError
from histoloom.slides.reader import Slide
from histoloom.slides.tissue import TissueMap
from histoloom.tissue import UNLABELLED

ROWS, COLUMNS = 8, 32  # windows whose pixels are read at once: 64 px windows at a stride of 16 make 176 x 560 px
BATCH = 256  # windows named at a time
LITTLE = 0.1  # windows with a smaller share of tissue have no vote: they show glass


@dataclass(frozen=True)
class MapConfig:
    """How fine a map is, and how smooth."""

    stride: int | None = None  # px of the window from one window to the next: a cell; none: a quarter of the window
    finer: int = 4  # pixels of the map along a cell
    smooth: float = 1.0  # cells, sigma of the Gaussian over votes
    min_tissue: float = 0.5  # share of tissue below which a pixel of the map is 255; slides only

    def __post_init__(self):
        if (self.stride is not None and self.stride < 1) or self.finer < 1:
            raise ConfigError(f"stride {self.stride} and finer {self.finer} must be 1 or more")
        if not 0 <= self.smooth <= 16 or not 0 < self.min_tissue <= 1:
            raise ConfigError(f"smooth {self.smooth} must lie in [0, 16], min_tissue {self.min_tissue} in (0, 1]")

    def cell(self, window: Window) -> int:
        """Edge of a cell in px of the window; raises ConfigError for a stride beyond the window."""
        cell = self.stride or max(window.edge // 4, 1)
        if cell > window.edge:
            raise ConfigError(f"stride {cell} is larger than the window of {window.edge} px, which leaves gaps")
        return cell


@dataclass(frozen=True)
class MapGrid:
    """How a map lies on a slide, in whole level-0 pixels, so that it stays aligned from end to end."""

    size: tuple[int, int]  # width and height of the slide
    pixel: int  # level-0 pixels to a pixel of the map
    cell: int  # level-0 pixels to a cell
    reach: int  # cells along a window
    scale: float  # level-0 pixels to a pixel of the window

    @property
    def cells(self) -> tuple[int, int]:
        """Columns and rows of cells; the last may reach over the edge."""
        return tuple(-(-length // self.cell) for length in self.size)

    @property
    def windows(self) -> tuple[int, int]:
        """Columns and rows of windows; a slide smaller than a window has one."""
        return tuple(max(count - self.reach + 1, 1) for count in self.cells)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        width, height = (-(-length // self.pixel) for length in self.size)
        return height, width


def map_grid(size: tuple[int, int], slide_mpp: float, window: Window, config: MapConfig) -> MapGrid:
    """The grid of a slide; raises ConfigError for windows whose mpp is unknown."""
    if window.mpp is None:
        raise ConfigError("these types were found in patches of unknown mpp, so no slide can be read at theirs; import "
                          "the patches with --mpp and discover types anew")  # fmt: skip
    scale = window.mpp / slide_mpp
    pixel = max(round(config.cell(window) * scale / config.finer), 1)
    cell = max(round(config.cell(window) * scale / pixel), 1) * pixel
    return MapGrid(size, pixel, cell, max(round(window.edge * scale / cell), 1), scale)


def draw_rows(
    slide: Slide, tissue: TissueMap, names: NamesWindows, config: MapConfig
) -> Iterator[UInt8[np.ndarray, "f m"]]:
    """The map of a slide, a few rows at a time; together they have the shape of the grid.

    Raises SlideError where the slide has no tissue, or is damaged.
    """
    if not tissue.mask.any():
        raise SlideError(
            f"{slide.path}: no tissue was found on it; look at it with `histoloom overlay`, or leave it out"
        )
    grid = map_grid(slide.size, slide.mpp, names.window, config)
    (columns, rows), (height, width) = grid.cells, grid.shape
    voted = (row[:columns] for row, _ in cell_rows(_window_rows(slide, tissue, names, grid), grid.reach, config.smooth))
    done = 0
    for _, fine in zip(range(rows), finer_rows(voted, grid.cell // grid.pixel), strict=False):
        part = most_likely(fine, names.tree.ancestors)[: height - done, :width]
        part[~_is_tissue(tissue, grid, done, len(part), config.min_tissue)] = UNLABELLED
        done += len(part)
        yield part


def _window_rows(
    slide: Slide, tissue: TissueMap, names: NamesWindows, grid: MapGrid
) -> Iterator[tuple[Float[np.ndarray, "c k"], Float[np.ndarray, " c"]]]:
    """Probabilities and weights of the windows, row by row."""
    across, down = grid.windows
    edge = names.window.edge * grid.scale
    for top in range(0, down, ROWS):
        rows = range(top, min(top + ROWS, down))
        x, y = (part.ravel().astype(np.float64) for part in np.meshgrid(np.arange(across), rows))
        boxes = np.stack([x, y, x, y], 1) * grid.cell + np.array([0, 0, edge, edge])
        weights = tissue.fraction(boxes).astype(np.float32).reshape(len(rows), across)
        weights[weights < LITTLE] = 0
        votes = np.zeros((*weights.shape, len(names.tree.centroids)), np.float32)
        for left in range(0, across, COLUMNS):
            block = slice(left, left + COLUMNS)
            if weights[:, block].any():
                votes[:, block] = _named(slide, names, grid, (left, top), weights[:, block] > 0)
        yield from zip(votes, weights, strict=True)


def _named(
    slide: Slide, names: NamesWindows, grid: MapGrid, first: tuple[int, int], wanted: Bool[np.ndarray, "r c"]
) -> Float[np.ndarray, "r c k"]:
    """Probabilities of a block of windows from one read; those that are not wanted stay 0."""
    edge, step = names.window.edge, grid.cell / grid.scale
    at = [np.rint(np.arange(count) * step).astype(np.int64) for count in wanted.shape]
    height, width = (int(places[-1]) + edge for places in at)
    x, y = (place * grid.cell for place in first)
    pixels = slide.read(x, y, (width, height), names.window.mpp)
    views = sliding_window_view(pixels, (edge, edge), axis=(0, 1))
    votes = np.zeros((*wanted.shape, len(names.tree.centroids)), np.float32)
    chosen = np.argwhere(wanted)
    for start in range(0, len(chosen), BATCH):
        rows, columns = chosen[start : start + BATCH].T
        windows = views[at[0][rows], at[1][columns]].transpose(0, 2, 3, 1)
        votes[rows, columns] = names(np.ascontiguousarray(windows))
    return votes


def _is_tissue(tissue: TissueMap, grid: MapGrid, first: int, rows: int, least: float) -> Bool[np.ndarray, "f m"]:
    """Whether the pixels of `rows` rows of the map, from row `first` on, lie on tissue."""
    x, y = np.meshgrid(np.arange(grid.shape[1]), np.arange(first, first + rows))
    boxes = np.stack([x, y, x + 1, y + 1], -1).reshape(-1, 4) * float(grid.pixel)
    return tissue.fraction(boxes).reshape(rows, -1) >= least


def draw_patch(image: UInt8[np.ndarray, "h w 3"], names: NamesWindows, config: MapConfig) -> UInt8[np.ndarray, "h w"]:
    """The map of a patch, a pixel for each of its own; its border is mirrored, so that windows lie over it as well."""
    (height, width), edge, cell = image.shape[:2], names.window.edge, config.cell(names.window)
    reach = max(round(edge / cell), 1)
    rows, columns = -(-height // cell), -(-width // cell)
    beyond = reach // 2  # cells by which windows stick out
    across, down = (count - reach + 1 + 2 * beyond for count in (columns, rows))
    before, after = beyond * cell, (beyond + 1) * cell + edge
    mirrored = np.pad(image, ((before, after), (before, after), (0, 0)), mode="reflect")
    views = sliding_window_view(mirrored, (edge, edge), axis=(0, 1))[::cell, ::cell][:down, :across]
    flat = views.reshape(down * across, 3, edge, edge).transpose(0, 2, 3, 1)
    votes = np.concatenate([names(np.ascontiguousarray(flat[i : i + BATCH])) for i in range(0, len(flat), BATCH)])
    window_rows = zip(votes.reshape(down, across, -1), np.ones((down, across), np.float32), strict=True)
    voted = [row[beyond : beyond + columns] for row, _ in cell_rows(window_rows, reach, config.smooth)]
    # Types are decided for blocks of 2 px: a quarter of the work, and no border is known better than that.
    block = 2 if cell % 2 == 0 else 1
    fine = finer_rows(voted[beyond : beyond + rows], cell // block)
    blocks = np.concatenate([most_likely(part, names.tree.ancestors) for part in fine])
    return blocks.repeat(block, 0).repeat(block, 1)[:height, :width]
