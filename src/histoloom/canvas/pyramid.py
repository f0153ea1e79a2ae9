"""Tiled BigTIFF files with a pyramid: a slide, and its labels at the same levels.

Levels are pages, of which OpenSlide sees all; in an OME-TIFF, levels below the first are in SubIFDs, of which OpenSlide
sees none.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8

from histoloom.canvas.layout import Layout
from histoloom.canvas.parts import TILE, level_sizes
from histoloom.progress import SILENT, Bar
from histoloom.tissue import UNLABELLED, TissueTable

Rows = Callable[[int], Iterator[np.ndarray]]  # level -> its rows, some at a time


def write_slide(
    path: Path, rows: Rows, shape: tuple[int, int], mpp: float, about: dict, ome: bool, bar: Bar = SILENT
) -> None:
    """Write RGB rows as a slide without loss; `about` is its description, `bar` counts rows of tiles.

    An OME-TIFF holds OME's description instead.
    """
    options = {"photometric": "rgb", "predictor": True}
    _write(path, rows, shape, mpp, about, options, ome, bar)


def write_labels(path: Path, layout: Layout, mpp: float, table: TissueTable, about: dict) -> None:
    """Write the map of a canvas as an indexed pyramid, whose pixels hold one of the labels that they cover."""
    colors = np.asarray(table.palette(), np.uint16).reshape(256, 3).T * 257

    def rows(level: int) -> Iterator[UInt8[np.ndarray, "r w"]]:
        return label_rows(layout, level)

    options = {"photometric": "palette", "colormap": colors, "predictor": False}
    _write(path, rows, layout.shape, mpp, about, options, False, SILENT)


def label_rows(layout: Layout, level: int) -> Iterator[UInt8[np.ndarray, "r w"]]:
    """The rows of a level of the labels: the label at the middle of each block of px."""
    (width, height), step = level_sizes(layout.shape)[level], 1 << level
    for first in range(0, layout.shape[0], TILE):
        part = layout.read(first, 0, min(TILE, layout.shape[0] - first), layout.shape[1])
        yield part[step // 2 :: step, step // 2 :: step][: max(0, height - first // step), :width]


def _write(
    path: Path, rows: Rows, shape: tuple[int, int], mpp: float, about: dict, options: dict, ome: bool, bar: Bar
) -> None:
    sizes = level_sizes(shape)
    channels = (3,) if options["photometric"] == "rgb" else ()
    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as tiff:
        for level, (width, height) in enumerate(sizes):
            if ome:
                metadata = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp} if level == 0 else None
                pages = {"subifds": len(sizes) - 1 if level == 0 else 0, "metadata": metadata}
            else:
                description = json.dumps(about, sort_keys=True) if level == 0 else ""
                pages = {"metadata": None, "description": description}
            tiff.write(
                _tiles(rows(level), (height, width), bar),
                shape=(height, width, *channels),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                subfiletype=int(level > 0),
                resolution=(1e4 / (mpp * 2**level), 1e4 / (mpp * 2**level)),
                resolutionunit="CENTIMETER",
                software=False,
                **pages,
                **options,
            )


def _tiles(rows: Iterator[np.ndarray], shape: tuple[int, int], bar: Bar) -> Iterator[np.ndarray]:
    """Whole tiles from rows; beyond the image, white or unlabeled."""
    across, band, filled, done = -(-shape[1] // TILE), None, 0, 0
    for part in rows:
        while len(part):
            if band is None:
                band = np.full((TILE, across * TILE, *part.shape[2:]), UNLABELLED, np.uint8)
            taken = part[: TILE - filled]
            band[filled : filled + len(taken), : shape[1]] = taken
            filled, done, part = filled + len(taken), done + len(taken), part[len(taken) :]
            if filled == TILE or done == shape[0]:
                for column in range(across):
                    yield np.ascontiguousarray(band[:, column * TILE : (column + 1) * TILE])
                band, filled = None, 0
                bar.advance()
