"""Class names, label values and colours in foreign files to the ids of a tissue table."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from histoloom.errors import TissueError
from histoloom.slides.polygon import Polygon
from histoloom.tissue import UNLABELLED, TissueTable

UNKNOWN = -1


def polygon_ids(
    polygons: Iterable[Polygon], table: TissueTable, ignore: Sequence[str] = ()
) -> tuple[list[Polygon], list[int], list[str]]:
    """The polygons that have a type, the ids of these, and notes on those left out.

    Left out are unclassified polygons, classes in `ignore`, and the classes that QuPath itself ignores (a name that
    ends in *), unless the table knows them. A derived class ("Tumor: Positive") that the table does not know counts as
    its base ("Tumor"). Raises TissueError naming file and feature for any other class.
    """
    ignored = {name.strip().lower() for name in ignore}
    kept, ids = [], []
    left_out: Counter[str] = Counter()
    for polygon in polygons:
        if polygon.name is None:
            left_out["without a class"] += 1
            continue
        found = _find(polygon.name, table)
        if polygon.name.strip().lower() in ignored or (found is None and polygon.name.endswith("*")):
            left_out[f"of the ignored class {polygon.name!r}"] += 1
        elif found is None:
            raise TissueError(
                f"{polygon.where}: class {polygon.name!r} is in no tissue table (known: {', '.join(table.names)}); "
                "add it to tissue.toml as a type or an alias, or ignore it"
            )
        else:
            kept.append(polygon)
            ids.append(found)
    return kept, ids, [f"{count} polygon(s) {what} left out" for what, count in left_out.items()]


def paint_order(ids: Sequence[int], table: TissueTable, order: Sequence[str] = ()) -> list[int]:
    """Indices of `ids` in the order of painting: later wins.

    Ascending by id, the types named in `order` after all others and in that order; within a type, as in the file.
    """
    last = {table.find(name).id: rank for rank, name in enumerate(order)}
    return sorted(range(len(ids)), key=lambda i: (last.get(ids[i], -1), ids[i]))


def value_ids(table: TissueTable, ignore: Sequence[str] = ()) -> Int[np.ndarray, " 256"]:
    """Tissue id by label value, 255 where unlabelled, -1 where no type claims the value.

    A table with whole numbers among its aliases says what each value means; without any, values are ids. Of the values
    that no type claims, 0 (background in every tool) and 255 are unlabelled, and so are those in `ignore`.
    """
    aliases = {int(a): t.id for t in table.types for a in t.aliases if a.strip().isdecimal() and int(a) < 256}
    lookup = np.full(256, UNKNOWN, np.int16)
    lookup[[0, UNLABELLED, *(int(v) for v in ignore if v.isdecimal() and int(v) < 256)]] = UNLABELLED
    for value, tissue_id in (aliases or {t.id: t.id for t in table.types}).items():
        lookup[value] = tissue_id
    return lookup


def color_ids(table: TissueTable, ignore: Sequence[str] = ()) -> dict[int, int]:
    """Tissue id by colour (0xrrggbb) for tables with #rrggbb aliases, else empty; black and white are unlabelled."""
    claimed = {_packed(a): t.id for t in table.types for a in t.aliases if _is_color(a)}
    if not claimed:
        return {}
    return {
        0x000000: UNLABELLED,
        0xFFFFFF: UNLABELLED,
        **{_packed(c): UNLABELLED for c in ignore if _is_color(c)},
    } | claimed


def _find(name: str, table: TissueTable) -> int | None:
    for candidate in (name, name.split(":")[0]):
        try:
            return table.find(candidate).id
        except TissueError:
            continue
    return None


def _is_color(text: str) -> bool:
    return len(text) == 7 and text[0] == "#" and all(c in "0123456789abcdefABCDEF" for c in text[1:])


def _packed(color: str) -> int:
    return int(color[1:], 16)
