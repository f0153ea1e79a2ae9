"""How alike are a crop and an image? The best local match of the crop's parts, in any of eight orientations.

A part is a square of the crop; it is compared with every place of the image by normalised cross-correlation (NCC;
Lewis 1995, "Fast normalized cross-correlation"), which no change of contrast or brightness can hide. Compared is
optical density (mean of the channels), which another stain scales but hardly reorders, less its mean over SURROUNDINGS
px: without that, every dark rim matches every other beside bright lumen.

A score means nothing alone: tissue resembles tissue. It is read against the scores of unrelated pairs, with crops from
other cases: fields of one case can overlap (of 200 such pairs of EBHI-Seg 12 score as copies).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.nn import functional as F

from histoloom.augmentation import dihedral
from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.errors import ConfigError, InputError
from histoloom.patches.store import Patches

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

    Parts are `part` px wide (the shortest edge of crop and image, where that is less) and lie on a grid of half their
    width; the MAX_PARTS most textured ones count. nan when all of the crop, or of the image, is flatter than
    MIN_TEXTURE: then nothing can be told.
    """
    part = min(part, *crop.shape[:2], *image.shape[:2])
    parts = _textured_parts(_density(crop), part)
    density = _density(image)
    inverse_norm = _inverse_norms(density, part)
    if len(parts) == 0 or not inverse_norm.any():
        return float("nan")
    spectrum = torch.fft.rfft2(torch.from_numpy(density).to(device))
    inverse = torch.from_numpy(inverse_norm).to(device)
    turned = (np.stack([dihedral(one, which) for one in parts]) for which in range(8))
    best = max(_best_ncc(torch.from_numpy(mine).to(device), spectrum, inverse, density.shape) for mine in turned)
    return min(best, 1.0)


@dataclass(frozen=True)
class CopyLimitConfig:
    """Where the likeness of a woven patch and its crops ends to be harmless."""

    pairs: int = 500  # unrelated pairs that are looked at; 0: no limit
    quantile: float = 0.98  # of their scores; copies are counted above 0.99, and that one is only an estimate

    def __post_init__(self):
        if not 0 < self.quantile < 1 or self.pairs < 0 or (self.pairs and not self.is_told_by(self.pairs)):
            raise ConfigError("quantile must lie between 0 and 1; pairs be 0, or enough for it: 1 / (1 - quantile)")

    def is_told_by(self, scores: int) -> bool:
        """Whether one score lies above the quantile; with fewer it is the largest, which one odd pair decides."""
        return scores * (1 - self.quantile) > 1 - 1e-9  # 10 * (1 - 0.9) is less than 1


def copy_limit(
    patches: Patches,
    config: CopyLimitConfig,
    crops: CropConfig | None = None,
    on_pair: Callable[[int], None] = lambda count: None,
) -> float | None:
    """The score that no woven patch should reach with a crop of its own: a quantile of `unrelated_scores`.

    None where it cannot be told: all patches are of one case, or too few get crops with texture.
    """
    if not config.pairs or len(set(patches.cases)) < 2:
        return None
    scores = unrelated_scores(patches, config.pairs, 0, crops, on_pair)
    judged = scores[~np.isnan(scores)]
    return float(np.quantile(judged, config.quantile)) if config.is_told_by(judged.size) else None


def unrelated_scores(
    patches: Patches,
    pairs: int,
    seed: int = 0,
    config: CropConfig | None = None,
    on_pair: Callable[[int], None] = lambda count: None,
) -> Float[np.ndarray, " n"]:
    """What `best_match` says of crops drawn for random patches, each against a random patch of another case.

    nan where a crop is too flat; patches that get no crop are passed over, so that up to `pairs` scores come back.
    `on_pair(1)` follows each. Raises InputError where all patches are of one case.
    """
    cases = np.asarray(patches.cases)
    if (cases == cases[0]).all():
        raise InputError(f"all {len(cases)} patches are of case {cases[0]!r}; unrelated pairs need two cases")
    references = ReferenceCrops(patches, config)
    nowhere = np.zeros(patches.semantic_maps.shape[1:], bool)  # no crop from the patch itself
    rng = np.random.default_rng((seed, 4))
    scores = []
    for _ in range(pairs):
        index = int(rng.integers(len(patches)))
        crops = references.draw(index, nowhere, patches.semantic_maps[index], None, rng)
        if crops:
            other = int(rng.choice(np.flatnonzero(cases != cases[index])))
            scores.append(best_match(crops[rng.integers(len(crops))].pixels, patches.images[other]))
        on_pair(1)
    return np.asarray(scores)


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


def _best_ncc(parts: torch.Tensor, spectrum: torch.Tensor, inverse: torch.Tensor, shape: tuple[int, int]) -> float:
    """Highest NCC by Fourier transform: on 224 px and 12 parts 10 ms; conv2d takes 23, skimage match_template 47."""
    height, width = inverse.shape
    products = torch.fft.irfft2(torch.fft.rfft2(parts, s=shape).conj() * spectrum, s=shape)
    # Places where the part would wrap round the border are cut off.
    return float((products[:, :height, :width] * inverse).max())
