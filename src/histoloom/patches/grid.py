"""Where the patches of a picture are: trimmed, resampled to the magnification of the patches, and cut in a grid."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from histoloom.pictures import RESAMPLING


@dataclass(frozen=True)
class Grid:
    """The grid of one picture, centered in what is left of it after trimming; lengths in px of the patches.

    A picture smaller than a patch has no patches.
    """

    trim: int  # px of the picture, cut from every edge before it is resampled
    scale: float  # pixels of the picture per pixel of a patch
    width: int
    height: int
    size: int  # edge of a patch
    stride: int  # from one patch to the next

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """x and y of the top-left corner of each patch, row by row."""
        return tuple((x, y) for y in self._starts(self.height) for x in self._starts(self.width))

    @property
    def covered(self) -> float:
        """How many pixels of the picture are in a patch."""
        across, down = (self._covered(length) for length in (self.width, self.height))
        return across * down * self.scale**2

    def at_level_0(self, x: int, y: int) -> tuple[int, int, int]:
        """x, y and edge of a patch in pixels of the picture."""
        return self.trim + round(x * self.scale), self.trim + round(y * self.scale), round(self.size * self.scale)

    def resampled(
        self, image: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "h w"]
    ) -> tuple[UInt8[np.ndarray, "h2 w2 3"], UInt8[np.ndarray, "h2 w2"]]:
        """Trimmed image and map at the magnification of the patches; ids of the map stay ids (nearest neighbor)."""
        inner = slice(self.trim, len(image) - self.trim), slice(self.trim, image.shape[1] - self.trim)
        image, semantic_map = image[inner], semantic_map[inner]
        if self.scale == 1:
            return image, semantic_map
        size = self.width, self.height
        return (
            np.asarray(Image.fromarray(image).resize(size, RESAMPLING)),
            np.asarray(Image.fromarray(semantic_map).resize(size, Image.Resampling.NEAREST)),
        )

    def _starts(self, length: int) -> range:
        number = self._number(length)
        first = (length - self.size - (number - 1) * self.stride) // 2
        return range(first, first + number * self.stride, self.stride)

    def _number(self, length: int) -> int:
        return 1 + (length - self.size) // self.stride if length >= self.size else 0

    def _covered(self, length: int) -> int:
        number = self._number(length)
        return self.size + (number - 1) * min(self.size, self.stride) if number else 0
