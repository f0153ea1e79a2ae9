"""QuPath's GeoJSON, from 0.2 to 0.6: a FeatureCollection, a list of features, one feature, or bare geometries.

How QuPath spells things: a class is `properties.classification`, as `{"name", "colorRGB": signed integer}` up to 0.3,
`{"name", "color": [r, g, b]}` since, `{"names": [...]}` for a derived class (joined by ": "). What an object is stands
in the feature's `id` in 0.2 ("PathAnnotationObject"), in `properties.object_type` in 0.3, in `objectType` since.
Points and lines have no area; detections, cells and tiles are measurements: both are counted, and left out.
"""

import gzip
import json
import zlib
from collections import Counter
from pathlib import Path

from histoloom.errors import AnnotationError
from histoloom.slides.polygon import Annotations, Polygon, build_polygons

_MAX_BYTES = 4 << 30  # unpacked; more is a bomb, or cells by the million that nobody drew
_DETECTIONS = {"detection", "cell", "tile", "pathdetectionobject", "pathcellobject", "pathtileobject"}
_NO_AREA = {"Point", "MultiPoint", "LineString", "MultiLineString"}


def read_qupath(path: Path, detections: bool = False) -> Annotations:
    """The polygons of a `.geojson`, `.json` or gzipped file; `detections` keeps detections, cells and tiles too.

    Raises AnnotationError naming file and feature: no GeoJSON, an empty ring, a coordinate that is no number.
    """
    polygons: list[Polygon] = []
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    for number, feature in enumerate(_features(_load(path), path), start=1):
        properties = feature.get("properties") or {}
        if not detections and _object_type(feature, properties) in _DETECTIONS:
            left_out["detections, cells or tiles"] += 1
            continue
        name, color = _classification(properties)
        where = f"{path}: feature {number}" + (f" ({name})" if name else "")
        for rings in _areas(feature.get("geometry"), left_out, where):
            built, repaired = build_polygons(rings, name, color, where)
            polygons += built
            notes += repaired
    notes += [f"{path}: {count} {what} left out" for what, count in left_out.items()]
    return Annotations(tuple(polygons), tuple(notes))


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise AnnotationError(f"{path}: larger than {_MAX_BYTES >> 30} GB unpacked; export annotations only")
        return json.loads(text.decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise AnnotationError(f"{path}: not readable as GeoJSON ({error}); export it again from QuPath") from None


def _features(document: object, path: Path) -> list[dict]:
    """All features of a document, whichever of the four shapes it has."""
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    items = document if isinstance(document, list) else [document]
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            raise AnnotationError(f"{path}: item {number} is no GeoJSON feature; export as GeoJSON from QuPath")
        if not isinstance(item.get("properties"), dict | None):
            raise AnnotationError(f"{path}: feature {number} has properties that are no table; export it again")
    return [item if item["type"] == "Feature" else {"type": "Feature", "geometry": item} for item in items]


def _object_type(feature: dict, properties: dict) -> str:
    kind = properties.get("objectType") or properties.get("object_type") or feature.get("id")
    return str(kind).lower()


def _classification(properties: dict) -> tuple[str | None, str | None]:
    """Class name and colour (#rrggbb); None where there is none."""
    found = properties.get("classification")
    if isinstance(found, str):
        return found or None, None
    if not isinstance(found, dict):
        return None, None
    names = found.get("names")
    name = found.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else None)
    return str(name) if name else None, _hex_color(found.get("color", found.get("colorRGB")))


def _hex_color(color: object) -> str | None:
    """`[r, g, b]` or Java's packed signed integer as #rrggbb; anything else is no colour."""
    if isinstance(color, int):
        return f"#{color & 0xFFFFFF:06x}"
    if isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color):
        return "#" + bytes(color).hex()
    return None


def _areas(geometry: object, left_out: Counter[str], where: str) -> list[list]:
    """The rings of each polygon in a geometry: outline first, then holes."""
    if geometry is None:
        left_out["features without geometry"] += 1
        return []
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection":
        return [rings for part in geometry.get("geometries", ()) for rings in _areas(part, left_out, where)]
    if kind in _NO_AREA:
        left_out["points or lines"] += 1
        return []
    coordinates = geometry.get("coordinates") if kind in ("Polygon", "MultiPolygon") else None
    areas = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(areas, list) or not all(isinstance(rings, list) for rings in areas):
        raise AnnotationError(f"{where}: geometry {kind!r} is not a polygon as GeoJSON writes it; export it again")
    return areas
