"""Classic remedies for rare tissue types, which woven patches have to beat: show them more often, or paste them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from histoloom.augmentation import dihedral
from histoloom.errors import ConfigError
from histoloom.evaluation.sources import ImageSet
from histoloom.tissue import UNLABELLED

OVERSAMPLED, PASTED = "oversampled", "pasted"
RARE = 0.3  # a type that fewer patches show is rare
SHOWN = 0.01  # of the pixels of a patch; less of a type does not count


def oversampled(images: ImageSet) -> ImageSet:
    """The images, those that show a rare type repeated (Gupta et al. 2019, arXiv 1908.03195, section 4)."""
    factors = _repeats(images.maps)
    rng = np.random.default_rng(0)
    times = np.floor(factors).astype(int) + (rng.random(len(factors)) < factors % 1)
    return images.select(np.repeat(np.arange(len(images)), times))


def pasted(images: ImageSet) -> ImageSet:
    """The images, and each once more with the rarest type of another pasted over it (Ghiasi et al. 2021, arXiv
    2012.07177).

    Lenders are drawn as often as `oversampled` would repeat them; what they lend is turned and mirrored at random.
    """
    maps, rng = images.maps, np.random.default_rng(0)
    is_square = maps.shape[1] == maps.shape[2]
    factors, shares = _repeats(maps), _shown(maps).mean(0)
    new, new_maps = images.images.copy(), maps.copy()
    for index, lender in enumerate(rng.choice(len(images), len(images), p=factors / factors.sum())):
        turn = int(rng.integers(8))
        turn -= 0 if is_square else turn % 2  # a quarter turn would not fit
        lent, lent_map = dihedral(images.images[lender], turn), dihedral(maps[lender], turn)
        types = [tissue for tissue in np.unique(lent_map) if tissue != UNLABELLED]
        if types:
            mask = lent_map == min(types, key=lambda tissue: shares[tissue])
            new[index][mask], new_maps[index][mask] = lent[mask], lent_map[mask]
    both = images.select(np.tile(np.arange(len(images)), 2))
    return replace(both, images=np.concatenate([images.images, new]), semantic_maps=np.concatenate([maps, new_maps]))


CONTROLS: dict[str, Callable[[ImageSet], ImageSet]] = {OVERSAMPLED: oversampled, PASTED: pasted}


def check_controls(names: Sequence[str]) -> None:
    """Raise ConfigError for a control that is unknown or named twice."""
    if unknown := [name for name in names if name not in CONTROLS]:
        raise ConfigError(f"control {unknown[0]!r} is unknown; known: {', '.join(CONTROLS)}")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ConfigError(f"control {twice[0]} is named twice")


def _shown(maps: UInt8[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n k"]:
    return np.stack([np.bincount(m.ravel(), minlength=256)[:UNLABELLED] > SHOWN * m.size for m in maps])


def _repeats(maps: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, " n"]:
    """How often each image is shown: sqrt(RARE / share of the images that show its rarest type), 1 or more."""
    shown = _shown(maps)
    factors = np.maximum(1, np.sqrt(RARE / np.maximum(shown.mean(0), 1 / len(maps))))
    return np.where(shown, factors, 1).max(1)
