"""QuPath's GeoJSON, from 0.2 to 0.6: a FeatureCollection, a list of features, one feature, or bare geometries.

How QuPath spells things: a class is `properties.classification`, as `{"name", "colorRGB": signed integer}` up to 0.3,
`{"name", "color": [r, g, b]}` since, `{"names": [...]}` for a derived class (joined by ": "), which older versions nest
as `parentClass`. What an object is stands in the feature's `id` in 0.2 ("PathAnnotationObject"), in
`properties.object_type` in 0.3, in `objectType` since. Points and lines have no area; detections, cells and tiles are
measurements: both are counted, and left out.
"""

import gzip
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from histoloom.errors import AnnotationError
from histoloom.slides.polygon import Annotations, Polygon, build_polygons
from histoloom.text import decode_text, one_line, shorten

_MAX_BYTES = 256 << 20  # unpacked; more is a bomb, or cells by the million that nobody drew
_MAX_ITEMS = 24 << 20  # lists and objects: what Python needs for more exceeds 3 GB
_DETECTIONS = {
    "detection": "detections", "cell": "cells", "tile": "tiles", "pathdetectionobject": "detections",
    "pathcellobject": "cells", "pathtileobject": "tiles",
}  # fmt: skip
_NO_AREA = {"Point", "MultiPoint", "LineString", "MultiLineString"}
_DEEPEST = 16  # collections in collections, and classes derived from classes


def read_qupath(path: Path, detections: bool = False, keep_broken: bool = False) -> Annotations:
    """The polygons of a `.geojson`, `.json` or gzipped file; `detections` keeps detections, cells and tiles, too.

    Raises AnnotationError naming file and feature: not GeoJSON, a coordinate that is not a number. With `keep_broken`,
    a feature whose points make no sense is listed with its class instead: the class may be one that is left out.
    """
    polygons: list[Polygon] = []
    notes: list[str] = []
    broken: list[tuple[str | None, AnnotationError]] = []
    left_out: Counter[str] = Counter()
    planes: set[tuple[str, str]] = set()
    for number, feature in enumerate(_features(_load(path), path), start=1):
        properties = feature.get("properties") or {}
        kind = _DETECTIONS.get(_object_type(feature, properties))
        if kind is not None and not detections:
            left_out[f"{kind} left out (`patches` and `overlay` read them with --detections)"] += 1
            continue
        name, color = _classification(properties)
        if name is None and isinstance(properties.get("name"), str):
            left_out["features have a name, but no class"] += 1
        where = f"{path}: feature {number}" + (f" ({shorten(name, 60)})" if name else "")
        areas = _areas(feature.get("geometry"), left_out, where)
        planes |= {_plane(feature["geometry"])} if areas else set()
        try:
            for rings in areas:
                built, repaired = build_polygons(rings, name, color, where)
                polygons += built
                notes += repaired
        except AnnotationError as error:
            if not keep_broken:
                raise
            broken.append((name, error))
    if len(planes) > 1:
        notes.append(f"{path}: its objects are on {len(planes)} planes (z, t) and are read as one; export one plane")
    notes += [f"{path}: {count} {what}" for what, count in left_out.items()]
    return Annotations(tuple(polygons), tuple(notes), tuple(broken))


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES or data.count(b"[") + data.count(b"{") > _MAX_ITEMS:
            raise AnnotationError(
                f"{path}: is larger than {_MAX_BYTES >> 20} MB unpacked, or has more than {_MAX_ITEMS >> 20} million "
                "points; export annotations only, without detections and cells"
            )
        return json.loads(decode_text(data))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = one_line(str(error), 200)
        raise AnnotationError(f"{path}: not readable as GeoJSON ({reason}); export it again from QuPath") from None


def _features(document: object, path: Path) -> list[dict]:
    """All features of a document, whichever of the four shapes it has."""
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    items: list[Any] = document if isinstance(document, list) else [document]
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            raise AnnotationError(f"{path}: item {number} is not a GeoJSON feature; export as GeoJSON from QuPath")
        if not isinstance(item.get("properties"), dict | None):
            raise AnnotationError(f"{path}: feature {number} has properties that are not a table; export it again")
    return [item if item["type"] == "Feature" else {"type": "Feature", "geometry": item} for item in items]


def _object_type(feature: dict, properties: dict) -> str:
    kind = properties.get("objectType") or properties.get("object_type") or feature.get("id")
    return str(kind).lower() if isinstance(kind, str) else ""


def _classification(properties: dict) -> tuple[str | None, str | None]:
    """Class name and color (#rrggbb); None where there is none."""
    found = properties.get("classification")
    if isinstance(found, str):
        return found.strip() or None, None
    if not isinstance(found, dict):
        return None, None
    names = found.get("names")
    name = ": ".join(map(str, names)) if isinstance(names, list) else _nested_name(found)
    return name.strip() or None, _hex_color(found.get("color", found.get("colorRGB")))


def _nested_name(classification: dict) -> str:
    """The name of a class, after those of the classes that it is nested in (`parentClass`, up to QuPath 0.1)."""
    names: list[str] = []
    found: object = classification
    while isinstance(found, dict) and len(names) < _DEEPEST:
        if found.get("name"):
            names.append(str(found["name"]))
        found = found.get("parentClass")
    return ": ".join(reversed(names))


def _hex_color(color: object) -> str | None:
    """`[r, g, b]` or Java's packed signed integer as #rrggbb; None for anything else."""
    if isinstance(color, int):
        return f"#{color & 0xFFFFFF:06x}"
    if isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color):
        return "#" + bytes(color).hex()
    return None


def _plane(geometry: dict) -> tuple[str, str]:
    """Z and t of a geometry; the first of both where it does not say."""
    plane = geometry.get("plane")
    return (str(plane.get("z", 0)), str(plane.get("t", 0))) if isinstance(plane, dict) else ("0", "0")


def _areas(geometry: object, left_out: Counter[str], where: str, depth: int = 0) -> list[list]:
    """The rings of each polygon in a geometry: outline first, then holes."""
    if geometry is None:
        left_out["features without geometry left out"] += 1
        return []
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or not isinstance(kind, str):
        raise AnnotationError(f"{where}: geometry {shorten(repr(kind))} is not GeoJSON; export it again")
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        if not isinstance(parts, list) or depth > _DEEPEST:
            raise AnnotationError(f"{where}: its geometry collection is not a list of geometries; export it again")
        return [rings for part in parts for rings in _areas(part, left_out, where, depth + 1)]
    if kind in _NO_AREA:
        left_out["points or lines left out"] += 1
        return []
    coordinates = geometry.get("coordinates") if kind in ("Polygon", "MultiPolygon") else None
    areas: Any = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(areas, list) or not all(isinstance(rings, list) for rings in areas):
        raise AnnotationError(
            f"{where}: geometry {shorten(repr(kind))} is not a polygon as GeoJSON writes it; export it again"
        )
    return areas
