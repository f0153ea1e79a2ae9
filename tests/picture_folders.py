"""Folders of pictures with their maps, and manifests of them."""

import csv
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, height: int = 24, width: int = 24) -> np.ndarray:
    """An image of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(seed: int, height: int = 24, width: int = 24) -> np.ndarray:
    """A map of three types, with pixels without a label."""
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (height, width))


def write_gray_png(
    path: Path, values: np.ndarray, bits: int, said: tuple[int, int] | None = None, transparent: int | None = None
) -> None:
    """A PNG with fewer than 8 bits per pixel, which Pillow does not write. It may lie about its width and height."""
    height, width = values.shape
    places = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(places.reshape(height, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", *(said or (width, height)), bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    hidden = [] if transparent is None else [(b"tRNS", struct.pack(">H", transparent))]
    chunks = [(b"IHDR", header), *hidden, (b"IDAT", data), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def write_pair(root, name: str, seed: int, shape=(24, 24)) -> None:
    save(root / "images" / f"{name}.png", pixels(seed, *shape))
    save(root / "maps" / f"{name}.png", labels(seed, *shape))


def write_pairs(root, names) -> None:
    for seed, name in enumerate(names):
        write_pair(root, name, seed)


def write_manifest(root, rows: list[dict]):
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / "manifest.csv"


def row(name: str, **columns) -> dict:
    """A row of a manifest."""
    return {"image": f"images/{name}.png", "map": f"maps/{name}.png"} | columns
