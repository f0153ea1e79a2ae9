"""Draw the map of a slide without annotations: windows are classified, and their overlapping votes make a finer map.

A map is produced row by row from top to bottom: ids of the finest types, 255 outside the tissue. Memory does not grow
with the height of the slide.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from histoloom.config import check_numbers
from histoloom.discovery.classifier import TypePredictor, Window
from histoloom.discovery.votes import cell_rows, finer_rows, most_likely
from histoloom.errors import ConfigError, SlideError
from histoloom.slides.reader import Slide
from histoloom.slides.tissue import TissueMap
from histoloom.tissue import UNLABELLED

ROWS, COLUMNS = 8, 32  # windows that are read at once: windows of 64 px at a stride of 16 make 176 x 560 px
BATCH = 256  # windows per prediction
LITTLE = 0.1  # windows with a smaller share of tissue do not vote: they show glass


@dataclass(frozen=True)
class MapConfig:
    """How fine a map is, and how smooth."""

    stride: int | None = None  # px from one window to the next, the edge of a cell; None: a quarter of the window
    finer: int = 4  # pixels of the map along the edge of a cell
    smooth: float = 1.0  # sigma of the Gaussian over votes, in cells
    min_tissue: float = 0.5  # pixels of the map with a smaller share of tissue are 255; slides only

    def __post_init__(self):
        check_numbers(self)
        if (self.stride is not None and self.stride < 1) or not 1 <= self.finer <= 64:
            raise ConfigError(f"stride {self.stride} must be at least 1, finer {self.finer} in [1, 64]")
        if not 0 <= self.smooth <= 16 or not 0 < self.min_tissue <= 1:
            raise ConfigError(f"smooth {self.smooth} must be in [0, 16], min_tissue {self.min_tissue} in (0, 1]")

    def cell(self, window: Window) -> int:
        """Edge of a cell in pixels of the window; raises ConfigError for a stride larger than the window."""
        cell = self.stride or max(window.edge // 4, 1)
        if cell > window.edge:
            raise ConfigError(f"stride {cell} is larger than the window of {window.edge} px and would leave gaps")
        return cell


@dataclass(frozen=True)
class MapGrid:
    """How a map is aligned with a slide, in whole level-0 pixels, so that it does not drift."""

    size: tuple[int, int]  # width and height of the slide
    pixel: int  # level-0 pixels per pixel of the map
    cell: int  # level-0 pixels per cell
    reach: int  # cells along a window
    scale: float  # level-0 pixels per pixel of the window

    @property
    def cells(self) -> tuple[int, int]:
        """Columns and rows of cells; the last may extend beyond the edge."""
        return -(-self.size[0] // self.cell), -(-self.size[1] // self.cell)

    @property
    def windows(self) -> tuple[int, int]:
        """Columns and rows of windows; a slide smaller than a window has one."""
        columns, rows = self.cells
        return max(columns - self.reach + 1, 1), max(rows - self.reach + 1, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        width, height = (-(-length // self.pixel) for length in self.size)
        return height, width

    def inset(self, window: Window) -> float:
        """Level-0 pixels from the edge of its first cell to that of a window: both have one middle."""
        return (self.reach * self.cell - window.edge * self.scale) / 2


def map_grid(size: tuple[int, int], slide_mpp: float, window: Window, config: MapConfig) -> MapGrid:
    """The grid of a slide; raises ConfigError for windows whose mpp is unknown."""
    if window.mpp is None:
        raise ConfigError("these types come from patches of unknown mpp, so slides cannot be read at the same mpp; "
                          "import the patches with --mpp and discover types again")  # fmt: skip
    scale = window.mpp / slide_mpp
    pixel = max(round(config.cell(window) * scale / config.finer), 1)
    cell = max(round(config.cell(window) * scale / pixel), 1) * pixel
    return MapGrid(size, pixel, cell, max(round(window.edge * scale / cell), 1), scale)


def draw_rows(
    slide: Slide, tissue: TissueMap, predict: TypePredictor, config: MapConfig
) -> Iterator[UInt8[np.ndarray, "f m"]]:
    """The map of a slide, a few rows at a time; all rows together have the shape of the grid.

    Raises SlideError for a slide without tissue or a damaged file.
    """
    if not tissue.mask.any():
        raise SlideError(f"{slide.path}: has no tissue; view it with `histoloom overlay`, or leave it out")
    grid = map_grid(slide.size, slide.mpp, predict.window, config)
    (columns, rows), (height, width) = grid.cells, grid.shape
    voted = (
        row[:columns] for row, _ in cell_rows(_window_rows(slide, tissue, predict, grid), grid.reach, config.smooth)
    )
    done = 0
    for _, fine in zip(range(rows), finer_rows(voted, grid.cell // grid.pixel), strict=False):
        part = most_likely(fine, predict.tree.ancestors)[: height - done, :width]
        part[~_is_tissue(tissue, grid, done, len(part), config.min_tissue)] = UNLABELLED
        done += len(part)
        yield part


def _window_rows(
    slide: Slide, tissue: TissueMap, predict: TypePredictor, grid: MapGrid
) -> Iterator[tuple[Float[np.ndarray, "c k"], Float[np.ndarray, " c"]]]:
    """Probabilities and weights of the windows, row by row."""
    across, down = grid.windows
    edge = predict.window.edge * grid.scale
    inset = grid.inset(predict.window)
    for top in range(0, down, ROWS):
        rows = range(top, min(top + ROWS, down))
        x, y = (part.ravel().astype(np.float64) for part in np.meshgrid(np.arange(across), rows))
        boxes = np.stack([x, y, x, y], 1) * grid.cell + inset + np.array([0, 0, edge, edge])
        weights = tissue.fraction(boxes).astype(np.float32).reshape(len(rows), across)
        weights[weights < LITTLE] = 0
        votes = np.zeros((*weights.shape, len(predict.tree.centroids)), np.float32)
        for left in range(0, across, COLUMNS):
            block = slice(left, left + COLUMNS)
            if weights[:, block].any():
                votes[:, block] = _predicted(slide, predict, grid, (left, top), weights[:, block] > 0)
        yield from zip(votes, weights, strict=True)


def _predicted(
    slide: Slide, predict: TypePredictor, grid: MapGrid, first: tuple[int, int], wanted: Bool[np.ndarray, "r c"]
) -> Float[np.ndarray, "r c k"]:
    """Probabilities of a block of windows from one read; 0 for windows that are not wanted."""
    edge, step = predict.window.edge, grid.cell / grid.scale
    at = [np.rint(np.arange(count) * step).astype(np.int64) for count in wanted.shape]
    height, width = (int(places[-1]) + edge for places in at)
    x, y = (place * grid.cell + grid.inset(predict.window) for place in first)
    assert predict.window.mpp is not None  # map_grid has checked it
    pixels = slide.read(x, y, (width, height), predict.window.mpp)
    views = sliding_window_view(pixels, (edge, edge), axis=(0, 1))
    votes = np.zeros((*wanted.shape, len(predict.tree.centroids)), np.float32)
    chosen = np.argwhere(wanted)
    for start in range(0, len(chosen), BATCH):
        rows, columns = chosen[start : start + BATCH].T
        windows = views[at[0][rows], at[1][columns]].transpose(0, 2, 3, 1)
        votes[rows, columns] = predict(np.ascontiguousarray(windows))
    return votes


def _is_tissue(tissue: TissueMap, grid: MapGrid, first: int, rows: int, least: float) -> Bool[np.ndarray, "f m"]:
    """True where the pixels of `rows` rows of the map, from row `first`, show tissue."""
    x, y = np.meshgrid(np.arange(grid.shape[1]), np.arange(first, first + rows))
    boxes = np.stack([x, y, x + 1, y + 1], -1).reshape(-1, 4) * float(grid.pixel)
    return tissue.fraction(boxes).reshape(rows, -1) >= least


def draw_patch(
    image: UInt8[np.ndarray, "h w 3"], predict: TypePredictor, config: MapConfig
) -> UInt8[np.ndarray, "h w"]:
    """The map of a patch at the same size; the border is mirrored so that windows cover it, too."""
    (height, width), edge, cell = image.shape[:2], predict.window.edge, config.cell(predict.window)
    reach = max(round(edge / cell), 1)
    rows, columns = -(-height // cell), -(-width // cell)
    beyond = reach // 2  # cells by which windows extend beyond the patch
    across, down = (count - reach + 1 + 2 * beyond for count in (columns, rows))
    before, after = (beyond + 1) * cell, (beyond + 1) * cell + edge
    mirrored = np.pad(image, ((before, after), (before, after), (0, 0)), mode="reflect")
    first = cell + (reach * cell - edge) // 2  # so that a window and its cells have one middle
    views = sliding_window_view(mirrored, (edge, edge), axis=(0, 1))[first::cell, first::cell][:down, :across]
    flat = views.reshape(down * across, 3, edge, edge).transpose(0, 2, 3, 1)
    votes = np.concatenate([predict(np.ascontiguousarray(flat[i : i + BATCH])) for i in range(0, len(flat), BATCH)])
    window_rows = zip(votes.reshape(down, across, -1), np.ones((down, across), np.float32), strict=True)
    voted = [row[beyond : beyond + columns] for row, _ in cell_rows(window_rows, reach, config.smooth)]
    # Types are decided for blocks of 2 px: a quarter of the work, and borders are not more precise than that.
    block = 2 if cell % 2 == 0 else 1
    fine = finer_rows(voted[beyond : beyond + rows], cell // block)
    blocks = np.concatenate([most_likely(part, predict.tree.ancestors) for part in fine])
    return blocks.repeat(block, 0).repeat(block, 1)[:height, :width]
