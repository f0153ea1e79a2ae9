"""Where tissue is on a slide, and whether it is in focus.

Glass is bright and gray; tissue is either dark or colored. Both differ from glass by Otsu's threshold on a
thumbnail, held within bounds that keep an empty slide empty and a slide without glass whole.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.slides.reader import Slide

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# Otsu's threshold is clipped to these, so that it never splits noise of the glass or stain of the tissue.
_SATURATION_BOUNDS = (0.07, 0.25)  # chroma / 255: pale eosin has 0.1, tinted glass below 0.05
_DENSITY_BOUNDS = (0.12, 0.35)  # -ln of brightness over that of glass
_FOCUS_NOISE = 4.0  # gray levels squared: below this, variance is noise of camera and codec


@dataclass(frozen=True)
class TissueRules:
    """How tissue is found on a thumbnail."""

    mpp: float = 8.0  # micrometers per pixel of the thumbnail
    smallest: float = 10_000.0  # square micrometers; smaller specks are dust
    hole: float = 10_000.0  # square micrometers; smaller holes (lumen, fat) are filled

    def __post_init__(self):
        check_numbers(self)
        if not 0.5 <= self.mpp <= 64:
            raise ConfigError(f"tissue mpp {self.mpp} must be in [0.5, 64]")
        if self.smallest < 0 or self.hole < 0:
            raise ConfigError(f"smallest {self.smallest} and hole {self.hole} are areas and cannot be negative")


@dataclass(frozen=True, eq=False)
class TissueMap:
    """The tissue of a slide: `mask`, a pixel per `step` level-0 pixels, its integral image, and what it was seen on."""

    mask: Bool[np.ndarray, "h w"]
    step: float
    integral: Int[np.ndarray, "h+1 w+1"]
    thumbnail: UInt8[np.ndarray, "h w 3"] | None = None

    def fraction(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
        """Share of tissue in boxes (left, top, right, bottom) of level-0 pixels; off the slide there is none."""
        edges = boxes / self.step
        area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
        left, top, right, bottom = edges.T
        covered = self._sum(right, bottom) - self._sum(left, bottom) - self._sum(right, top) + self._sum(left, top)
        return np.clip(covered / area, 0, 1)

    def _sum(self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Tissue above and left of (x, y), in pixels; between pixels the integral image is bilinear, hence exact."""
        height, width = self.mask.shape
        x, y = np.clip(x, 0, width), np.clip(y, 0, height)
        column, row = np.minimum(x.astype(np.int64), width - 1), np.minimum(y.astype(np.int64), height - 1)
        a, b = x - column, y - row
        upper = (1 - a) * self.integral[row, column] + a * self.integral[row, column + 1]
        lower = (1 - a) * self.integral[row + 1, column] + a * self.integral[row + 1, column + 1]
        return (1 - b) * upper + b * lower


def find_tissue(slide: Slide, rules: TissueRules | None = None) -> TissueMap:
    """Tissue on a thumbnail of the slide. Raises SlideError where the file is damaged."""
    rules = rules or TissueRules()
    mpp = max(rules.mpp, slide.mpp)
    thumbnail = slide.thumbnail(mpp)
    return tissue_map(tissue_mask(thumbnail, mpp, rules), mpp / slide.mpp, thumbnail)


def tissue_map(
    mask: Bool[np.ndarray, "h w"], step: float, thumbnail: UInt8[np.ndarray, "h w 3"] | None = None
) -> TissueMap:
    """A mask, one pixel per `step` level-0 pixels, ready to be asked for fractions."""
    integral = np.pad(np.cumsum(np.cumsum(mask, 0, dtype=np.int64), 1), ((1, 0), (1, 0)))
    return TissueMap(mask, step, integral, thumbnail)


def tissue_mask(
    thumbnail: UInt8[np.ndarray, "h w 3"], mpp: float, rules: TissueRules | None = None
) -> Bool[np.ndarray, "h w"]:
    """True on tissue; `mpp` is that of the thumbnail. All False on empty glass."""
    rules = rules or TissueRules()
    smooth = ndimage.gaussian_filter(thumbnail.astype(np.float32), (1, 1, 0))
    brightness = smooth @ _LUMA
    glass = max(float(np.percentile(brightness, 99)), 1.0)
    # Neither the border of the scan nor a black marker is stained: below a tenth of the light nothing is transmitted.
    opaque = brightness < 0.1 * glass
    red, green, blue = np.moveaxis(smooth, -1, 0)  # pairwise: five times as fast as over an axis of three
    largest, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = (largest - least) / 255
    density = -np.log(np.maximum(brightness, 1) / glass)
    colored = chroma > _otsu(chroma[~opaque], _SATURATION_BOUNDS)
    dark = density > _otsu(density[~opaque], _DENSITY_BOUNDS)
    # Dark alone may be the edge of a coverslip or a shadow: it counts where there is half the color of tissue.
    mask = (colored | (dark & (chroma > _SATURATION_BOUNDS[0] / 2))) & ~opaque
    return _clean(mask, mpp, rules)


def focus(patches: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, " n"]:
    """Sharpness of each patch: variance of the Laplacian of luminance over variance of luminance.

    Blur removes the fine part of an image's variance first, whatever its stain and contrast. The noise of the camera is
    added below the line, so that an empty patch is not sharp. Laplacian variance: Pech-Pacheco et al. 2000. Tissue of
    the three test slides at 0.23-2 um/px has at least 0.088; blurred by a Gaussian of 2 px its median is 0.009, of 3 px
    at most 0.015.
    """
    luma = patches.astype(np.float32) @ _LUMA
    inner = luma[..., 1:-1, 1:-1]
    around = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    return (around - 4 * inner).var(axis=(-2, -1)) / (luma.var(axis=(-2, -1)) + _FOCUS_NOISE)


def _otsu(values: Float[np.ndarray, " n"], bounds: tuple[float, float]) -> float:
    """The threshold that best parts `values` in two (Otsu 1979), clipped to `bounds`."""
    counts, edges = np.histogram(values, 256, (0.0, 2 * bounds[1]))
    centers = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    mean_below = np.cumsum(counts * centers)
    between = (mean_below[-1] * below / max(total, 1) - mean_below) ** 2 / np.maximum(below * (total - below), 1)
    return float(np.clip(edges[between.argmax() + 1], *bounds))


def _clean(mask: Bool[np.ndarray, "h w"], mpp: float, rules: TissueRules) -> Bool[np.ndarray, "h w"]:
    """Without threads, dust and small holes."""
    mask = ndimage.binary_opening(ndimage.binary_closing(np.pad(mask, 2), iterations=2))[2:-2, 2:-2]
    mask = _without_small(mask, rules.smallest / mpp**2)
    return ~_without_small(~mask, rules.hole / mpp**2)


def _without_small(mask: Bool[np.ndarray, "h w"], smallest: float) -> Bool[np.ndarray, "h w"]:
    """The mask without connected parts of fewer than `smallest` pixels."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= smallest
    keep[0] = False
    return keep[labels]
