"""The landscapes of which layouts are made: one hill per gland, rolling ground for a tumor field, ridges for villi.

Sizes and shares in `STYLES` were fitted to the 1,640 colorectal training maps of EBHI-Seg; no map of it is in the
package.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


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


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> Float[np.ndarray, "h w"]:
    """White noise under a Gaussian of `sigma` pixels, with mean about 0 and variance about 1."""
    return _filtered_noise(
        rng, size, int(4 * sigma) + 1, lambda fy, fx: np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    )


def blurred(mask: Bool[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    """The mask under a Gaussian of `sigma` pixels, edges repeated."""
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    blurred = mask.astype(np.float32)
    for _ in range(2):  # once along each axis
        padded = np.pad(blurred, ((radius, radius), (0, 0)), mode="edge")
        nothing = np.zeros((len(mask), padded.shape[1]), np.float32)
        blurred = sum((w * padded[i : i + len(mask)] for i, w in enumerate(kernel / kernel.sum())), nothing).T
    return blurred


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
