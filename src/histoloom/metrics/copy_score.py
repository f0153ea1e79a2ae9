"""How similar are a crop and an image? The best local match of any part of the crop, in any of eight orientations.

A part is a square of the crop. Normalized cross-correlation (NCC; Lewis 1995, "Fast normalized cross-correlation")
compares it with every place in the image, so that contrast and brightness do not matter. The compared quantity is the
optical density (mean of the channels) minus its local mean over SURROUNDINGS px: a different stain scales it but
hardly reorders it, and without the subtraction every dark rim next to a bright lumen would match every other one.

A score alone means nothing, since tissue resembles tissue. Compare it with the scores of unrelated pairs, with crops
from other cases: fields of one case can overlap (12 of 200 such pairs of EBHI-Seg score as copies).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.nn import functional as F

SURROUNDINGS = 21  # px, odd: nuclei are finer, lumen and glands coarser
MIN_TEXTURE = 0.03  # OD units: standard deviation below which a part or a place of the image is too flat to tell
MAX_PARTS = 12  # per crop, the most textured ones
_OD_OF_BYTE = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def best_match(
    crop: UInt8[np.ndarray, "h w 3"],
    image: UInt8[np.ndarray, "h2 w2 3"],
    part: int = 32,
    device: torch.device | str = "cpu",
) -> float:
    """Highest NCC, in [-1, 1], of any part of the crop with any place of the image, in any of eight orientations.

    Parts are `part` px wide (the shortest edge of crop and image, where that is less) on a grid of half their width;
    the MAX_PARTS most textured ones count. nan where all of the crop, or of the image, is flatter than MIN_TEXTURE and
    has nothing to compare.
    """
    return best_matches([crop], image, part, device)[0]


def best_matches(
    crops: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    image: UInt8[np.ndarray, "h w 3"],
    part: int = 32,
    device: torch.device | str = "cpu",
) -> list[float]:
    """`best_match` of each crop with one image, whose spectra are computed once."""
    if not crops:
        return []
    searched = _SearchedImage(image, device)
    return [searched.best_match(crop, part) for crop in crops]


class _SearchedImage:
    """An image in which parts are searched for. Not the parts are turned in eight ways, but the image."""

    def __init__(self, image: np.ndarray, device: torch.device | str):
        self.density, self.device = _density(image), device
        self.spectra = [torch.fft.rfft2(field) for field in self._eight_ways(self.density)]
        self._norms: dict[int, list[torch.Tensor]] = {}

    def best_match(self, crop: np.ndarray, part: int) -> float:
        """See the function of this name."""
        part = min(part, *crop.shape[:2], *self.density.shape)
        textured = _textured_parts(_density(crop), part)
        if part not in self._norms:
            self._norms[part] = self._eight_ways(_inverse_norms(self.density, part))
        if len(textured) == 0 or not self._norms[part][0].any():
            return float("nan")
        parts = torch.from_numpy(textured).to(self.device)
        shapes = {self.density.shape, self.density.shape[::-1]}
        of_shape = {shape: torch.fft.rfft2(parts, s=shape).conj() for shape in shapes}
        best = -1.0
        for spectrum, inverse in zip(self.spectra, self._norms[part], strict=True):
            shape = inverse.shape[0] + part - 1, inverse.shape[1] + part - 1
            best = max(best, _best_ncc(of_shape[shape], spectrum, inverse, shape))
        return min(best, 1.0)

    def _eight_ways(self, field: np.ndarray) -> list[torch.Tensor]:
        """The field in each of the eight orientations."""
        turned = [np.rot90(seen, turns) for seen in (field, field[:, ::-1]) for turns in range(4)]
        return [torch.from_numpy(seen.copy()).to(self.device) for seen in turned]


def _density(image: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Mean optical density, less its mean over SURROUNDINGS, as far as the image reaches."""
    density = torch.from_numpy(_OD_OF_BYTE[image].mean(axis=-1))[None]
    around, edge, border = density, SURROUNDINGS, SURROUNDINGS // 2
    for kernel, padding in (((edge, 1), (border, 0)), ((1, edge), (0, border))):  # the mean of a square is separable
        around = F.avg_pool2d(around, kernel, stride=1, padding=padding, count_include_pad=False)
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


def _best_ncc(parts: torch.Tensor, spectrum: torch.Tensor, inverse: torch.Tensor, shape: tuple[int, int]) -> float:
    """Highest NCC by Fourier transform, from the conjugate spectra of the parts and the spectrum of the image."""
    height, width = inverse.shape
    # Places where the part would wrap round the border are cut off.
    rows = torch.fft.ifft(parts * spectrum, dim=-2)[:, :height]
    products = torch.fft.irfft(rows, n=shape[1], dim=-1)[:, :, :width]
    return float((products.amax(0) * inverse).max())  # no norm is negative
