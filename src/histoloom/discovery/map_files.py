"""Maps on disk: an indexed, tiled TIFF that is aligned with its slide, and the same as polygons for QuPath."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import shapely
import tifffile
from jaxtyping import Int, UInt8

from histoloom.discovery.pseudo_maps import MapGrid
from histoloom.errors import InputError
from histoloom.files import whole_file
from histoloom.slides.outlines import outlines
from histoloom.tissue import UNLABELLED, TissueTable

TILE = 256  # px of the map
FULL = 2**22  # px; polygons of a larger map come from every second pixel, or fewer
SIMPLER = 1.5  # px: corners that cut off less than the square of this are dropped


def write_map(
    path: Path, rows: Iterable[UInt8[np.ndarray, "f m"]], grid: MapGrid, slide_mpp: float, about: dict
) -> None:
    """Write the rows of a map as an indexed, tiled TIFF; `about` is added to its JSON description.

    The description says how the map is aligned with the slide; the tags hold the resolution. Memory holds one row of
    tiles.
    """
    described = {"slide_size": grid.size, "slide_mpp": slide_mpp, "downsample": grid.pixel, "unlabelled": UNLABELLED}
    _write(path, _tiles(rows, grid.shape), grid.shape, grid.pixel * slide_mpp, _gray(), described | about)


def relabel(found: Path, path: Path, ids: UInt8[np.ndarray, " k"], table: TissueTable, about: dict) -> None:
    """Write the map `found` with each type replaced by its entry in `ids` and the colors of `table`, tile by tile.

    Raises InputError where `found` is damaged or was not written by `write_map`.
    """
    lookup = np.full(256, UNLABELLED, np.uint8)
    lookup[: len(ids)] = ids
    with _opened(found) as tiff:
        page, described = _first_page(tiff), described_in(tiff, found)

        def tiles() -> Iterator[np.ndarray]:
            for tile, _, _ in page.segments():
                assert tile is not None
                named = np.full((TILE, TILE), UNLABELLED, np.uint8)
                part = lookup[tile[0, ..., 0]]
                named[: part.shape[0], : part.shape[1]] = part
                yield named

        colors = np.asarray(table.palette(), np.uint16).reshape(256, 3).T * 257
        mpp = described["downsample"] * described["slide_mpp"]
        _write(path, tiles(), (page.shape[0], page.shape[1]), mpp, colors, described | about)


def count_types(path: Path) -> Int[np.ndarray, " 255"]:
    """Pixels of each id on a map, tile by tile."""
    counts = np.zeros(256, np.int64)
    with _opened(path) as tiff:
        for tile, _, _ in _first_page(tiff).segments():
            assert tile is not None
            counts += np.bincount(tile.ravel(), minlength=256)
    return counts[:UNLABELLED]


def described_of(path: Path) -> dict:
    """The description of a map; raises InputError for another file."""
    with _opened(path) as tiff:
        return described_in(tiff, path)


def read_map(path: Path) -> tuple[UInt8[np.ndarray, "h w"], dict]:
    """A whole map and its description."""
    with _opened(path) as tiff:
        return tiff.pages[0].asarray(), described_in(tiff, path)


def write_polygons(
    path: Path, map_path: Path, table: TissueTable, origin: tuple[int | float, int | float] = (0.0, 0.0)
) -> None:
    """Write the regions of a map as GeoJSON for QuPath: one feature each, with name and color of its type, in level-0
    pixels.

    Neighbors share their simplified border, so there are neither gaps nor overlaps. `origin` is the level-0 position of
    QuPath's (0, 0), the corner of the scanned area. The collection says what its coordinates mean: `mpp`, micrometers
    per unit, and `slide_size` and `origin` in level-0 pixels.
    """
    semantic_map, described = read_map(map_path)
    stride = polygon_stride(semantic_map.shape)
    kept = [np.minimum(np.arange(0, edge, stride) + stride // 2, edge - 1) for edge in semantic_map.shape]
    semantic_map = semantic_map[np.ix_(*kept)]
    about = {"mpp": described["slide_mpp"], "slide_size": described["slide_size"], "origin": origin}
    write_regions(path, semantic_map, described["downsample"] * stride, table, about)


def polygon_stride(shape: tuple[int, ...], most: int = FULL) -> int:
    """Every how many pixels of a map polygons are made of, so that they are made of at most `most`."""
    return max(1, int(np.ceil(np.sqrt(np.prod(shape, dtype=float) / most))))


def write_regions(
    path: Path,
    semantic_map: UInt8[np.ndarray, "h w"],
    step: int | float,
    table: TissueTable,
    about: dict,
    simpler: float = SIMPLER,
) -> None:
    """Write the regions of a map as GeoJSON for QuPath; `step` is level-0 pixels to a pixel of the map.

    `about` is written into the collection; `origin` in it is subtracted from all coordinates. `simpler` is that of
    `outlines`.
    """
    with whole_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.writelines(regions_text(semantic_map, step, table, about, simpler))


def regions_text(
    semantic_map: UInt8[np.ndarray, "h w"],
    step: int | float,
    table: TissueTable,
    about: dict,
    simpler: float = SIMPLER,
) -> Iterator[str]:
    """What `write_regions` writes, region by region."""
    regions, ids = outlines(semantic_map, simpler)
    last = np.asarray(about.get("slide_size", np.inf))  # the last row and column of a map may stick out
    regions = shapely.transform(regions, lambda points: np.minimum(points * step, last) - np.asarray(about["origin"]))
    named = {t.id: {"name": t.name, "color": list(bytes.fromhex(t.color[1:]))} for t in table.types}
    yield json.dumps({"type": "FeatureCollection"} | about)[:-1] + ', "features": ['
    for number, (region, tissue) in enumerate(zip(regions, ids.tolist(), strict=True)):
        properties = {"objectType": "annotation", "classification": named[tissue]}
        rings = [np.round(shapely.get_coordinates(ring), 1).tolist() for ring in (region.exterior, *region.interiors)]
        feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}}
        yield (",\n" if number else "\n") + json.dumps(feature | {"properties": properties})
    yield "\n]}\n"


def described_in(tiff: tifffile.TiffFile, path: Path) -> dict:
    """The description that `write_map` wrote; raises InputError for another TIFF."""
    try:
        described = json.loads(_first_page(tiff).description)
        return {key: described[key] for key in ("slide_size", "slide_mpp", "downsample")} | described
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: is not a map of `histoloom discover maps`; move it away and draw it again") from None


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    return cast(tifffile.TiffPage, tiff.pages[0])


def _opened(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except (OSError, tifffile.TiffFileError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and draw it again") from None


def _write(
    path: Path, tiles: Iterator[np.ndarray], shape: tuple[int, int], mpp: float, colors: np.ndarray, about: dict
) -> None:
    with whole_file(path) as aside, tifffile.TiffWriter(aside) as tiff:
        tiff.write(
            tiles,
            shape=shape,
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="palette",
            colormap=colors,
            compression="zlib",
            predictor=False,
            resolution=(1e4 / mpp, 1e4 / mpp),
            resolutionunit="CENTIMETER",
            description=json.dumps(about, sort_keys=True),
            metadata=None,
            software=False,
        )


def _tiles(rows: Iterable[UInt8[np.ndarray, "f m"]], shape: tuple[int, int]) -> Iterator[UInt8[np.ndarray, "t t"]]:
    """Rows of the map, cut into tiles; 255 beyond the map."""
    across = -(-shape[1] // TILE)
    band, filled = np.full((TILE, across * TILE), UNLABELLED, np.uint8), 0
    for part in rows:
        while len(part):
            taken = part[: TILE - filled]
            band[filled : filled + len(taken), : shape[1]] = taken
            filled, part = filled + len(taken), part[len(taken) :]
            if filled == TILE:
                yield from np.hsplit(band, across)
                band, filled = np.full_like(band, UNLABELLED), 0
    if filled:
        yield from np.hsplit(band, across)


def _gray() -> np.ndarray:
    return np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, 0)
