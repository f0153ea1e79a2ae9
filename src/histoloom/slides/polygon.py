"""Polygons in level-0 pixels: what every vector format of annotations is turned into.

The origin is the top-left corner of the top-left pixel, so the center of pixel (0, 0) is at (0.5, 0.5), as in QuPath
and ASAP.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float

from histoloom.errors import AnnotationError

_FARTHEST = 1e8  # level-0 pixels; the largest slides have some 5e5


@dataclass(frozen=True, eq=False)
class Polygon:
    """One simple outline with holes; rings are open (the last point is not the first again) and do not cross."""

    ring: Float[np.ndarray, "n 2"]  # x y
    holes: tuple[Float[np.ndarray, "_ 2"], ...] = ()
    name: str | None = None  # class in the file; None = unclassified
    color: str | None = None  # #rrggbb
    where: str = "polygon"  # file and feature, for messages

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return (*self.ring.min(axis=0).tolist(), *self.ring.max(axis=0).tolist())

    def to_shapely(self) -> shapely.Polygon:
        """The same outline as a shapely geometry."""
        return shapely.Polygon(self.ring, self.holes)


@dataclass(frozen=True)
class Annotations:
    """What a vector file holds: polygons in the order of the file, and one line for each thing repaired or left out."""

    polygons: tuple[Polygon, ...]
    notes: tuple[str, ...] = ()
    broken: tuple[tuple[str | None, AnnotationError], ...] = ()  # class and fault of what cannot be drawn


def build_polygons(
    rings: Sequence[object], name: str | None, color: str | None, where: str
) -> tuple[list[Polygon], list[str]]:
    """Valid polygons from an outline and its holes, and notes on what was repaired.

    Hand-drawn outlines cross themselves often, so they are repaired, not refused: all that the pen went around stays
    inside (GEOS "structure" method; a figure of eight becomes two polygons). A stray click without area, and an outline
    without points, are left out. Both are noted. Raises AnnotationError, beginning with `where`, for points that are
    not numbers.
    """
    if not rings:
        return [], [f"{where}: left out, it has no outline"]
    outline, *holes = (_points(ring, where) for ring in rings)
    if len(outline) < 3:
        return [], [f"{where}: left out, {_count(rings[0])} point(s) make no area"]
    drawn = shapely.Polygon(outline, [hole for hole in holes if len(hole) >= 3])
    if shapely.is_valid(drawn):
        return from_shapely(drawn, name, color, where), []
    polygons = from_shapely(shapely.make_valid(drawn, method="structure", keep_collapsed=False), name, color, where)
    if not polygons:
        return [], [f"{where}: left out, its outline encloses no area"]
    parts = "1 part" if len(polygons) == 1 else f"{len(polygons)} parts"
    return polygons, [f"{where}: the outline crosses itself; repaired ({shapely.is_valid_reason(drawn)}; {parts} kept)"]


def from_shapely(geometry: shapely.Geometry, name: str | None, color: str | None, where: str) -> list[Polygon]:
    """The areas of a shapely geometry; points, lines and empty parts of it are dropped."""
    areas = [g for g in shapely.get_parts(geometry) if isinstance(g, shapely.Polygon) and g.area > 0]
    return [
        Polygon(_open(area.exterior), tuple(_open(hole) for hole in area.interiors), name, color, where)
        for area in areas
    ]


def cut_out(polygons: Iterable[Polygon], excluded: Sequence[Polygon]) -> list[Polygon]:
    """The polygons without the excluded areas; one inside an excluded area disappears."""
    if not excluded:
        return list(polygons)
    area = shapely.union_all([p.to_shapely() for p in excluded])
    shapely.prepare(area)
    kept = []
    for polygon in polygons:
        whole = polygon.to_shapely()
        kept += (
            from_shapely(whole.difference(area), polygon.name, polygon.color, polygon.where)
            if area.intersects(whole)
            else [polygon]
        )
    return kept


def check_on_slide(polygons: Iterable[Polygon], slide_size: tuple[int, int]) -> list[str]:
    """Notes on polygons that reach over the border of a slide of `slide_size` (width, height) in level-0 pixels.

    Raises AnnotationError for one that is off the slide altogether: the file is most likely another slide's.
    """
    width, height = slide_size
    notes = []
    for polygon in polygons:
        left, top, right, bottom = polygon.bounds
        if is_off_slide(polygon, slide_size):
            raise AnnotationError(
                f"{polygon.where}: is off the slide (x {left:.0f}..{right:.0f}, y {top:.0f}..{bottom:.0f}; the slide "
                f"is {width} x {height} pixels); take this slide's own annotations, in level-0 pixels"
            )
        if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
            notes.append(f"{polygon.where}: reaches over the border of the slide; cut there")
    return notes


def is_off_slide(polygon: Polygon, slide_size: tuple[int, int]) -> bool:
    """True where no part of the polygon is on the slide."""
    left, top, right, bottom = polygon.bounds
    return right <= 0 or bottom <= 0 or left >= slide_size[0] or top >= slide_size[1]


def _points(ring: object, where: str) -> Float[np.ndarray, "n 2"]:
    """Distinct neighbors of a ring as float64 (n 2); other axes (z) are dropped."""
    try:
        points: np.ndarray = np.asarray(ring, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(1)  # refused below
    if points.size == 0 and points.ndim < 3:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] < 2:
        raise AnnotationError(f"{where}: a ring is not a list of [x, y] numbers; export the annotations again")
    points = points[:, :2]
    if not (np.abs(points) < _FARTHEST).all():
        raise AnnotationError(
            f"{where}: a coordinate is NaN, infinite or beyond any slide; delete or redraw the polygon"
        )
    return points[(points != np.roll(points, -1, axis=0)).any(axis=1)]


def _count(ring: object) -> int:
    return len(ring) if isinstance(ring, list | tuple) else 0


def _open(ring: shapely.LinearRing) -> Float[np.ndarray, "n 2"]:
    return shapely.get_coordinates(ring)[:-1]
