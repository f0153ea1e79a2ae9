"""CIE Lab colors of sRGB images.

CIE 1976 under D65, 2 degrees, from sRGB (IEC 61966-2-1): L in 0..100, a and b about -100..100. A test checks these few
lines against scikit-image, so that evaluating does not need scikit-image.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from histoloom.errors import InputError

SRGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
_BYTE = np.arange(256) / 255
_LINEAR = np.where(_BYTE > 0.04045, ((_BYTE + 0.055) / 1.055) ** 2.4, _BYTE / 12.92)


def rgb_to_lab(image: UInt8[np.ndarray, "*b h w 3"]) -> Float[np.ndarray, "*b h w 3"]:
    """CIE Lab of sRGB bytes (D65, 2 degrees)."""
    xyz = _LINEAR[image] @ (SRGB_TO_XYZ / WHITE_D65[:, None]).T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def mean_lab(
    image: UInt8[np.ndarray, "h w 3"], region: Bool[np.ndarray, "h w"] | None = None
) -> Float[np.ndarray, " 3"]:
    """Mean Lab color of the image, or of the pixels where `region` is true; raises InputError for an empty region."""
    if region is None:
        return rgb_to_lab(image).mean(axis=(0, 1))
    if not region.any():
        raise InputError("the region to be measured is empty; leave out crops whose type the map does not show")
    return rgb_to_lab(image[region][None])[0].mean(axis=0)
