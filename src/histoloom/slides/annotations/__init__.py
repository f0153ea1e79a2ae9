"""Annotations in, one thing out: a semantic map of any window of the slide, whatever the format of the file.

The content of the file decides, not its name: QuPath GeoJSON (gzipped or not), ASAP XML, or a label raster (TIFF, PNG).
"""

from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from histoloom.disk import open_input
from histoloom.errors import AnnotationError
from histoloom.slides.annotations.asap import read_asap
from histoloom.slides.annotations.classes import EXCLUDED, ClassRule, paint_order, sort_polygons
from histoloom.slides.annotations.masks import LabelRaster, labels_size
from histoloom.slides.annotations.qupath import read_qupath
from histoloom.slides.labeling import AnnotationConfig
from histoloom.slides.polygon import Annotations, Polygon, check_on_slide, cut_out, is_off_slide
from histoloom.slides.rasterize import PolygonMap
from histoloom.tissue import UNLABELLED, TissueTable

__all__ = ["AnnotationConfig", "AnnotationMap", "raster_size", "read_annotations", "read_polygons"]

_STARTS = {
    "mask": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"\x89PNG"),
    "asap": (b"<",),
    "qupath": (b"{", b"[", b"\x1f\x8b"),
}
_BLANK = 1 << 20  # bytes that are looked through for the first that is not blank


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
        ...

    def overview(self, downsample: int | float) -> UInt8[np.ndarray, "h w"]:
        """The map of the whole slide, `downsample` level-0 pixels to a pixel."""
        ...


def read_annotations(
    path: Path | str,
    table: TissueTable,
    slide_size: tuple[int, int],
    slide_mpp: int | float,
    config: AnnotationConfig | None = None,
    origin: tuple[int | float, int | float] = (0.0, 0.0),
) -> AnnotationMap:
    """The annotations of a slide of `slide_size` (width, height) and `slide_mpp`, as a map.

    `origin` is the level-0 place from which QuPath counts: the corner of the scanned area of a MRXS or SCN slide
    (`Slide.bounds`). ASAP and label rasters count from the corner of the slide. What is left out (unclassified, of an
    ignored class) is left out before anything is checked. Raises AnnotationError naming file and feature, TissueError
    for a class in no table.
    """
    path, config = Path(path), config or AnnotationConfig()
    rest = table.find(config.rest).id if config.rest else UNLABELLED
    kind = _kind(path)
    if kind == "mask":
        return LabelRaster(path, table, slide_size, slide_mpp, rest, config.ignore)
    found = _read_vector(path, kind, config.detections)
    rule = ClassRule(table, config.ignore, config.exclude)
    skipped = _check_broken(found, rule)
    if found.polygons and not any(p.name for p in found.polygons):
        more = "; ".join(note.removeprefix(f"{path}: ") for note in found.notes[:2])
        raise AnnotationError(
            f"{path}: none of its polygons has a class; set classes in the program that drew them"
            + (f" ({more})" if more else "")
        )
    x, y = origin if kind == "qupath" else (0.0, 0.0)
    polygons = [_moved(polygon, x, y) for polygon in found.polygons] if x or y else list(found.polygons)
    kept, ids, holes, left_out = sort_polygons(polygons, rule)
    border = check_on_slide(kept, slide_size)
    off = [f"{hole.where}: is off the slide; left out" for hole in holes if is_off_slide(hole, slide_size)]
    id_of = {polygon.name: tissue for polygon, tissue in zip(kept, ids, strict=True)}
    kept = cut_out(kept, holes)
    ids = [id_of[polygon.name] for polygon in kept]
    order = paint_order(ids, table, config.order)
    notes = (*found.notes, *skipped, *border, *off, *(f"{path}: {note}" for note in left_out))
    return PolygonMap([kept[i] for i in order], [ids[i] for i in order], slide_size, slide_mpp, rest, notes)


def raster_size(path: Path | str) -> tuple[int, int] | None:
    """Width and height of a label raster; None for polygons, which have no extent. Raises AnnotationError."""
    path = Path(path)
    return labels_size(path) if _kind(path) == "mask" else None


def read_polygons(path: Path | str, detections: bool = False) -> Annotations:
    """The polygons of a QuPath or ASAP file as drawn: no class is looked up, nothing is cut out.

    Raises AnnotationError naming file and feature.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "mask":
        raise AnnotationError(f"{path}: a label raster, not polygons; give a GeoJSON or ASAP XML file")
    return read_asap(path) if kind == "asap" else read_qupath(path, detections)


def _read_vector(path: Path, kind: str, detections: bool) -> Annotations:
    return read_asap(path, True) if kind == "asap" else read_qupath(path, detections, True)


def _check_broken(found: Annotations, rule: ClassRule) -> list[str]:
    """Notes on broken features that are left out anyway; raises the error of the first that is not."""
    notes = []
    for name, error in found.broken:
        if name is not None and (isinstance(rule(name), int) or rule(name) in (None, EXCLUDED)):
            raise error
        notes.append(f"{error}; left out, as its class is")
    return notes


def _kind(path: Path) -> str:
    """`mask`, `asap` or `qupath`, by the first bytes of the file that are not blank."""
    try:
        with open_input(path) as file:
            head = file.read(_BLANK)
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such annotation file; check the path") from None
    except IsADirectoryError:
        raise AnnotationError(f"{path}: a folder, not an annotation file; give the file inside") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = head[: len(head) // 2 * 2].decode("utf-16", "replace").encode("utf-8", "replace")
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for kind, starts in _STARTS.items():
        if head.startswith(starts):
            return kind
    found = "is empty" if not head else f"begins with {head[:8]!r}"
    raise AnnotationError(f"{path}: {found}; known are QuPath GeoJSON, ASAP XML, and label masks as TIFF or PNG")


def _moved(polygon: Polygon, x: int | float, y: int | float) -> Polygon:
    by = np.array([x, y], np.float64)
    return replace(polygon, ring=polygon.ring + by, holes=tuple(hole + by for hole in polygon.holes))
