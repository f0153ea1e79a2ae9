"""Semantic maps drawn by a procedure, so that weaving needs no patient's map.

A procedure raises a landscape over the patch: one hill per gland, rolling ground for a tumor field, ridges for villi.
The water level is then set so that the wanted share stands out of it. Sizes and shares in `STYLES` were fitted to the
1,640 colorectal training maps of EBHI-Seg; no map of it is in the package.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, TissueError
from histoloom.patches.heterogeneity import class_fractions, is_heterogeneous
from histoloom.tissue import TissueTable, TissueType

SHARE_RANGE = (0.22, 0.78)  # of the patch, all types but the background: inside the 20-80 % rule with room for rounding
MIN_SHARE = 0.03  # a type that was asked for must be seen
MAX_REDRAWS = 50
MIN_SIZE = 64  # pixels; below it no gland fits


@dataclass(frozen=True, kw_only=True)
class LayoutConfig:
    """What to draw. `styles` pairs names of tissue types with names of `STYLES`, and overrides `STYLES_OF_TISSUE`."""

    mpp: float = 1.5  # micrometers per pixel of the maps
    background: str = ""  # tissue type between the others; empty: see `background_of`
    two_types: float = 0.25  # share of layouts with two types on the background instead of one
    styles: tuple[tuple[str, str], ...] = ()  # such as (("tumor", "field"), ("gland", "crypts"))

    def __post_init__(self):
        check_numbers(self)
        if not 0.1 <= self.mpp <= 20:
            raise ConfigError(f"layout mpp is {self.mpp}; give 0.1 to 20 micrometers per pixel")
        if not 0 <= self.two_types <= 1:
            raise ConfigError(f"two_types is {self.two_types}; give a share from 0 to 1")
        for tissue, style in self.styles:
            if style not in STYLES:
                raise ConfigError(f"tissue {tissue!r} has style {style!r}; known: {', '.join(STYLES)}")


@dataclass(frozen=True, eq=False)
class Terrain:
    """Where a procedure may draw: a square of `size` pixels where `front` > 0 (pixels from the front)."""

    size: int
    front: Float[np.ndarray, "h w"]


def crypts(rng: np.random.Generator, terrain: Terrain, width: float, share: float) -> Float[np.ndarray, "h w"]:
    """Hills of diameter `width` pixels on a jittered hexagonal grid, stretched and bent; a valley separates any two.

    The pitch follows from the share: circles of diameter D at hexagonal pitch P cover 0.907 (D/P)^2. Glands cut along
    their axis are much longer and a little narrower than those cut across it.
    """
    slender = rng.uniform(0.5, 0.95) if rng.random() < 0.85 else rng.uniform(0.16, 0.35)  # minor / major axis
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    axes = turn * [[slender**0.7], [slender**-0.3]]
    places = np.stack(_bent_grid(rng, terrain.size, 0.5 * width, 0.12 * width), -1) @ axes.T
    best = np.full((terrain.size, terrain.size), -np.inf)
    second = best.copy()
    for center in _jittered_centers(rng, places, width * np.sqrt(0.907 / share)):
        radius = width / 2 * np.exp(0.17 * rng.standard_normal())
        if _front_at(terrain, np.linalg.solve(axes, center)) <= width / 4:
            continue
        height = radius - np.hypot(*(places - center).transpose(2, 0, 1))
        second = np.maximum(second, np.minimum(best, height))
        best = np.maximum(best, height)
    outside = (best - second < 0.15 * width) | (best < -0.15 * width)  # glands neither touch nor outgrow their kind
    return np.where(outside, -np.inf, best)


def field(rng: np.random.Generator, terrain: Terrain, width: float, share: float) -> Float[np.ndarray, "h w"]:
    """Rolling ground: solid masses with ragged edges, separated by septa that are connected.

    Three octaves of noise. Its absolute value is low along the zero lines, which run through the patch, so the water is
    connected, as stroma is, and the land is not; the offset decides how much.
    """
    octaves = ((1.0, 1.0), (0.35, 0.3), (0.12, 0.08))  # (length, height)
    rolling = sum(weight * smooth_noise(rng, terrain.size, length * width / 3) for length, weight in octaves)
    return np.where(terrain.front > 0, np.abs(rolling + rng.uniform(0, 0.8)), -np.inf)


def branches(rng: np.random.Generator, terrain: Terrain, width: float, share: float) -> Float[np.ndarray, "h w"]:
    """Ridges `width` pixels wide that run side by side, bend, fork and end: noise of one wavelength."""
    wavelength, angle, spread = width / share, rng.uniform(0, np.pi), rng.uniform(0.25, 0.6)

    def transfer(fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
        across = np.abs(np.sin(np.arctan2(fy, fx) - angle))
        return np.exp(-(((np.hypot(fy, fx) * wavelength - 1) / 0.25) ** 2) / 2 - (across / spread) ** 2 / 2)

    ridges = _filtered_noise(rng, terrain.size, int(2 * wavelength), transfer)
    height = ridges + 0.25 * smooth_noise(rng, terrain.size, width / 6)
    return np.where(terrain.front > 0, height, -np.inf)


Procedure = Callable[[np.random.Generator, Terrain, float, float], np.ndarray]


@dataclass(frozen=True)
class Style:
    """How one kind of tissue looks in a section."""

    procedure: Procedure
    width: float  # median diameter of a gland, width of a branch, size of a mass, in micrometers
    width_spread: float  # standard deviation of its logarithm
    share: float  # mean share of the patch
    share_spread: float  # its standard deviation


STYLES = {
    "crypts": Style(crypts, 98.0, 0.15, 0.57, 0.09),
    "glands": Style(crypts, 135.0, 0.30, 0.65, 0.10),
    "wide glands": Style(crypts, 170.0, 0.30, 0.64, 0.08),
    "villi": Style(branches, 75.0, 0.30, 0.69, 0.10),
    "field": Style(field, 155.0, 0.40, 0.63, 0.15),
}
# A type that neither this table nor a config names takes any style, drawn for each layout.
STYLES_OF_TISSUE = {
    "normal gland": ("crypts",),
    "polyp": ("crypts",),
    "low-grade neoplasia": ("glands", "glands", "glands", "villi"),
    "high-grade neoplasia": ("wide glands", "villi", "villi", "field"),
    "adenocarcinoma": ("field", "field", "field", "villi"),
    "serrated adenoma": ("wide glands",),
}


# Types that surround others, by name or alias, and words in the names of types that others surround.
_GROUNDS = ("stroma", "connective tissue", "lamina propria", "submucosa", "background", "normal", "other")
_BODIES = re.compile("gland|crypt|polyp|tumou?r|cancer|carcinoma|adenoma|neoplas|metasta|in situ|nest|vessel|lymphoid")


class Layouts:
    """Square maps of `size` pixels, by number, each the background and one or two other types within the 20-80 % rule.

    Layout i depends on (config, table, seed, size, i) alone; K layouts show all K types besides the background. Raises
    ConfigError for a table of one type or a size too small to hold a gland, TissueError where the config names a type
    that the table does not know.
    """

    def __init__(self, config: LayoutConfig, table: TissueTable, seed: int, size: int):
        if len(table.types) < 2:
            raise ConfigError(f"the tissue table has only {table.names[0]!r}; a layout needs at least two types")
        if size < MIN_SIZE:
            raise ConfigError(f"layouts of {size} pixels are too small; give at least {MIN_SIZE}")
        self.config, self.seed, self.size = config, seed, size
        self.background = table.find(config.background) if config.background else background_of(table)
        self.others = [tissue for tissue in table.types if tissue != self.background]
        self._styles = _styles_by_id(config, table)

    def draw(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Layout `index`; raises ConfigError where no draw keeps the rule."""
        return _draw_one(self.config, self.background, self.others, self._styles, (self.seed, index), self.size)


def draw_layouts(
    config: LayoutConfig, table: TissueTable, count: int, seed: int, size: int
) -> UInt8[np.ndarray, "n h w"]:
    """The first `count` of `Layouts`, as one array; raises what it raises."""
    layouts = Layouts(config, table, seed, size)
    return np.stack([layouts.draw(i) for i in range(count)]) if count else np.zeros((0, size, size), np.uint8)


def background_of(table: TissueTable) -> TissueType:
    """The type that most likely surrounds the others: one named as such, else the first that is not named as a body."""
    for name in _GROUNDS:
        with contextlib.suppress(TissueError):
            return table.find(name)
    return next((tissue for tissue in table.types if not _BODIES.search(tissue.name.lower())), table.types[0])


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> Float[np.ndarray, "h w"]:
    """White noise under a Gaussian of `sigma` pixels, with mean about 0 and variance about 1."""
    return _filtered_noise(
        rng, size, int(4 * sigma) + 1, lambda fy, fx: np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    )


def _styles_by_id(config: LayoutConfig, table: TissueTable) -> dict[int, tuple[str, ...]]:
    styles = {tissue.id: STYLES_OF_TISSUE.get(tissue.name.lower(), tuple(STYLES)) for tissue in table.types}
    return styles | {table.find(name).id: (style,) for name, style in config.styles}


def _draw_one(
    config: LayoutConfig,
    background: TissueType,
    others: list[TissueType],
    styles: dict[int, tuple[str, ...]],
    key: tuple[int, int],
    size: int,
) -> UInt8[np.ndarray, "h w"]:
    seed, index = key
    deck = np.random.default_rng((seed, 0, index // len(others))).permutation(len(others))
    first = others[deck[index % len(others)]]
    rng = np.random.default_rng((seed, 1, index))
    for _ in range(MAX_REDRAWS):
        chosen = [first]
        if len(others) > 1 and rng.random() < config.two_types:
            chosen.append(others[rng.choice([i for i, tissue in enumerate(others) if tissue != first])])
        layout = np.full((size, size), background.id, np.uint8)
        for mask, tissue in zip(_masks(rng, [styles[t.id] for t in chosen], size, config.mpp), chosen, strict=True):
            layout[mask] = tissue.id
        shares = class_fractions(layout, 256)
        if is_heterogeneous(shares[None])[0] and all(
            shares[tissue.id] >= MIN_SHARE for tissue in (background, *chosen)
        ):
            return layout
    raise ConfigError(
        f"no layout of {size} pixels at {config.mpp} um/px keeps the 20-80 % rule; give another size or mpp"
    )


def _masks(
    rng: np.random.Generator, styles: list[tuple[str, ...]], size: int, mpp: float
) -> list[Bool[np.ndarray, "h w"]]:
    """One mask per type; with two types a wavy front divides the patch, and each keeps to its side of it."""
    fronts = [np.full((size, size), np.inf)]
    if len(styles) == 2:
        front = _front(rng, size)
        fronts = [front, -front]
    taken = np.zeros((size, size), bool)
    masks = []
    for names, front in zip(styles, fronts, strict=True):
        style = STYLES[names[rng.integers(len(names))]]
        width = style.width / mpp * np.exp(style.width_spread * rng.standard_normal())
        share = np.clip(style.share + style.share_spread * rng.standard_normal(), *SHARE_RANGE)
        height = style.procedure(rng, Terrain(size, front), width, share)
        height[taken] = -np.inf
        mask = _ragged(rng, _flooded(height, share * (front > 0).mean()), sigma=0.05 * width)
        masks.append(mask & ~taken)
        taken |= _blurred(mask, 3.0) > 0.1  # some background stays between two types
    return masks


def _flooded(height: Float[np.ndarray, "h w"], share: float) -> Bool[np.ndarray, "h w"]:
    """True where the landscape stands out of water that covers all but `share` of the patch; never at -inf."""
    level = np.quantile(height, 1 - share, method="higher")
    return (height >= level) & np.isfinite(height)


def _ragged(rng: np.random.Generator, mask: Bool[np.ndarray, "h w"], sigma: float) -> Bool[np.ndarray, "h w"]:
    """Round corners by `sigma` pixels and roughen edges by about one, as hands draw them; flat parts stay flat."""
    return _blurred(mask, sigma) + 0.3 / sigma * smooth_noise(rng, len(mask), 1.5).clip(-3, 3) > 0.5


def _front(rng: np.random.Generator, size: int) -> Float[np.ndarray, "h w"]:
    """Signed distance in pixels from a wavy line through the middle half of the patch."""
    y, x = np.mgrid[:size, :size] - rng.uniform(0.35, 0.65, (2, 1, 1)) * size
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * y + np.sin(angle) * x + 0.08 * size * smooth_noise(rng, size, 0.15 * size)


def _front_at(terrain: Terrain, place: Float[np.ndarray, "2"]) -> float:
    y, x = np.clip(np.rint(place), 0, terrain.size - 1).astype(int)
    return float(terrain.front[y, x])


def _bent_grid(
    rng: np.random.Generator, size: int, sigma: float, amplitude: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    y, x = np.mgrid[:size, :size].astype(float)
    return y + amplitude * smooth_noise(rng, size, sigma), x + amplitude * smooth_noise(rng, size, sigma)


def _jittered_centers(
    rng: np.random.Generator, places: Float[np.ndarray, "h w 2"], pitch: float
) -> Float[np.ndarray, "n 2"]:
    """Hexagonal grid of `pitch` over the box of `places` and a pitch beyond, each center moved by up to 0.28 of it."""
    low, high = places.min((0, 1)) - pitch, places.max((0, 1)) + pitch
    rows = np.arange(low[0], high[0], pitch * np.sqrt(3) / 2)
    columns = np.arange(low[1], high[1], pitch)
    centers = [(row, column + pitch / 2 * (i % 2)) for i, row in enumerate(rows) for column in columns]
    offset = rng.uniform(0, pitch, 2)
    return np.asarray(centers) - offset / 2 + rng.uniform(-0.28, 0.28, (len(centers), 2)) * pitch


def _filtered_noise(
    rng: np.random.Generator, size: int, margin: int, transfer: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Float[np.ndarray, "h w"]:
    """White noise through a filter over frequency; `margin` keeps the far edge of the FFT's torus out of the patch."""
    side = size + margin
    frequency = np.fft.fftfreq(side)
    gain = transfer(frequency[:, None], frequency[None])
    gain[0, 0] = 0
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * gain).real
    return noise[:size, :size] / np.sqrt((gain**2).mean())


def _blurred(mask: Bool[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    """The mask under a Gaussian of `sigma` pixels, edges repeated."""
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    blurred = mask.astype(np.float32)
    for _ in range(2):  # once along each axis
        padded = np.pad(blurred, ((radius, radius), (0, 0)), mode="edge")
        nothing = np.zeros((len(mask), padded.shape[1]), np.float32)
        blurred = sum((w * padded[i : i + len(mask)] for i, w in enumerate(kernel / kernel.sum())), nothing).T
    return blurred
