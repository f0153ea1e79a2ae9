"""Tissue types: ids, names, colors, in one small table that travels with every map.

A semantic map is uint8, `h w`, one id per pixel; 255 means unlabeled. `tissue.toml` is the table on disk:

    order = ["stroma", "gland"]       # optional: where annotations overlap, the last one wins

    [[tissue]]
    id = 0
    name = "stroma"
    color = "#e8b4c8"
    aliases = ["connective tissue"]   # optional: names, values, ranges or colors in foreign files that mean this type
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import TissueError
from histoloom.text import canonical, is_file_name, load_toml, shorten, tidy

UNLABELLED = 255
UNLABELLED_COLOR = (255, 255, 255)
LAST_ID = 253  # 254 and 255 are sentinels: 254 marks a map that is held out, 255 pixels without a label
LONGEST_NAME = 80  # characters; a name is also the name of a folder
# A color-blind friendly cycle (Paul Tol's "bright" and "muted" schemes) for types that come without a color.
DEFAULT_COLORS = (
    "#ee99aa", "#4477aa", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#332288", "#117733", "#882255",
)  # fmt: skip
_MOST_BYTES = 4 << 20
_MOST_ALIASES = 2**16
_RANGE = re.compile(r"\s*(?:>\s*(?P<above>\d{1,10})|(?P<low>\d{1,10})\s*[-\u2013]\s*(?P<high>\d{1,10}))\s*")


@dataclass(frozen=True)
class TissueType:
    """One tissue type: `id` from 0 to 253, a `name`, a `color` as #rrggbb, other names that mean the same.

    The name is also the name of a folder: TissueError for separators, control characters and more than 80 characters.
    """

    id: int
    name: str
    color: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 <= self.id <= LAST_ID:
            raise TissueError(
                f"tissue {shorten(self.name)!r} has id {shorten(str(self.id))}; ids run from 0 to {LAST_ID} (255 is "
                "unlabeled)"
            )
        if not is_file_name(self.name) or len(self.name) > LONGEST_NAME or len(self.name.encode()) > 200:
            raise TissueError(
                f"tissue name {shorten(self.name)!r} cannot name a folder: use at most {LONGEST_NAME} characters, and "
                "no slash, backslash or control character"
            )
        try:
            _rgb(self.color)
        except ValueError:
            raise TissueError(f"tissue {self.name!r} has color {shorten(self.color)!r}; write it as #rrggbb") from None


@dataclass(frozen=True)
class TissueTable:
    """Tissue types in order of id. Names are unique without regard to case; so are ids.

    `order` names the types that are painted last where annotations overlap, the last one on top.
    """

    types: tuple[TissueType, ...]
    order: tuple[str, ...] = ()
    _by_name: dict[str, TissueType] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "types", tuple(sorted(self.types, key=lambda t: t.id)))
        ids = [t.id for t in self.types]
        if not ids:
            raise TissueError("the tissue table is empty; give at least one [[tissue]] with id and name")
        if len(set(ids)) < len(ids):
            raise TissueError(f"the tissue table uses an id twice: {ids}; ids must be unique")
        by_name: dict[str, TissueType] = {}
        for tissue in self.types:
            for name in (tissue.name, *tissue.aliases):
                if by_name.setdefault(canonical(name), tissue) is not tissue:
                    raise TissueError(
                        f"the tissue table gives {shorten(name)!r} to two types; names and aliases must be unique"
                    )
        object.__setattr__(self, "_by_name", by_name)
        for name in self.order:
            self.find(name)

    @classmethod
    def from_names(cls, names: list[str]) -> "TissueTable":
        """A table with ids 0, 1, ... in the order of `names` and default colors."""
        return cls(tuple(TissueType(i, n, DEFAULT_COLORS[i % len(DEFAULT_COLORS)]) for i, n in enumerate(names)))

    @classmethod
    def load(cls, path: Path | str) -> "TissueTable":
        """Read `tissue.toml`; raises TissueError naming the file and what to change."""
        path = Path(path)
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise TissueError(f"{path}: is larger than {_MOST_BYTES >> 20} MB; is it a tissue table?")
            document = load_toml(path)
        except (OSError, ValueError, RecursionError) as error:
            reason = shorten(" ".join(str(getattr(error, "strerror", None) or error).split()))
            raise TissueError(f"{path}: cannot read the tissue table ({reason})") from None
        if unknown := set(document) - {"tissue", "order"}:
            raise TissueError(f"{path}: unknown keys {sorted(map(shorten, unknown))}; known: tissue, order")
        rows, order = document.get("tissue", []), document.get("order", [])
        try:
            if not isinstance(rows, list):
                raise TissueError("tissue is not a list; write each type below a line [[tissue]]")
            if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
                raise TissueError(f"order is {shorten(str(order))}; write it as a list of tissue names")
            return cls(cls.from_rows(rows).types, tuple(order))
        except TissueError as error:
            raise TissueError(f"{path}: {error}") from None

    @classmethod
    def from_rows(cls, rows: list[dict]) -> "TissueTable":
        """A table from parsed TOML or JSON rows; raises TissueError for anything else, and for unknown keys."""
        if not isinstance(rows, list):
            raise TissueError(f"the tissue table is {shorten(str(rows))}; it must be a list of types")
        return cls(tuple(_type_from_row(row, number) for number, row in enumerate(rows, start=1)))

    def to_rows(self) -> list[dict]:
        """Plain rows, the inverse of `from_rows`."""
        rows = [{"id": t.id, "name": t.name, "color": t.color, "aliases": list(t.aliases)} for t in self.types]
        return [row if row["aliases"] else {k: v for k, v in row.items() if k != "aliases"} for row in rows]

    def to_toml(self) -> str:
        """The text of `tissue.toml`."""
        import tomli_w

        document: dict[str, object] = {"order": list(self.order)} if self.order else {}
        return tomli_w.dumps(document | {"tissue": self.to_rows()})

    def find(self, name: str) -> TissueType:
        """The type of this name or alias, in any case; raises TissueError listing the known names."""
        found = self._by_name.get(canonical(name))
        if found is None:
            raise TissueError(f"unknown tissue {shorten(name)!r}; known: {', '.join(self.names)}")
        return found

    def moved(self, ids: Iterable[tuple[str, int]]) -> tuple[str, int, int] | None:
        """The first of these names with an id that has another id here: the name, that id, and the one here."""
        for name, id in ids:
            found = self._by_name.get(canonical(name))
            if found is not None and found.id != id:
                return name, id, found.id
        return None

    @property
    def names(self) -> list[str]:
        """Names in order of id."""
        return [t.name for t in self.types]

    @property
    def ids(self) -> list[int]:
        """Ids in ascending order; gaps are allowed."""
        return [t.id for t in self.types]

    @property
    def num_ids(self) -> int:
        """Largest id + 1: the size of an array indexed by id."""
        return self.types[-1].id + 1

    def palette(self) -> list[int]:
        """256 x RGB as one flat list, for an indexed PNG."""
        colors = np.full((256, 3), UNLABELLED_COLOR, np.uint8)
        for tissue in self.types:
            colors[tissue.id] = _rgb(tissue.color)
        return colors.ravel().tolist()

    def colorize(self, semantic_map: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
        """The map as an RGB picture; unlabeled is white."""
        return np.asarray(self.palette(), np.uint8).reshape(256, 3)[semantic_map]

    def check(self, semantic_map: UInt8[np.ndarray, "h w"], where: str) -> None:
        """Raise TissueError naming `where` for a map of anything but whole numbers that the table knows."""
        kind = np.asarray(semantic_map).dtype
        if not np.issubdtype(kind, np.integer):
            raise TissueError(f"{where}: the map holds {kind}; give whole numbers, such as map.astype(np.uint8)")
        unknown = sorted(set(np.unique(semantic_map).tolist()) - set(self.ids) - {UNLABELLED})
        if unknown:
            raise TissueError(
                f"{where}: map values {unknown[:5]} are in no tissue table (known: {self.ids}, 255 = unlabeled); "
                "add them to tissue.toml"
            )


def ancestors(name: str) -> list[str]:
    """A class and the classes that it is derived from, nearest first, as they are compared.

    QuPath joins them by ": ", so "Tumor: in situ" is derived from "Tumor".
    """
    parts = [tidy(part) for part in canonical(name).split(":")]
    return [": ".join(parts[:count]) for count in range(len(parts), 0, -1)]


def alias_range(alias: str) -> tuple[int, int] | None:
    """First and last value of a range among the aliases, "1-500" or ">0"; None for other aliases."""
    found = _RANGE.fullmatch(alias)
    if found is None:
        return None
    if found["above"] is not None:
        return int(found["above"]) + 1, 2**63 - 1
    return int(found["low"]), int(found["high"])


def _type_from_row(row: object, number: int) -> TissueType:
    if not isinstance(row, dict) or type(row.get("id")) is not int or not isinstance(row.get("name"), str):
        raise TissueError(f"tissue entry {number} needs an integer id and a text name")
    name = shorten(row["name"])
    if unknown := set(row) - {"id", "name", "color", "aliases"}:
        raise TissueError(
            f"tissue {name!r} has unknown keys {sorted(map(str, unknown))}; known: id, name, color, aliases"
        )
    color, aliases = row.get("color", DEFAULT_COLORS[row["id"] % len(DEFAULT_COLORS)]), row.get("aliases", [])
    if not isinstance(color, str):
        raise TissueError(f"tissue {name!r} has color {shorten(str(color))!r}; write it as #rrggbb")
    is_list = isinstance(aliases, list) and len(aliases) <= _MOST_ALIASES
    if not is_list or not all(type(alias) in (str, int) for alias in aliases):
        raise TissueError(
            f"tissue {name!r} has aliases {shorten(str(aliases))!r}; write them as a list of texts or whole numbers"
        )
    return TissueType(row["id"], row["name"], color, tuple(str(a) for a in aliases))


def _rgb(color: str) -> tuple[int, int, int]:
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(color)
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue
