"""Semantic maps drawn by a procedure, so that weaving needs no patient's map.

A style raises a landscape over the patch. The water level is then set so that the wanted share stands out of it.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, TissueError
from histoloom.generation.settings import check_band
from histoloom.generation.styles import STYLES, STYLES_OF_TISSUE, Terrain, blurred, smooth_noise
from histoloom.patches.heterogeneity import class_fractions, is_heterogeneous
from histoloom.tissue import TissueTable, TissueType

MARGIN = 0.02  # of the patch, by which shares are drawn inside of the band, for rounding
MIN_SHARE = 0.03  # a type that was asked for must be seen
MAX_REDRAWS = 50
REDRAWS = 8  # of a layout whose shares are given
CLOSE = 0.01  # of the patch, from the shares that are given
LEVELS = 4  # of water that are tried for a share
MIN_SIZE = 64  # pixels; below it no gland fits


@dataclass(frozen=True, kw_only=True)
class LayoutConfig:
    """What to draw. `styles` pairs names of tissue types with names of `STYLES`, and overrides `STYLES_OF_TISSUE`."""

    mpp: float = 1.5  # micrometers per pixel of the maps
    background: str = ""  # tissue type between the others; empty: see `background_of`
    two_types: float = 0.25  # share of layouts with two types on the background instead of one
    styles: tuple[tuple[str, str], ...] = ()  # such as (("tumor", "field"), ("gland", "crypts"))
    band: tuple[float, float] = (0.2, 0.8)  # the most common type covers at least and at most these shares
    lumens: tuple[float, float] = (0.02, 0.1)  # least and most share of the other types that is lumen, where a type is

    def __post_init__(self):
        check_numbers(self)
        if not 0.1 <= self.mpp <= 20:
            raise ConfigError(f"layout mpp is {self.mpp}; give 0.1 to 20 micrometers per pixel")
        if not 0 <= self.two_types <= 1:
            raise ConfigError(f"two_types is {self.two_types}; give a share from 0 to 1")
        check_band(self.band)
        if not 0 <= self.lumens[0] <= self.lumens[1] <= 0.5:
            raise ConfigError(f"lumens is {self.lumens[0]:g} to {self.lumens[1]:g}; give two shares from 0 to 0.5")
        for tissue, style in self.styles:
            if style not in STYLES:
                raise ConfigError(f"tissue {tissue!r} has style {style!r}; known: {', '.join(STYLES)}")


# Types that surround others, by name or alias, and words in the names of types that others surround or that they hold.
_GROUNDS = ("stroma", "connective tissue", "lamina propria", "submucosa", "background", "normal", "other")
_BODIES = re.compile("gland|crypt|polyp|tumou?r|cancer|carcinoma|adenoma|neoplas|metasta|in situ|nest|vessel|lymphoid")
_CAVITIES = re.compile("lumen")


class Layouts:
    """Square maps of `size` pixels, by number, each the background and one or two other types within the 20-80 % rule.

    Lumens, a type of that name, are drawn within the others; `config.lumens` gives the range of their share.
    Layout i depends on (config, table, seed, size, i) alone; K layouts show all K types besides these two. Raises
    ConfigError for a table of one type or a size too small to hold a gland, TissueError where the config names a type
    that the table does not know.
    """

    def __init__(self, config: LayoutConfig, table: TissueTable, seed: int, size: int):
        if len(table.types) < 2:
            raise ConfigError(f"the tissue table has only {table.names[0]!r}; a layout needs at least two types")
        if seed < 0:
            raise ConfigError(f"seed is {seed}; give 0 or more")
        if size < MIN_SIZE:
            raise ConfigError(f"layouts of {size} pixels are too small; give at least {MIN_SIZE}")
        self.config, self.seed, self.size = config, seed, size
        self.background = table.find(config.background) if config.background else background_of(table)
        inner = [tissue for tissue in table.types if _CAVITIES.search(tissue.name.lower())]
        self.lumen = inner[0] if inner and inner[0] != self.background and len(table.types) > 2 else None
        self.others = [tissue for tissue in table.types if tissue not in (self.background, self.lumen)]
        self._styles = _styles_by_id(config, table)

    def draw(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Layout `index`; raises ConfigError where no draw keeps the rule."""
        key = self.seed, index
        layout = _draw_one(self.config, self.background, self.others, self._styles, key, self.size)
        if self.lumen is None:
            return layout
        return self._hollow(layout, self.lumen.id, np.random.default_rng((self.seed, 3, index)))

    def _hollow(
        self, layout: UInt8[np.ndarray, "h w"], lumen: int, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "h w"]:
        """The layout with lumens in all types but the background: one in the middle of a gland, several in a field."""
        body = layout != self.background.id
        width = 100.0 / self.config.mpp  # px of a gland
        depth = blurred(body, 0.18 * width)
        score = np.where(depth > 0.75, depth + 0.2 * smooth_noise(rng, self.size, 0.1 * width), -np.inf)
        share = rng.uniform(*self.config.lumens) * body.mean()
        if not share:
            return layout
        holes = _ragged(smooth_noise(rng, self.size, 1.5), _flooded(score, share), 0.03 * width)
        return np.where(holes & body, np.uint8(lumen), layout)

    def compose(self, index: int, shares: dict[int, float]) -> UInt8[np.ndarray, "h w"]:
        """Layout `index` with one or two types, which cover `shares` of the patch, on the background.

        Of up to REDRAWS layouts, the one that is nearest to the shares.
        """
        rng = np.random.default_rng((self.seed, 2, index))
        best, least = None, np.inf
        for _ in range(REDRAWS):
            layout = np.full((self.size, self.size), self.background.id, np.uint8)
            styles = [self._styles[tissue] for tissue in shares]
            for tissue, mask in zip(
                shares, _masks(rng, styles, self.size, self.config, list(shares.values())), strict=True
            ):
                layout[mask] = tissue
            fractions = class_fractions(layout, 256)
            off = max(abs(fractions[tissue] - share) for tissue, share in shares.items())
            is_mixed = is_heterogeneous(fractions[None], *self.config.band)[0]
            if off + (not is_mixed) < least:
                best, least = layout, off + (not is_mixed)
            if least <= CLOSE:
                break
        assert best is not None
        return best


def draw_layouts(
    config: LayoutConfig, table: TissueTable, count: int, seed: int, size: int
) -> UInt8[np.ndarray, "n h w"]:
    """The first `count` of `Layouts`, as one array; raises what it raises."""
    if count < 0:
        raise ConfigError(f"count is {count}; give 0 or more layouts")
    layouts = Layouts(config, table, seed, size)
    return np.stack([layouts.draw(i) for i in range(count)]) if count else np.zeros((0, size, size), np.uint8)


def background_of(table: TissueTable) -> TissueType:
    """The type that most likely surrounds the others: one named as such, else the first that is not named as a body."""
    for name in _GROUNDS:
        with contextlib.suppress(TissueError):
            return table.find(name)
    return next((tissue for tissue in table.types if not _BODIES.search(tissue.name.lower())), table.types[0])


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
        for mask, tissue in zip(_masks(rng, [styles[t.id] for t in chosen], size, config), chosen, strict=True):
            layout[mask] = tissue.id
        shares = class_fractions(layout, 256)
        if is_heterogeneous(shares[None], *config.band)[0] and all(
            shares[tissue.id] >= MIN_SHARE for tissue in (background, *chosen)
        ):
            return layout
    low, high = config.band
    raise ConfigError(
        f"no layout of {size} pixels at {config.mpp} um/px keeps the {low:.0%} to {high:.0%} rule; give another size, "
        "mpp or band"
    )


def _masks(
    rng: np.random.Generator,
    styles: list[tuple[str, ...]],
    size: int,
    config: LayoutConfig,
    wanted: Sequence[float] | None = None,
) -> list[Bool[np.ndarray, "h w"]]:
    """One mask per type; with two types a wavy front divides the patch, and each keeps to its side of it.

    Each covers the `wanted` share of the patch, as nearly as its style allows, or else a share that its style draws.
    """
    fronts = [np.full((size, size), np.inf)]
    if len(styles) == 2:
        front = wavy_front(rng, size)
        if wanted is not None:  # a side as large as its type needs
            front = front - np.quantile(front, wanted[1] / sum(wanted))
        fronts = [front, -front]
    taken = np.zeros((size, size), bool)
    masks = []
    for number, (names, front) in enumerate(zip(styles, fronts, strict=True)):
        style = STYLES[names[rng.integers(len(names))]]
        width = style.width / config.mpp * np.exp(style.width_spread * rng.standard_normal())
        drawn = style.share + style.share_spread * rng.standard_normal()
        side = (front > 0).mean()
        share = wanted[number] / side if wanted else drawn
        share = float(np.clip(share, 1 - config.band[1] + MARGIN, config.band[1] - MARGIN))
        height = style.procedure(rng, Terrain(size, front), width, share)
        height[taken] = -np.inf
        grain, sigma = smooth_noise(rng, size, 1.5), 0.05 * width
        mask = _ragged(grain, _flooded(height, share * side), sigma)
        if wanted:
            mask = _as_large_as(wanted[number], grain, height, sigma)
        masks.append(mask & ~taken)
        taken |= blurred(mask, 3.0) > 0.1  # some background stays between two types
    return masks


def _as_large_as(
    share: float, grain: Float[np.ndarray, "h w"], height: Float[np.ndarray, "h w"], sigma: float
) -> Bool[np.ndarray, "h w"]:
    """The mask of a landscape that covers `share` of the patch after its edges were made ragged."""
    level = share
    for _ in range(LEVELS):
        mask = _ragged(grain, _flooded(height, level), sigma)
        level = float(np.clip(level + share - mask.mean(), 0.0, 1.0))
    return mask


def _flooded(height: Float[np.ndarray, "h w"], share: float) -> Bool[np.ndarray, "h w"]:
    """True where the landscape stands out of water that covers all but `share` of the patch; never at -inf."""
    level = np.quantile(height, 1 - share, method="higher")
    return (height >= level) & np.isfinite(height)


def _ragged(grain: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], sigma: float) -> Bool[np.ndarray, "h w"]:
    """Round corners by `sigma` pixels and roughen edges by about one, as hands draw them; flat parts stay flat."""
    return blurred(mask, sigma) + 0.3 / sigma * grain.clip(-3, 3) > 0.5


def wavy_front(rng: np.random.Generator, size: int) -> Float[np.ndarray, "h w"]:
    """Signed distance in pixels from a wavy line through the middle half of the patch."""
    y, x = np.mgrid[:size, :size] - rng.uniform(0.35, 0.65, (2, 1, 1)) * size
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * y + np.sin(angle) * x + 0.08 * size * smooth_noise(rng, size, 0.15 * size)
