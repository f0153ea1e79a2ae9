"""The levels of a slide, and how many level-0 pixels a pixel of each one spans.

Sizes alone do not tell. Half of 4443 px is 2221 px because the last column was dropped, not because pixels span 2.0005.
And a level that is stored in whole tiles may be padded: 1496 x 2096 px are then stored as 1536 x 2304, and the half of
them as 768 x 1280, so that the ratios are 2.0 and 1.8 where both are 2. A whole number that explains both edges is
evidence; where several do, the pixels of the level are held against those of a finer one; and where these do not
tell, the scale is reported as doubtful.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

Size = tuple[int, int]
ReadLevel = Callable[[int, int, int, int, int], UInt8[np.ndarray, "h w 3"]]  # level, left, top, width, height

_SAME = 0.01  # ratios across and down that differ by less are those of a pyramid without whole steps
_WINDOW = 160  # pixels of a level that are compared with a finer one
_PLACES = 5  # windows along each edge among which those with most structure are compared
_COMPARED = 6
_CLEAR = 0.08  # correlation by which the best scale must lead
_ALIKE = 0.5
_MOST_TRIED = 12  # scales


@dataclass(frozen=True)
class Level:
    """One level of the pyramid: size in its own pixels, and how many level-0 pixels one of them spans.

    `index` is its number in the file: a level whose scale is unknown is not used.
    """

    width: int
    height: int
    downsample_x: float
    downsample_y: float
    index: int = 0


def find_levels(sizes: Sequence[Size], tiles: Sequence[Size | None], read: ReadLevel) -> tuple[list[Level], list[str]]:
    """The levels with their true downsamples, and a note on each whose scale is doubtful.

    `sizes` and `tiles` are width and height of the levels and of their tiles (None where there are none), fine to
    coarse.
    """
    levels, notes = [Level(*sizes[0], 1.0, 1.0)], []
    for index in range(1, len(sizes)):
        scale, doubt = _scale(index, sizes, tiles, levels[-1], read)
        if doubt:
            notes.append(f"level {index} of {sizes[index][0]} x {sizes[index][1]} px: {doubt}")
        if scale is not None:
            levels.append(Level(*sizes[index], *scale, index))
    return levels, notes


def whole_scales(full: Size, full_tile: Size | None, size: Size, tile: Size | None) -> list[int]:
    """The whole numbers that explain both edges of a level, be it cut, rounded up, or padded to whole tiles."""
    slack = [_padding(edge, t) for edge, t in zip(full, full_tile or (0, 0), strict=True)]
    padding = [_padding(edge, t) for edge, t in zip(size, tile or (0, 0), strict=True)]
    ranges = []
    for edge, loose, reduced, padded in zip(full, slack, size, padding, strict=True):
        # floor((edge - loose) / scale) <= reduced and ceil(edge / scale) >= reduced - padded
        low = (edge - loose) // (reduced + 1) + 1
        most = max(reduced - padded - 1, 0)
        high = -(-edge // most) - 1 if most else edge
        ranges.append((max(low, 1), high))
    return list(range(max(low for low, _ in ranges), min(high for _, high in ranges) + 1))


def _padding(edge: int, tile: int) -> int:
    """By how many pixels an edge may have been padded to whole tiles."""
    return tile - 1 if tile and edge % tile == 0 else 0


def _scale(
    index: int, sizes: Sequence[Size], tiles: Sequence[Size | None], finer: Level, read: ReadLevel
) -> tuple[tuple[float, float] | None, str]:
    """Downsamples across and down, or None where they are unknown; and what is doubtful."""
    full, size = sizes[0], sizes[index]
    across, down = full[0] / size[0], full[1] / size[1]
    whole = whole_scales(full, tiles[0], size, tiles[index])
    if len(whole) == 1:
        return (float(whole[0]), float(whole[0])), ""
    if not whole and abs(across / down - 1) < _SAME:
        return (across, down), ""
    tried = _likely(whole, across, down, finer)
    best = _by_pixels(index, size, tried, finer, read)
    if best is not None:
        return (best, best), ""
    if whole:
        steps = [scale for scale in tried if scale in (2 * finer.downsample_x, 4 * finer.downsample_x)]
        taken = float((steps or [min(whole, key=lambda scale: abs(scale - max(across, down)))])[0])
        doubt = f"its size fits scales from {whole[0]} to {whole[-1]}, and its pixels do not decide; {taken:g} is used"
        return (taken, taken), doubt
    return (
        None,
        f"its scale, {across:.4g} across and {down:.4g} down, is doubtful; finer levels are used",
    )


def _likely(whole: list[int], across: float, down: float, finer: Level) -> list[float]:
    """The scales that are tried: all whole ones where they are few, else those that pyramids have."""
    if whole and len(whole) <= _MOST_TRIED:
        return [float(scale) for scale in whole]
    steps = {finer.downsample_x * step for step in (2, 3, 4, 5, 8, 16)}
    if whole:
        near = {float(round(ratio)) for ratio in (across, down)}
        return sorted(scale for scale in steps | near if scale in whole)
    between = range(math.floor(min(across, down)), math.ceil(max(across, down)) + 2)
    return sorted({across, down, *map(float, between)} - {0.0})[: 2 * _MOST_TRIED]


def _by_pixels(index: int, size: Size, scales: list[float], finer: Level, read: ReadLevel) -> float | None:
    """The scale at which windows of a level look like the finer level; None where none clearly does."""
    edges = min(_WINDOW, size[0]), min(_WINDOW, size[1])
    starts = [np.unique(np.linspace(0, s - e, _PLACES).astype(int)) for s, e in zip(size, edges, strict=True)]
    windows = [
        (int(left), int(top), _gray(read(index, int(left), int(top), *edges)))
        for top in starts[1]
        for left in starts[0]
    ]
    windows = sorted(windows, key=lambda window: -_structure(window[2]) * (1 + window[0] + window[1]))[:_COMPARED]
    scores = []
    for scale in scales:
        step = scale / finer.downsample_x
        alike = []
        for left, top, seen in windows:
            x, y = left * step, top * step
            width, height = max(round(edges[0] * step), 1), max(round(edges[1] * step), 1)
            other = read(finer.index, round(x), round(y), width, height)
            small = np.asarray(Image.fromarray(other).resize(edges, Image.Resampling.BOX))
            alike.append(_correlation(seen, _gray(small)))
        scores.append(float(np.mean(alike)))
    order = np.argsort(scores)[::-1]
    best = scores[order[0]]
    second = scores[order[1]] if len(order) > 1 else -1.0
    return scales[order[0]] if best > _ALIKE and best - second > _CLEAR else None


def _gray(pixels: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    return pixels.astype(np.float64).mean(-1)


def _structure(gray: Float[np.ndarray, "h w"]) -> float:
    return float(gray.std())


def _correlation(one: Float[np.ndarray, "h w"], other: Float[np.ndarray, "h w"]) -> float:
    a, b = one - one.mean(), other - other.mean()
    norm = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0
