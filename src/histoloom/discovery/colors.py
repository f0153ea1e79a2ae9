"""Colors for many nested types: related types have neighboring hues, and no two types share a color.

Types are placed around the hue circle in the order of their tree; neighbors also differ in lightness and chroma. Hues
are those of OKLCh (Ottosson 2020), in which equal steps look equal.
"""

import numpy as np
from jaxtyping import Float, Int

# Lightness and chroma of consecutive neighbors: large steps first, so that adjacent types are easy to tell apart.
TIERS = ((0.62, 0.15), (0.82, 0.10), (0.45, 0.10), (0.72, 0.07), (0.55, 0.05), (0.88, 0.05), (0.38, 0.06), (0.75, 0.13))
FIRST_HUE = 10.0  # degrees; pink, the color of stroma


def nested_colors(ancestors: Int[np.ndarray, "l k"]) -> list[list[str]]:
    """Colors as #rrggbb for each level and type; `ancestors` holds the type at each level of each finest type."""
    order = np.lexsort(ancestors[::-1])
    place = np.empty(len(order))
    place[order] = (np.arange(len(order)) + 0.5) / len(order)
    return [_level_colors(types, place) for types in ancestors]


def _level_colors(types: Int[np.ndarray, " k"], place: Float[np.ndarray, " k"]) -> list[str]:
    counts = np.maximum(np.bincount(types), 1)
    middle = np.bincount(types, weights=place) / counts
    rank = np.argsort(np.argsort(middle, kind="stable"))
    tiers = np.asarray(TIERS)[rank % min(len(TIERS), max(2, len(counts) // 6))]
    rgb = oklch_to_srgb(np.column_stack([tiers, FIRST_HUE + 360 * middle]))
    return ["#" + bytes(color).hex() for color in rgb.tolist()]


def oklch_to_srgb(colors: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
    """Lightness 0..1, chroma, hue in degrees -> sRGB 0..255, clipped to the gamut."""
    lightness, chroma, hue = colors.T
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        -1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.int64)
