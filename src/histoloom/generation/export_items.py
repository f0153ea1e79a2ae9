"""The woven patches of a folder, one by one, as exports take them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import InputError
from histoloom.generation.woven_reader import iter_index, iter_woven, refuse_outside
from histoloom.progress import Bar
from histoloom.records import fingerprint


@dataclass(frozen=True, eq=False)
class Item:
    """A woven patch: its image file and the bytes of it, its map, its row of the index."""

    file: Path  # name of the image, without a folder
    encoded: bytes
    semantic_map: UInt8[np.ndarray, "h w"]
    row: dict


def iter_items(folder: Path, bar: Bar) -> Iterator[Item]:
    """The woven patches of `folder`, whose images have passed `count_items`; raises as `iter_woven` does."""
    for row, _, semantic_map in iter_woven(folder):
        path = folder / row["image"]
        yield Item(Path(path.name), path.read_bytes(), semantic_map, row)
        bar.advance()


def count_items(folder: Path) -> tuple[int, str]:
    """The number of woven patches in `folder`, and a fingerprint of all files that an export reads.

    Raises InputError where the folder holds no woven patches, where the index leads out of it, or where two images have
    one name.
    """
    if not (folder / "index.parquet").is_file():
        raise InputError(f"{folder}: holds no woven patches (no index.parquet); name a folder of `histoloom generate`")
    digest, names = hashlib.sha256(), set()
    for name in ("index.parquet", "tissue.toml", "README.md"):
        digest.update(fingerprint(folder / name).encode() if (folder / name).is_file() else b"absent")
    for number, row in enumerate(iter_index(folder)):
        for column in ("image", "semantic_map"):
            refuse_outside(folder, number, column, row[column])
            digest.update(fingerprint(folder / row[column]).encode())
        name = Path(row["image"]).stem
        if name in names:
            raise InputError(f"{folder / 'index.parquet'}, row {number}: a second image is called {name}; rename one")
        names.add(name)
    return len(names), digest.hexdigest()
