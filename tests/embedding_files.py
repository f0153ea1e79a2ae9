"""Embeddings as `histoloom discover embed` writes them, of vectors that a test makes up."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from histoloom.discovery.embeddings import embedding_schema, open_writer


def write_part(folder: Path, name: str, slides: list[str], vectors: np.ndarray) -> Path:
    """One part: a row per vector, on the named slides, side by side."""
    path = folder / "embeddings" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = embedding_schema("histoloom-small", "f00d", vectors.shape[1])
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1])
    count = len(vectors)
    place = [np.arange(count), np.zeros(count, np.int64), np.full(count, 256)]
    with open_writer(path, columns) as writer:
        writer.write_table(pa.table([slides, *place, [0.5] * count, slides, numbers], schema=columns))
    return path
