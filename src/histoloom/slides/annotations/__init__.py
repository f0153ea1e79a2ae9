"""Annotations in, one thing out: a semantic map of any window of the slide, whatever the format of the file.

The content of the file decides: QuPath GeoJSON (gzipped or not), ASAP XML, or a label raster (TIFF, PNG).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import AnnotationError
from histoloom.slides.annotations.asap import read_asap
from histoloom.slides.annotations.classes import paint_order, polygon_ids
from histoloom.slides.annotations.masks import LabelRaster
from histoloom.slides.annotations.qupath import read_qupath
from histoloom.slides.labelling import AnnotationConfig
from histoloom.slides.polygon import Annotations, Polygon, check_on_slide, cut_out
from histoloom.slides.rasterize import PolygonMap
from histoloom.tissue import UNLABELLED, TissueTable

__all__ = ["AnnotationConfig", "AnnotationMap", "read_annotations", "read_polygons"]

_STARTS = {
    "mask": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"\x89PNG"),
    "asap": (b"<",),
    "qupath": (b"{", b"[", b"\x1f\x8b"),
}


@runtime_checkable
class AnnotationMap(Protocol):
    """What every format becomes: `PolygonMap` or `LabelRaster`.

    Notes are one line each, for the user to read; `rest` is the id of all that is not annotated.
    """

    notes: tuple[str, ...]
    rest: int

    def read(
        self, x: int | float, y: int | float, size: int | tuple[int, int], mpp: int | float
    ) -> UInt8[np.ndarray, "h w"]:
        """The map of a window: `x, y` its level-0 corner, `size` its edge or (width, height) in pixels of `mpp`."""

    def overview(self, downsample: int | float) -> UInt8[np.ndarray, "h w"]:
        """The map of the whole slide, `downsample` level-0 pixels to a pixel."""


def read_annotations(
    path: Path | str,
    table: TissueTable,
    slide_size: tuple[int, int],
    slide_mpp: int | float,
    config: AnnotationConfig | None = None,
    origin: tuple[int | float, int | float] = (0.0, 0.0),
) -> AnnotationMap:
    """The annotations of a slide of `slide_size` (width, height) and `slide_mpp`, as a map.

    `origin` is the level-0 place of the polygons' (0, 0): QuPath counts from the scanned bounds of a MRXS slide, not
    from its corner. Raises AnnotationError naming file and feature, TissueError for a class in no table.
    """
    path, config = Path(path), config or AnnotationConfig()
    rest = table.find(config.rest).id if config.rest else UNLABELLED
    if _kind(path) == "mask":
        return LabelRaster(path, table, slide_size, slide_mpp, rest, config.ignore)
    found = read_polygons(path, config.detections)
    if found.polygons and not any(p.name for p in found.polygons):
        raise AnnotationError(f"{path}: none of its polygons has a class; set classes in the program that drew them")
    polygons = [replace(p, ring=p.ring + origin, holes=tuple(h + origin for h in p.holes)) for p in found.polygons]
    border = check_on_slide(polygons, slide_size)
    solid = _without_excluded(polygons, table, config.exclude)
    kept, ids, left_out = polygon_ids(solid, table, config.ignore)
    order = paint_order(ids, table, config.order)
    notes = (*found.notes, *border, *(f"{path}: {note}" for note in left_out))
    return PolygonMap([kept[i] for i in order], [ids[i] for i in order], slide_size, slide_mpp, rest, notes)


def read_polygons(path: Path | str, detections: bool = False) -> Annotations:
    """The polygons of a QuPath or ASAP file as drawn: no class is looked up, nothing is cut out."""
    path = Path(path)
    kind = _kind(path)
    if kind == "mask":
        raise AnnotationError(f"{path}: a label raster, not polygons; give a GeoJSON or ASAP XML file")
    return read_asap(path) if kind == "asap" else read_qupath(path, detections)


def _kind(path: Path) -> str:
    """`mask`, `asap` or `qupath`, by the first bytes of the file."""
    try:
        with path.open("rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such annotation file; check the path") from None
    except IsADirectoryError:
        raise AnnotationError(f"{path}: a folder, not an annotation file; give the file inside") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    for kind, starts in _STARTS.items():
        if head.startswith(starts):
            return kind
    found = "is empty" if not head else f"begins with {head[:8]!r}"
    raise AnnotationError(f"{path}: {found}; known are QuPath GeoJSON, ASAP XML, and label masks as TIFF or PNG")


def _without_excluded(polygons: list[Polygon], table: TissueTable, exclude: Sequence[str]) -> list[Polygon]:
    """All polygons of other classes, with those of excluded classes cut out; a class in the table is a class."""
    known = {n.strip().lower() for t in table.types for n in (t.name, *t.aliases)}
    names = {name.strip().lower() for name in exclude} - known
    solid, holes = [], []
    for polygon in polygons:
        (holes if (polygon.name or "").strip().lower() in names else solid).append(polygon)
    return cut_out(solid, holes)
