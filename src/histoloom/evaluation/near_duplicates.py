"""Images that show the same tissue again: recompressed, restained, turned, mirrored, or shifted by a few pixels.

Names and hashes of pixels miss them. Gray thumbnails are compared by their correlation, in all eight
orientations and at small shifts.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from histoloom.augmentation import dihedral

EDGE = 32  # px of a thumbnail
BORDER = 3  # cells of the thumbnail that a shift may use up
# Between two thumbnails. Of 194,000 pairs of different cases of EBHI-Seg none reaches 0.66; the same images turned,
# restained, shifted by up to 9 of 220 px and saved as JPEG reach 0.72 to 1.
CORRELATION = 0.75
BLOCK = 1024  # images at a time
MIN_CONTRAST = 2.0  # gray levels: flatter thumbnails, such as those of glass, resemble each other


def near_duplicates(
    images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "m h w 3"]
) -> list[tuple[int, int]]:
    """Pairs (i, j) where image i shows what other image j shows, one for each i that has any."""
    cores = _normalized(_thumbnails(others)[:, BORDER:-BORDER, BORDER:-BORDER])
    found = []
    for start in range(0, len(images), BLOCK):
        best, of = _best(images[start : start + BLOCK], cores)
        found += [(start + int(i), int(of[i])) for i in np.flatnonzero(best > CORRELATION)]
    return found


def _best(images: np.ndarray, cores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest correlation of each image with any of the others, and with which."""
    best, of = np.full(len(images), -1.0, np.float32), np.zeros(len(images), np.int64)
    thumbnails, size = _thumbnails(images), EDGE - 2 * BORDER
    for which in range(8):
        turned = np.stack([dihedral(thumbnail, which) for thumbnail in thumbnails])
        for dy in range(2 * BORDER + 1):
            for dx in range(2 * BORDER + 1):
                scores = _normalized(turned[:, dy : dy + size, dx : dx + size]) @ cores.T
                at = scores.argmax(axis=1)
                highest = scores[np.arange(len(images)), at]
                of, best = np.where(highest > best, at, of), np.maximum(best, highest)
    return best, of


def _thumbnails(images: np.ndarray) -> Float[np.ndarray, "n e e"]:
    """Gray thumbnails."""
    small = [Image.fromarray(image).convert("L").resize((EDGE, EDGE), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(one, np.float32) for one in small])


def _normalized(thumbnails: np.ndarray) -> Float[np.ndarray, "n c"]:
    """Flat rows of mean 0 and norm 1; zeros for thumbnails without contrast."""
    rows = thumbnails.reshape(len(thumbnails), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    contrast = rows.std(axis=1, keepdims=True)
    scale = np.where(contrast > MIN_CONTRAST, contrast * rows.shape[1] ** 0.5, np.inf)
    return rows / scale
