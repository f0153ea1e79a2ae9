"""ASAP's XML, the format of Camelyon16 and 17: one outline per annotation, its class in `PartOfGroup`.

ASAP knows no holes. Camelyon16 draws them as annotations of the group `_2` (in some files "Exclusion");
`read_annotations` cuts these out of the others, as the official conversion to masks does. Entities are forbidden.
"""

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from histoloom.errors import AnnotationError
from histoloom.slides.polygon import Annotations, Polygon, build_polygons

# ASAP fills a spline through its points by straight lines too when it writes a mask.
_AREAS = {"Polygon", "Rectangle", "Spline"}


def read_asap(path: Path) -> Annotations:
    """The outlines of an ASAP file; the group "None" is no class; dots, point sets and measures are left out.

    Raises AnnotationError naming file and annotation: no ASAP XML, an entity, an empty outline, NaN.
    """
    polygons: list[Polygon] = []
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    root = _root(path)
    colors = {group.get("Name"): group.get("Color", "").lower() or None for group in root.iter("Group")}
    for number, annotation in enumerate(root.iter("Annotation"), start=1):
        kind = annotation.get("Type", "Polygon")
        if kind not in _AREAS:
            left_out[kind] += 1
            continue
        group = annotation.get("PartOfGroup", "None")
        name = None if group in ("None", "") else group
        where = f"{path}: annotation {number} ({annotation.get('Name', 'unnamed')}, group {group})"
        color = colors.get(group) or annotation.get("Color")
        built, repaired = build_polygons([_outline(annotation, where)], name, color, where)
        polygons += built
        notes += repaired
    notes += [
        f"{path}: {count} annotation(s) of type {kind} have no area; left out" for kind, count in left_out.items()
    ]
    return Annotations(tuple(polygons), tuple(notes))


def _root(path: Path) -> Element:
    try:
        root = parse(path).getroot()
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path}: declares XML entities ({type(error).__name__}), which annotations never need and attacks do; "
            "take the file from its source again"
        ) from None
    except (OSError, ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: not readable as XML ({error}); save it again from ASAP") from None
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(
            f"{path}: the XML begins with <{root.tag}>, ASAP's with <ASAP_Annotations>; open it in QuPath or ASAP "
            "and export GeoJSON or ASAP XML"
        )
    return root


def _outline(annotation: Element, where: str) -> list[tuple[float, float]]:
    """The points in the order of their `Order`, which files need not keep."""
    try:
        points = [(int(c.get("Order", i)), c) for i, c in enumerate(annotation.iter("Coordinate"))]
        return [(_number(c.get("X")), _number(c.get("Y"))) for _, c in sorted(points, key=lambda pair: pair[0])]
    except (TypeError, ValueError, AttributeError):
        raise AnnotationError(f"{where}: a coordinate is not a number; delete or redraw this annotation") from None


def _number(text: str) -> float:
    return float(text.replace(",", "."))  # ASAP under a Dutch or German locale wrote decimal commas
