"""Does an image show the tiles that it was made of?

A seam repeats: it is at one offset of the pitch of the tiles, in every row or column of tiles. So a figure of each line
of pixels (gradient, color jump) is folded at the pitch, and the offset that stands out most is compared with those of
the same lines in random order. Where no offset stands out, no seam repeats, wherever the first tile begins.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from histoloom.errors import InputError
from histoloom.metrics.lab import rgb_to_lab

STRIP = 8  # px on each side of a line whose mean colors are compared
_FEWEST = 3  # tiles along each edge


@dataclass(frozen=True)
class Seams:
    """Four figures, each with the share of random orders that reach it (p): small where there is a seam.

    `gradient` is how far the mean gradient at the worst offset is from that of all lines, as a share of it; `jump` is
    the same for the difference of the mean Lab colors on both sides of a line; `power` is the power of the gradient at
    the frequency of the tiles and its multiples, over that of frequencies nearby; `strips` is the balanced accuracy of
    a classifier that tells strips over borders from strips elsewhere (0.5: guessing), on the half of the image that it
    did not learn from.
    """

    gradient: float
    gradient_p: float
    jump: float
    jump_p: float
    power: float
    power_p: float
    strips: float
    strips_p: float


def seams(
    image: UInt8[np.ndarray, "h w 3"], pitch: int, cell: int = 8, permutations: int = 999, seed: int = 0
) -> Seams:
    """Seams of tiles that are `pitch` px apart along both edges.

    What repeats at `cell` px, a divisor of the pitch, is the grain of the decoder and no seam. Raises InputError for an
    image of fewer than three tiles along an edge.
    """
    if pitch % cell or min(image.shape[:2]) <= _FEWEST * pitch:
        raise InputError(
            f"seams need more than {_FEWEST} tiles along each edge, and a pitch that is a multiple of {cell} "
            f"px; got {image.shape[1]} x {image.shape[0]} px and a pitch of {pitch} px"
        )
    lab = rgb_to_lab(image)
    gradients, jumps = [], []
    for turned in (lab, lab.swapaxes(0, 1)):
        gradients.append(_leveled(np.abs(np.diff(turned[..., 0], axis=1)).mean(0), pitch, cell))
        jumps.append(_leveled(_color_jumps(turned, pitch), pitch, cell))
    rng = np.random.default_rng(seed)
    of_gradient = _tested(gradients, pitch, permutations, rng)
    of_jump = _tested(jumps, pitch, permutations, rng)
    of_power = _power(gradients, pitch, cell, permutations, rng)
    return Seams(*of_gradient, *of_jump, *of_power, *_strips(lab, pitch, cell, permutations, rng))


def _color_jumps(lab: Float[np.ndarray, "h w 3"], pitch: int) -> Float[np.ndarray, " n"]:
    """At each line, the distance of the mean colors of strips on both sides, averaged over rows of tiles."""
    rows = lab[: len(lab) // pitch * pitch].reshape(-1, pitch, *lab.shape[1:]).mean(1)
    sums = np.pad(rows.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    strips = (sums[:, STRIP:] - sums[:, :-STRIP]) / STRIP
    return np.linalg.norm(strips[:, STRIP:] - strips[:, :-STRIP], axis=2).mean(0)


def _leveled(lines: Float[np.ndarray, " n"], pitch: int, cell: int) -> Float[np.ndarray, " m"]:
    """A figure of whole tiles, relative to its mean nearby and to that of its place in a cell."""
    around = np.convolve(np.pad(lines, pitch // 2, mode="reflect"), np.ones(pitch) / pitch, mode="same")
    relative = lines / np.maximum(around[pitch // 2 : pitch // 2 + len(lines)], 1e-9)
    whole = relative[: len(relative) // pitch * pitch].reshape(-1, cell)
    return (whole / np.maximum(whole.mean(0), 1e-9)).ravel()


def _worst(lines: Float[np.ndarray, "b n"], pitch: int) -> Float[np.ndarray, " b"]:
    """How far the offset that stands out most is from one."""
    folded = lines.reshape(len(lines), -1, pitch).mean(1)
    return np.abs(folded - 1).max(1)


def _power(
    axes: list[np.ndarray], pitch: int, cell: int, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Power at the multiples of 1 / pitch, relative to that of frequencies nearby, and the share of random frequencies,
    each near a multiple, that reach it.

    A sharp line has power at every multiple; those that are multiples of 1 / cell are left out.
    """
    found, by_chance = [], []
    for lines in axes:
        spectrum, tiles = np.abs(np.fft.rfft(lines - lines.mean())) ** 2, len(lines) // pitch
        first = tiles - tiles // 2
        bands = spectrum[first : first + (len(spectrum) - first) // tiles * tiles].reshape(-1, tiles)
        bands = bands[np.arange(1, len(bands) + 1) % (pitch // cell) > 0]
        bands = bands / np.maximum(bands.mean(1, keepdims=True), 1e-12)
        found.append(float(bands[:, tiles // 2].mean()))
        drawn = rng.integers(tiles, size=(permutations, len(bands)))
        by_chance.append(bands[np.arange(len(bands)), drawn].mean(1))
    return max(found), _share(np.max(by_chance, axis=0), max(found))


def _strips(
    lab: Float[np.ndarray, "h w 3"], pitch: int, cell: int, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The classifier two-sample test (Lopez-Paz & Oquab 2017) of strips over one offset of the pitch against others.

    Each offset has a classifier, which learns from the strips of one half of the image. That of the offset that it
    tells apart best judges the other half, where p comes from other choices of one strip per tile.
    """
    found, by_chance = [], []
    for turned in (lab, lab.swapaxes(0, 1)):
        features = _strip_features(turned, pitch, cell)
        _, tiles, offsets, _ = features.shape
        learn, judge = np.split(features, [len(features) // 2])
        weights = [_classifier(learn, offset) for offset in range(offsets)]
        accuracies = [_accuracy(learn, mine, np.full((1, tiles), o))[0] for o, mine in enumerate(weights)]
        best = int(np.argmax(accuracies))
        found.append(float(_accuracy(judge, weights[best], np.full((1, tiles), best))[0]))
        by_chance.append(_accuracy(judge, weights[best], rng.integers(offsets, size=(permutations, tiles))))
    return max(found), _share(np.max(by_chance, axis=0), max(found))


def _strip_features(lab: Float[np.ndarray, "h w 3"], pitch: int, cell: int) -> Float[np.ndarray, "r t o f"]:
    """By row of tiles, tile and offset in steps of `cell`: gradients and color jumps near a line along one tile, as
    logarithms, relative to those of its tile."""
    rows = lab[: len(lab) // pitch * pitch].reshape(-1, pitch, *lab.shape[1:])
    steps = np.abs(np.diff(rows[..., 0], axis=2)).mean(1)
    colors = np.pad(rows.mean(1).cumsum(1), ((0, 0), (1, 0), (0, 0)))
    first = -(-STRIP // cell) * cell
    tiles, offsets = (lab.shape[1] - first - STRIP) // pitch, pitch // cell
    lines = first + cell * np.arange(tiles * offsets)
    near = ((0,), (-1, 1), (-3, -2, 2, 3), (-7, -6, -5, -4, 4, 5, 6, 7))  # px from the line
    values = [np.mean([steps[:, lines - 1 + d] for d in at], axis=0) for at in near]
    for reach in (2, 4, STRIP):
        left = (colors[:, lines] - colors[:, lines - reach]) / reach
        right = (colors[:, lines + reach] - colors[:, lines]) / reach
        values.append(np.linalg.norm(right - left, axis=2))
    logs = np.log(np.stack(values, -1) + 0.1).reshape(len(rows), tiles, offsets, -1)
    return logs - logs.mean(2, keepdims=True)


def _classifier(features: Float[np.ndarray, "r t o f"], offset: int) -> Float[np.ndarray, " f2"]:
    """Linear discriminant of one offset from the others, by least squares in which both sides weigh alike."""
    inputs = np.concatenate([features, np.ones_like(features[..., :1])], -1)
    _, _, offsets, width = inputs.shape
    sides = np.where(np.arange(offsets) == offset, 1.0, -1.0)
    weights = np.sqrt(np.where(sides > 0, offsets - 1.0, 1.0))[:, None]
    targets = np.broadcast_to(sides[:, None] * weights, (*inputs.shape[:3], 1))
    return np.linalg.lstsq((inputs * weights).reshape(-1, width), targets.ravel(), rcond=None)[0]


def _accuracy(
    features: Float[np.ndarray, "r t o f"], weights: Float[np.ndarray, " f2"], offsets: Int[np.ndarray, "b t"]
) -> Float[np.ndarray, " b"]:
    """Balanced accuracy where the strips at `offsets`, one per tile, are those over borders."""
    over = (features @ weights[:-1] + weights[-1] > 0).mean(0)
    border = over[np.arange(over.shape[0]), offsets].mean(1)
    rest = (over.sum() / over.shape[0] - border) / (over.shape[1] - 1)
    return (border + 1 - rest) / 2


def _tested(axes: list[np.ndarray], pitch: int, permutations: int, rng: np.random.Generator) -> tuple[float, float]:
    """The larger figure of both axes, and the share of random orders of the lines that reach it."""
    found = max(float(_worst(lines[None], pitch)[0]) for lines in axes)
    orders = [rng.permuted(np.tile(lines, (permutations, 1)), axis=1) for lines in axes]
    return found, _share(np.max([_worst(lines, pitch) for lines in orders], axis=0), found)


def _share(by_chance: Float[np.ndarray, " n"], found: float) -> float:
    return float((1 + (by_chance >= found).sum()) / (1 + len(by_chance)))


@dataclass(frozen=True)
class Border:
    """The mean gradient across the border of a region, over that of its parallels, and their share that is as far off.

    Without a seam, `gradient` is about 1; `p` is small where there is one.
    """

    gradient: float
    p: float


def border(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], reach: int = 16) -> Border:
    """Whether the border of a region that was redrawn shows.

    It is compared with its parallels at 3 to `reach` px on both sides, which are about as long. Raises
    InputError for a region that has fewer than eight parallels.
    """
    lightness = rgb_to_lab(image)[..., 0]
    steps = np.abs(np.diff(lightness, axis=1)), np.abs(np.diff(lightness, axis=0))
    found, parallels = _across(steps, mask), []
    for region in (mask, ~mask):
        grown = region
        for distance in range(1, reach + 1):
            grown = _grown(grown)
            if distance >= 3 and not grown.all():
                parallels.append(_across(steps, grown))
    if len(parallels) < 8 or not np.isfinite(found):
        raise InputError("the region is too small, or too near to the rim of its image, for its border to be judged")
    usual = np.array(parallels)
    middle = float(np.median(usual))
    off = np.abs(np.log(usual / middle)) >= abs(np.log(found / middle))
    return Border(found / middle, float((1 + off.sum()) / (1 + len(usual))))


def _across(steps: tuple[np.ndarray, np.ndarray], mask: Bool[np.ndarray, "h w"]) -> float:
    """The mean step between neighbors of which one is in the mask."""
    values = [step[np.diff(mask, axis=axis)] for step, axis in zip(steps, (1, 0), strict=True)]
    joined = np.concatenate(values)
    return float(joined.mean()) if joined.size else float("nan")


def _grown(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask and the neighbors of its pixels."""
    padded = np.pad(mask, 1)
    return mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
