"""ASAP's XML, the format of Camelyon16 and 17: one outline per annotation, its class in `PartOfGroup`.

ASAP has no holes. Camelyon16 draws them as annotations of the group `_2` (in some files "Exclusion");
`read_annotations` cuts these out of the others, as the official conversion to masks does. Entities are forbidden.
"""

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from histoloom.errors import AnnotationError
from histoloom.slides.polygon import Annotations, Polygon, build_polygons
from histoloom.text import one_line, shorten

# ASAP, too, fills a spline through its points by straight lines when it writes a mask.
_AREAS = {"Polygon", "Rectangle", "Spline"}
_MAX_BYTES = 128 << 20
_MAX_ELEMENTS = 4 << 20


def read_asap(path: Path, keep_broken: bool = False) -> Annotations:
    """The outlines of an ASAP file; the group "None" is not a class; dots, point sets and measures are left out.

    Raises AnnotationError naming file and annotation: not ASAP's XML, an entity, NaN. With `keep_broken`, an annotation
    that cannot be drawn is listed with its class instead.
    """
    polygons: list[Polygon] = []
    notes: list[str] = []
    broken: list[tuple[str | None, AnnotationError]] = []
    left_out: Counter[str] = Counter()
    root = _root(path)
    colors = {group.get("Name"): group.get("Color", "").lower() or None for group in root.iter("Group")}
    for number, annotation in enumerate(root.iter("Annotation"), start=1):
        kind = annotation.get("Type", "Polygon")
        if kind not in _AREAS:
            left_out[kind] += 1
            continue
        group = annotation.get("PartOfGroup", "None").strip()
        name = None if group in ("None", "") else group
        where = (
            f"{path}: annotation {number} ({shorten(annotation.get('Name', 'unnamed'), 60)}, group "
            f"{shorten(group, 60)})"
        )
        color = colors.get(group) or annotation.get("Color")
        try:
            built, repaired = build_polygons([_outline(annotation, where)], name, color, where)
        except AnnotationError as error:
            if not keep_broken:
                raise
            broken.append((name, error))
            continue
        polygons += built
        notes += repaired
    notes += [
        f"{path}: {count} annotation(s) of type {shorten(kind, 60)} have no area; left out"
        for kind, count in left_out.items()
    ]
    return Annotations(tuple(polygons), tuple(notes), tuple(broken))


def _root(path: Path) -> Element:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES or data.count(b"<") > _MAX_ELEMENTS:
            raise AnnotationError(
                f"{path}: has more than {_MAX_BYTES >> 20} MB or {_MAX_ELEMENTS >> 20} million points"
            )
        root = fromstring(data.lstrip() if data[:1].isspace() else data)
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path}: declares XML entities ({type(error).__name__}), which annotations never need and attacks do; "
            "take the file from its source again"
        ) from None
    except (OSError, ParseError, ValueError, LookupError, RecursionError) as error:
        reason = one_line(str(error), 200)
        raise AnnotationError(f"{path}: not readable as XML ({reason}); save it again from ASAP") from None
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(
            f"{path}: the XML begins with <{shorten(root.tag, 60)}>, ASAP's with <ASAP_Annotations>; export the "
            "annotations as GeoJSON or ASAP XML from the program that drew them"
        )
    return root


def _outline(annotation: Element, where: str) -> list[tuple[float, float]]:
    """The points in the order of their `Order`, which files need not keep."""
    points: list[tuple[float, float, float]] = []
    for number, coordinate in enumerate(annotation.iter("Coordinate")):
        try:
            order = _number(coordinate.get("Order", str(number)))
        except ValueError:
            raise AnnotationError(f"{where}: the Order of a coordinate is not a number; export it again") from None
        try:
            points.append((order, _number(coordinate.get("X", "")), _number(coordinate.get("Y", ""))))
        except ValueError:
            raise AnnotationError(f"{where}: a coordinate is not a number; delete or redraw this annotation") from None
    return [(x, y) for _, x, y in sorted(points, key=lambda point: point[0])]


def _number(text: str) -> float:
    return float(text.replace(",", "."))  # ASAP under a Dutch or German locale wrote decimal commas
