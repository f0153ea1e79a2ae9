"""What a picture will look like, from the clean latents that a step predicts."""

import time

import numpy as np
from jaxtyping import UInt8

from histoloom.models.autoencoder import to_images
from histoloom.models.pipeline import HistoloomPipeline

EVERY = 0.3  # seconds between two previews: decoding one takes a tenth of a step or less
GRAY = 230


class Preview:
    """The picture so far; windows of a large one are put where they belong."""

    def __init__(self, shape: tuple[int, ...]):
        self._pixels = np.full((*shape[:2], 3), GRAY, np.uint8)
        self._shown = -np.inf

    def after(self, pipeline: HistoloomPipeline, given: dict) -> UInt8[np.ndarray, "h w 3"] | None:
        """The picture after a step, from what `histoloom.models.step_end` gives; None where the last one is recent."""
        if given["number"] + 1 == given["count"] or time.monotonic() - self._shown < EVERY:
            return None  # the result itself comes next
        made = to_images(pipeline.decode_latents(given["clean_latents"]))[0].cpu().numpy()
        rows, columns = pipeline.denoiser.margins(self._pixels.shape[:2])
        self._put(made, given.get("y", -rows[0]), given.get("x", -columns[0]))
        self._shown = time.monotonic()
        return self._pixels.copy()

    def _put(self, made: UInt8[np.ndarray, "r c 3"], y: int, x: int) -> None:
        """Put pixels at their place; what is beyond the picture is cut off."""
        top, left = max(y, 0), max(x, 0)
        part = self._pixels[top : y + made.shape[0], left : x + made.shape[1]]
        part[...] = made[top - y :, left - x :][: part.shape[0], : part.shape[1]]
