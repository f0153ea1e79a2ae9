"""Names and merges of discovered types, edited by hand in `discovered.toml`, which every later step reads.

    [[type]]
    id = 17
    name = "loose stroma"
    color = "#e8b4c8"   # optional
    merge = 3           # optional: id or name of the type that this one belongs to
    level = 5           # optional: the row is about a coarser level, by its number of types

Types without a row keep the name "type 17" and their own color. Types that merge at a fine level are one at all coarser
levels, so that types stay nested.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
from jaxtyping import Int

from histoloom.discovery.colors import nested_colors
from histoloom.discovery.levels import Levels
from histoloom.errors import ConfigError, TissueError
from histoloom.text import load_toml
from histoloom.tissue import UNLABELLED, TissueTable, TissueType

KEYS = {"id", "name", "color", "merge", "level"}
HEAD = """# Name and merge the types, then give this file to every later step with --names.
# Add to a row: merge = 3 (this type is part of type 3); level = 5 (the row is about the level of 5 types).

"""


@dataclass(frozen=True, eq=False)
class NamedTypes:
    """The levels after merging, and a tissue table for each, coarse to fine."""

    levels: Levels
    tables: tuple[TissueTable, ...]

    @property
    def finest(self) -> TissueTable:
        """The table of the finest level."""
        return self.tables[-1]

    def at(self, count: int | None) -> int:
        """The index of the level of `count` types, or of the finest for None; raises ConfigError for others."""
        if count is None:
            return len(self.levels.counts) - 1
        if count not in self.levels.counts:
            known = ", ".join(map(str, self.levels.counts))
            raise ConfigError(f"there is no level of {count} types; known: {known}")
        return self.levels.counts.index(count)


def name_types(ancestors: Int[np.ndarray, "l k"], counts: tuple[int, ...], path: Path | None = None) -> NamedTypes:
    """The types of a tree with the names in `path`; `ancestors` holds the type at each level of each finest type.

    Raises TissueError, naming the file, for an unknown id or level, a duplicate name, or merges in a circle.
    """
    if ancestors.shape[1] > UNLABELLED:
        raise ConfigError(f"{ancestors.shape[1]} types are more than a map can hold (255); discover fewer")
    rows = [] if path is None else _read(path)
    colors = nested_colors(ancestors)
    try:
        by_level = _by_level(rows, counts)
        tables, merges = zip(
            *(
                _level(rows, colors[i], f" of level {n}" if n != counts[-1] else "")
                for i, (n, rows) in enumerate(zip(counts, by_level, strict=True))
            ),
            strict=True,
        )
        of = _nest(ancestors, merges)
        kept = [
            TissueTable(tuple(t for t in table.types if t.id in row)) for table, row in zip(tables, of, strict=True)
        ]
    except TissueError as error:
        raise TissueError(f"{path}: {error}") from None
    return NamedTypes(Levels(counts, of.astype(np.uint8)), tuple(kept))


def draft_names(named: NamedTypes) -> str:
    """The text of a `discovered.toml` with a row for each of the finest types, to edit."""
    rows = [{"id": t.id, "name": t.name, "color": t.color} for t in named.finest.types]
    # One table after the other: tomli-w would write short ones inline, which are harder to edit.
    return HEAD + "\n".join("[[type]]\n" + tomli_w.dumps(row) for row in rows)


def _read(path: Path) -> list[dict]:
    try:
        document = load_toml(path)
    except (OSError, ValueError, RecursionError) as error:
        raise TissueError(f"{path}: cannot read the names ({error}); `histoloom discover look` drafts it") from None
    rows = document.get("type", [])
    if unknown := sorted(set(document) - {"type"}):
        raise TissueError(f"{path}: unknown key {unknown[0]!r:.80}; write each type as [[type]]")
    for number, row in enumerate(rows if isinstance(rows, list) else [None], start=1):
        if not isinstance(row, dict) or type(row.get("id")) is not int:
            raise TissueError(f"{path}: type entry {number} needs an integer id; write each type as [[type]]")
        if unknown := sorted(set(row) - KEYS):
            raise TissueError(f"{path}: type {row['id']} has unknown key {unknown[0]!r}; known: id, name, color, "
                              "merge, level")  # fmt: skip
        if not_text := [key for key in ("name", "color") if not isinstance(row.get(key, ""), str)]:
            raise TissueError(f"{path}: {not_text[0]} of type {row['id']} is {row[not_text[0]]!r:.80}; write a text")
    return rows


def _by_level(rows: list[dict], counts: tuple[int, ...]) -> list[list[dict]]:
    """The rows of each level, coarse to fine, at most one per type."""
    sorted_rows: dict[int, dict[int, dict]] = {count: {} for count in counts}
    for row in rows:
        level = row.get("level", counts[-1])
        if type(level) is not int or level not in sorted_rows:
            raise TissueError(f"type {row['id']} has unknown level {level!r:.40}; known: {', '.join(map(str, counts))}")
        if row["id"] in sorted_rows[level]:
            raise TissueError(f"type {row['id']} has two rows; keep one")
        sorted_rows[level][row["id"]] = row
    return [list(of_level.values()) for of_level in sorted_rows.values()]


def _level(rows: list[dict], colors: list[str], where: str) -> tuple[TissueTable, dict[int, int]]:
    """The named types of a level, and the id that each type finally merges into."""
    for row in rows:
        if not 0 <= row["id"] < len(colors):
            raise TissueError(f"type {row['id']}{where} does not exist; ids run from 0 to {len(colors) - 1}")
    given = {row["id"]: row for row in rows}
    names = {i: str(given.get(i, {}).get("name", f"type {i}")) for i in range(len(colors))}
    into = {i: _target(row, names, where) for i, row in given.items() if "merge" in row}
    roots = {i: _root(i, into, where) for i in names}
    owner: dict[str, int] = {}
    for i in sorted(set(roots.values())):
        if (other := owner.setdefault(names[i].strip().lower(), i)) != i:
            raise TissueError(f"types {other} and {i}{where} are both named {names[i]!r}; rename one, or write "
                              f"merge = {other} into the row of {i}")  # fmt: skip
    types = (TissueType(i, names[i], str(given.get(i, {}).get("color", colors[i]))) for i in owner.values())
    return TissueTable(tuple(types)), roots


def _target(row: dict, names: dict[int, str], where: str) -> int:
    wanted = row["merge"]
    by_name = {name.strip().lower(): i for i, name in names.items()}
    found = by_name.get(wanted.strip().lower()) if isinstance(wanted, str) else wanted
    if type(found) is not int or found not in names:
        raise TissueError(f"type {row['id']}{where} merges into {wanted!r:.80}, which is unknown; give an id from 0 to "
                          f"{len(names) - 1}, or a name")  # fmt: skip
    return found


def _root(start: int, into: dict[int, int], where: str) -> int:
    seen = [start]
    while (at := seen[-1]) in into:
        if into[at] in seen:
            circle = " -> ".join(map(str, [*seen[seen.index(into[at]) :], into[at]]))
            raise TissueError(f"types{where} merge in a circle: {circle}; remove one merge")
        seen.append(into[at])
    return seen[-1]


def _nest(ancestors: Int[np.ndarray, "l k"], merges: tuple[dict[int, int], ...]) -> Int[np.ndarray, "l k"]:
    """The type at each level of each finest type, merged on the way up the tree."""
    here = ancestors[-1]
    of = np.empty_like(ancestors)
    for level in reversed(range(len(ancestors))):
        # The parents of all types of the level below, by that type's id.
        parent = dict(zip(ancestors[min(level + 1, len(ancestors) - 1)].tolist(), ancestors[level].tolist(),
                          strict=True))  # fmt: skip
        here = np.array([merges[level][parent[i]] for i in here.tolist()])
        of[level] = here
    return of
