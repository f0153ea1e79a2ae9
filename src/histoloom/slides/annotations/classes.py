"""Class names, label values and colors in foreign files to the ids of a tissue table."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from histoloom.errors import TissueError
from histoloom.slides.polygon import Polygon
from histoloom.text import canonical, shorten
from histoloom.tissue import UNLABELLED, TissueTable, alias_range, ancestors

UNKNOWN = -1
IGNORED = "ignored"
EXCLUDED = "excluded"


class ClassRule:
    """What becomes of a class: the id of a type, or it is ignored, or cut out of the others, or unknown.

    One rule for all: the class itself decides, else the nearest class that it is derived from ("Tumor: Positive" from
    "Tumor") and that is known. Known are the classes to `ignore`, the names and aliases of `table`, the classes to
    `exclude`, and those that QuPath itself ignores (a name that ends in *), in this order.
    """

    def __init__(self, table: TissueTable, ignore: Sequence[str] = (), exclude: Sequence[str] = ()):
        self.table = table
        self._known: dict[str, int | str] = {ancestors(name)[0]: EXCLUDED for name in exclude}
        self._known |= {ancestors(name)[0]: t.id for t in table.types for name in (t.name, *t.aliases)}
        self._known |= {ancestors(name)[0]: IGNORED for name in ignore}

    def __call__(self, name: str) -> int | str | None:
        """An id, IGNORED, EXCLUDED, or None for a class that nothing knows."""
        for key in ancestors(name):
            if key in self._known:
                return self._known[key]
            if key.endswith("*"):
                return IGNORED
        return None

    def unknown(self, name: str, where: str) -> TissueError:
        """The error for a class that nothing knows."""
        return TissueError(
            f"{where}: class {shorten(name)!r} is in no tissue table (known: {', '.join(self.table.names)}); add it to "
            "tissue.toml as a type or an alias, or ignore it"
        )


def sort_polygons(
    polygons: Iterable[Polygon], rule: ClassRule
) -> tuple[list[Polygon], list[int], list[Polygon], list[str]]:
    """The polygons that have a type, the ids of these, those to cut out, and notes on those that are left out.

    Raises TissueError naming file and feature for a class that nothing knows.
    """
    kept, ids, holes = [], [], []
    left_out: Counter[str] = Counter()
    for polygon in polygons:
        if polygon.name is None:
            left_out["without a class"] += 1
            continue
        found = rule(polygon.name)
        if found is None:
            raise rule.unknown(polygon.name, polygon.where)
        if found == IGNORED:
            left_out[f"of the ignored class {shorten(polygon.name)!r}"] += 1
        elif found == EXCLUDED:
            holes.append(polygon)
        else:
            kept.append(polygon)
            ids.append(int(found))
    return kept, ids, holes, [f"{count} polygon(s) {what} left out" for what, count in left_out.items()]


def paint_order(ids: Sequence[int], table: TissueTable, order: Sequence[str] = ()) -> list[int]:
    """Indices of `ids` in the order of painting: later wins.

    Ascending by id, the types named in `order` (by default the order of the table) after all others and in that order;
    within a type, as in the file.
    """
    last = {table.find(name).id: rank for rank, name in enumerate(order or table.order)}
    return sorted(range(len(ids)), key=lambda i: (last.get(ids[i], -1), ids[i]))


def value_ids(table: TissueTable, ignore: Sequence[str] = ()) -> Int[np.ndarray, " 256"]:
    """Tissue id by label value, 255 where unlabeled, -1 where no type claims the value.

    A table with whole numbers or ranges among its aliases says what each value means; without any, values are ids. Of
    the values that no type claims, 0 (background in every tool) and 255 are unlabeled, and so is whatever `ignore`
    names: a value, or a type of the table with all values that mean it.
    """
    ranges = value_ranges(table)
    aliases = {int(a): t.id for t in table.types for a in t.aliases if a.strip().isdecimal() and int(a) < 256}
    lookup = np.full(256, UNKNOWN, np.int16)
    lookup[[0, UNLABELLED]] = UNLABELLED
    for low, high, tissue_id in ranges:
        lookup[low : high + 1] = tissue_id
    known = aliases if aliases or ranges else {t.id: t.id for t in table.types}
    for value, tissue_id in known.items():
        lookup[value] = tissue_id
    lookup[np.isin(lookup, ignored_ids(table, ignore))] = UNLABELLED
    lookup[[int(v) for v in ignore if v.isdecimal() and int(v) < 256]] = UNLABELLED
    return lookup


def ignored_ids(table: TissueTable, ignore: Sequence[str]) -> list[int]:
    """Ids of the types whose name or alias is in `ignore`; a number there is a label value and names no type."""
    names = {canonical(name) for name in ignore if not name.isdecimal()}
    return [t.id for t in table.types if names & {canonical(name) for name in (t.name, *t.aliases)}]


def value_ranges(table: TissueTable, ignore: Sequence[str] = ()) -> list[tuple[int, int, int]]:
    """First and last value and tissue id of each range among the aliases, and of each value above 255; later ones win.

    Instance masks number their objects, and masks of 16 bits have larger values.
    """
    ignored = ignored_ids(table, ignore)
    named = [(alias, UNLABELLED if t.id in ignored else t.id) for t in table.types for alias in t.aliases]
    ranges = [(*found, tissue) for alias, tissue in named if (found := alias_range(alias)) is not None]
    values = [*named, *((value, UNLABELLED) for value in ignore)]
    return ranges + [(int(v), int(v), tissue) for v, tissue in values if v.strip().isdecimal() and int(v) > UNLABELLED]


def color_ids(table: TissueTable, ignore: Sequence[str] = ()) -> dict[int, int]:
    """Tissue id by color (0xrrggbb) for tables with #rrggbb aliases, else empty; black and white are unlabeled."""
    claimed = {_packed(a): t.id for t in table.types for a in t.aliases if _is_color(a)}
    if not claimed:
        return {}
    ignored = ignored_ids(table, ignore)
    return (
        {0x000000: UNLABELLED, 0xFFFFFF: UNLABELLED}
        | {color: UNLABELLED if tissue in ignored else tissue for color, tissue in claimed.items()}
        | {_packed(c): UNLABELLED for c in ignore if _is_color(c)}
    )


def _is_color(text: str) -> bool:
    return len(text) == 7 and text[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in text[1:])


def _packed(color: str) -> int:
    return int(color[1:], 16)
