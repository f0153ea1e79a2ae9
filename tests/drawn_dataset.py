"""A patch dataset of drawn tissue."""

from pathlib import Path

import numpy as np
from conftest import draw_tissue

from histoloom.patches.store import encode_png, write_shards
from histoloom.tissue import TissueTable


def write_drawn_dataset(folder: Path, table: TissueTable, count: int, cases: int, size: int, step: int = 0) -> Path:
    """Split train: `count` patches of the first two types of `table`, by `cases` cases in turns; returns the folder.

    Each is a file of its own, or with `step` one of a row of patches, so many px apart, in the slide of its case.
    """
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        image, semantic_map = draw_tissue(rng, size, 2)
        source = f"slide {number % cases}.svs" if step else f"Jane Doe {number}.png"
        rows.append(
            {"image": encode_png(image), "semantic_map": encode_png(semantic_map), "source": source,
             "x": step * (number // cases), "y": 0, "size": size, "mpp": 0.5, "fractions": [0.5, 0.5], "entropy": 0.0,
             "case": f"{number % cases}", "split": "train"}
        )  # fmt: skip
    write_shards(rows, table, folder, "train")
    (folder / "tissue.toml").write_text(table.to_toml())
    return folder
