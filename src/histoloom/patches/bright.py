"""Lumens and glass on an image: the areas that light passes unhindered."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from histoloom.config import check_numbers
from histoloom.errors import ConfigError

USUAL_MPP = 1.5  # micrometers per pixel where they are unknown
_CROSS = ndimage.generate_binary_structure(2, 1)
_SMOOTHING = 1.2  # micrometers
_SMALLEST = 54.0  # square micrometers


@dataclass(frozen=True, kw_only=True)
class LumenRules:
    """Which areas are lumen or glass."""

    name: str = "lumen or glass"  # of their type; a type that the dataset has is extended
    color: str = "#d0d0d0"
    brightness: float = 0.8  # least luminance, as a share of the brightest of the case
    contrast: float = 45.0  # least gray levels from the tissue of a patch to the brightest of its case

    def __post_init__(self):
        check_numbers(self)
        if not 0.3 <= self.brightness <= 0.99 or not 0 <= self.contrast <= 255:
            raise ConfigError(
                f"brightness is {self.brightness:g} and contrast {self.contrast:g}; give 0.3 to 0.99, and 0 to 255"
            )


def white_level(image: UInt8[np.ndarray, "h w 3"], mpp: float = USUAL_MPP) -> float:
    """Gray level of the brightest parts of an image, which is that of glass where it shows some."""
    return float(np.percentile(_luminance(image, mpp), 99.7))


class Light(NamedTuple):
    """How bright a case is, in gray levels: its glass, and the image that is darkest in the middle of its pixels."""

    white: float
    dark: float = 0.0


def light_of_cases(shown: Iterable[tuple[str, UInt8[np.ndarray, "h w 3"], float]]) -> dict[str, Light]:
    """By case, the highest `white_level` and the lowest median of its images; items are (case, image, mpp)."""
    light: dict[str, Light] = {}
    for case, image, mpp in shown:
        before = light.get(case, Light(0.0, 255.0))
        dark = float(np.median(_luminance(image, mpp)))
        light[case] = Light(max(white_level(image, mpp), before.white), min(dark, before.dark))
    return light


def bright_areas(
    image: UInt8[np.ndarray, "h w 3"], light: Light, mpp: float = USUAL_MPP, rules: LumenRules | None = None
) -> Bool[np.ndarray, "h w"]:
    """True in lumens and on glass: bright areas of at least 54 um2, as seen against the glass of the case.

    An image whose tissue is hardly darker than `light.white` shows none: there it is the gray level of pale tissue. An
    image without tissue is glass where its case has darker ones.
    """
    rules, white = rules or LumenRules(), light.white
    luminance = _luminance(image, mpp)
    tissue = luminance[luminance < rules.brightness * white]
    if not len(tissue):
        return np.full(luminance.shape, white - light.dark >= rules.contrast)
    usual = float(np.median(tissue))
    if white - usual < rules.contrast:
        return np.zeros(luminance.shape, bool)
    reach = max(1, round(USUAL_MPP / mpp))
    bright = luminance > max(rules.brightness * white, (usual + white) / 2)
    bright = np.asarray(ndimage.binary_opening(bright, _CROSS, iterations=reach), bool)
    labels = np.zeros(bright.shape, np.int32)
    ndimage.label(bright, output=labels)
    sizes = np.bincount(labels.ravel())
    bright &= (sizes >= _SMALLEST / mpp**2)[labels]
    return ndimage.binary_closing(bright, _CROSS, iterations=reach) | bright


def _luminance(image: UInt8[np.ndarray, "h w 3"], mpp: float) -> Float[np.ndarray, "h w"]:
    """Mean of red and green, smoothed: blue hardly tells hematoxylin from glass."""
    return ndimage.gaussian_filter(image[..., :2].mean(2, dtype=np.float32), _SMOOTHING / mpp)
