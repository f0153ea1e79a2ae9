"""Find fields of view that overlap: the same tissue photographed twice, shifted or with another white balance.

Real datasets contain such pairs (2 % of the pairs within a case of EBHI-Seg), and no file lists them. A crop from an
overlapping field would show the tissue that it is meant to help predict, so these pairs must be known.
"""

from collections import defaultdict

import numpy as np
from jaxtyping import Float
from PIL import Image

from histoloom.patches.store import Patches

THUMBNAIL = 32  # px; shifts are resolved to 1 / 32 of a patch
OVERLAP = 0.25  # smallest part of a patch that counts
CORRELATION = 0.6  # by eye: below it no pair shows the same tissue, above 0.75 nearly all do


def overlapping_fields(patches: Patches) -> set[tuple[int, int]]:
    """Pairs (i, j) of one case, in both orders, whose luminance correlates above CORRELATION at some shift."""
    by_case: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(patches.cases):
        by_case[case].append(index)
    pairs = set()
    for members in by_case.values():
        spectra = _spectra(np.stack([_thumbnail(patches.images[i]) for i in members]))
        for position, index in enumerate(members[:-1]):
            scores = _best_correlation([s[position] for s in spectra], [s[position + 1 :] for s in spectra])
            for other in np.asarray(members[position + 1 :])[scores > CORRELATION]:
                pairs |= {(index, int(other)), (int(other), index)}
    return pairs


def _thumbnail(image: np.ndarray) -> Float[np.ndarray, "s s"]:
    small = np.asarray(
        Image.fromarray(image).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32
    )
    return (small - small.mean()) / max(float(small.std()), 1e-3)


def _spectra(thumbnails: np.ndarray) -> list[np.ndarray]:
    """Spectra of the thumbnails, of their squares, and of ones, zero-padded so that shifts do not wrap."""
    padded = np.zeros((3, len(thumbnails), 2 * THUMBNAIL, 2 * THUMBNAIL), np.float32)
    padded[:, :, :THUMBNAIL, :THUMBNAIL] = np.stack([thumbnails, thumbnails**2, np.ones_like(thumbnails)])
    return list(np.fft.rfft2(padded))


def _best_correlation(one: list[np.ndarray], others: list[np.ndarray]) -> Float[np.ndarray, " n"]:
    """Largest Pearson correlation over shifts, on the overlapping part only (Padfield 2010, masked NCC)."""
    value, square, mask = one
    values, squares, masks = others
    count = np.fft.irfft2(mask * masks.conj())
    products = np.fft.irfft2(value * values.conj())
    sum_one, sum_other = np.fft.irfft2(value * masks.conj()), np.fft.irfft2(mask * values.conj())
    square_one, square_other = np.fft.irfft2(square * masks.conj()), np.fft.irfft2(mask * squares.conj())
    n = np.maximum(count, 1)
    covariance = products - sum_one * sum_other / n
    variances = (square_one - sum_one**2 / n) * (square_other - sum_other**2 / n)
    correlation = covariance / np.sqrt(np.maximum(variances, 1.0))
    return np.where(count > OVERLAP * THUMBNAIL**2, correlation, -1).max((1, 2))
