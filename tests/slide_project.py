"""A small dataset as `histoloom patches` cuts it: slides whose right half is annotated."""

import numpy as np

from histoloom.tissue import TissueTable

WIDTH, HEIGHT = 520, 392
RIGHT = [(WIDTH / 2, 0), (WIDTH, 0), (WIDTH, HEIGHT), (WIDTH / 2, HEIGHT)]
STROMA_AND_TUMOR = TissueTable.from_names(["stroma", "tumor"]).to_toml()
OPTIONS = (
    "--annotations", "annotations", "--tissue", "tissue.toml", "--rest", "stroma",
    "--mpp", "0.5", "--size", "64", "--stride", "32", "--min-focus", "0",
)  # fmt: skip


def pixels(seed: int) -> np.ndarray:
    """Pink on the left, purple on the right, with grain."""
    dark = (np.arange(WIDTH) > WIDTH / 2)[None, :, None]
    grain = np.random.default_rng(seed).normal(0, 9, (HEIGHT, WIDTH, 1))
    return np.clip(np.where(dark, (110, 60, 140), (220, 150, 190)) + grain, 0, 255).astype(np.uint8)


def cut(histoloom, *options: str, out: str = "out") -> tuple[int, list[str], list[str]]:
    """The command with the usual options: exit code, lines of stdout, lines of stderr."""
    return histoloom("patches", "slides", *OPTIONS, "--out", out, *options)
