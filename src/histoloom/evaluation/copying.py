"""Does a crop reappear in what was woven from it? The best local match of its parts, in any of eight orientations.

A part is a square of the crop; it is compared with every place of the image by normalised cross-correlation (NCC;
Lewis 1995, "Fast normalized cross-correlation"), which no change of contrast or brightness can hide. Compared is
optical density (mean of the channels), which another stain scales but hardly reorders, less its mean over SURROUNDINGS
px: without that, every dark rim matches every other beside bright lumen.

A score means nothing alone. It is read against the scores of real unrelated pairs with the same crops, from other
cases: fields of one case can overlap (of 200 such pairs of EBHI-Seg 12 score as copies). See `copy_threshold`.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.nn import functional as F

from histoloom.augmentation import dihedral
from histoloom.errors import InputError

SURROUNDINGS = 21  # px, odd: nuclei are finer, lumen and glands coarser
MIN_TEXTURE = 0.03  # OD units: standard deviation below which a part or a place of the image is too flat to tell
MAX_PARTS = 12  # per crop, the most textured ones
_OD_OF_BYTE = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


@dataclass(frozen=True)
class CopyRate:
    """Share of crops that reappear, with a Wilson interval, over the n crops that could be judged; `flat` could not."""

    rate: float
    low: float
    high: float
    n: int
    flat: int
    threshold: float


def best_match(crop: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "h2 w2 3"], part: int = 32) -> float:
    """Highest NCC, in [-1, 1], of any part of the crop with any place of the image, in any of eight orientations.

    Parts are `part` px wide (the crop's edge, where that is shorter) and lie on a grid of half their width; the
    MAX_PARTS most textured ones count. nan when all of the crop, or of the image, is flatter than MIN_TEXTURE: then
    nothing can be told. Raises InputError when the image is smaller than a part.
    """
    part = min(part, *crop.shape[:2])
    if min(image.shape[:2]) < part:
        raise InputError(f"an image of {image.shape[:2]} px is smaller than the {part} px parts it is searched for")
    parts = _textured_parts(_density(crop), part)
    density = _density(image)
    inverse_norm = _inverse_norms(density, part)
    if len(parts) == 0 or not inverse_norm.any():
        return float("nan")
    best = max(_best_ncc(parts, dihedral(density, which), dihedral(inverse_norm, which)) for which in range(8))
    return min(best, 1.0)


def copy_threshold(scores: Float[np.ndarray, " n"], quantile: float = 0.99) -> float:
    """The score that `quantile` of real unrelated pairs stay below.

    Pairs must be of different cases, and made with crops of the same sizes as those to be judged, since a larger crop
    has more chances. nan is left out. Raises InputError for fewer pairs than the quantile needs.
    """
    judged = scores[~np.isnan(scores)]
    needed = round(1 / (1 - quantile))
    if judged.size < needed:
        raise InputError(
            f"{judged.size} unrelated pairs are too few for the {quantile} quantile; give {needed} or more"
        )
    return float(np.quantile(judged, quantile))


def copy_rate(scores: Float[np.ndarray, " n"], threshold: float, level: float = 0.95) -> CopyRate:
    """Share of scores above `threshold`; nan scores (flat crops) are counted apart."""
    judged = scores[~np.isnan(scores)]
    if judged.size == 0:
        raise InputError("every crop is too flat to be searched for; nothing is known about copying")
    copied = int((judged > threshold).sum())
    low, high = wilson_interval(copied, judged.size, level)
    return CopyRate(copied / judged.size, low, high, judged.size, scores.size - judged.size, threshold)


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); honest at 0 and n, where the normal one has no width."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    # At the ends the bound is exact; rounding must not move it.
    return (0.0 if hits == 0 else float(centre - half)), (1.0 if hits == n else float(centre + half))


def _density(image: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Mean optical density, less its mean over SURROUNDINGS, as far as the image reaches."""
    density = torch.from_numpy(_OD_OF_BYTE[image].mean(axis=-1))[None]
    around = F.avg_pool2d(density, SURROUNDINGS, stride=1, padding=SURROUNDINGS // 2, count_include_pad=False)
    return (density - around)[0].numpy()


def _textured_parts(density: np.ndarray, part: int) -> Float[np.ndarray, "n p p"]:
    """The most textured squares of half-overlapping ones, each with mean 0 and norm 1."""
    ys, xs = (sorted({*range(0, edge - part + 1, max(part // 2, 1)), edge - part}) for edge in density.shape)
    parts = np.stack([density[y : y + part, x : x + part] for y in ys for x in xs])
    parts = parts - parts.mean(axis=(1, 2), keepdims=True)
    norms = np.linalg.norm(parts, axis=(1, 2))
    chosen = [i for i in np.argsort(-norms, kind="stable")[:MAX_PARTS] if norms[i] >= MIN_TEXTURE * part]
    return parts[chosen] / norms[chosen, None, None]


def _inverse_norms(density: np.ndarray, part: int) -> Float[np.ndarray, "y x"]:
    """1 / norm of the mean-free square at each place, from integral images; 0 where it is flatter than MIN_TEXTURE."""
    field = density.astype(np.float64)
    squares = _window_sums(field**2, part) - _window_sums(field, part) ** 2 / part**2
    textured = squares >= (MIN_TEXTURE * part) ** 2
    return np.where(textured, 1 / np.sqrt(np.where(textured, squares, 1)), 0).astype(np.float32)


def _window_sums(field: np.ndarray, part: int) -> np.ndarray:
    sums = np.pad(field, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return sums[part:, part:] - sums[:-part, part:] - sums[part:, :-part] + sums[:-part, :-part]


def _best_ncc(parts: np.ndarray, density: np.ndarray, inverse_norm: np.ndarray) -> float:
    """Highest NCC by Fourier transform: on 224 px and 12 parts 10 ms; conv2d takes 23, skimage match_template 47."""
    height, width = inverse_norm.shape
    spectra = torch.fft.rfft2(torch.from_numpy(parts), s=density.shape).conj()
    spectra = spectra * torch.fft.rfft2(torch.from_numpy(density))
    # Places where the part would wrap round the border are cut off.
    products = torch.fft.irfft2(spectra, s=density.shape)[:, :height, :width]
    return float((products * torch.from_numpy(inverse_norm)).max())
