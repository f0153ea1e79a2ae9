"""Tissue types: ids, names, colours, in one small table that travels with every map.

A semantic map is uint8, `h w`, one id per pixel; 255 means unlabelled. `tissue.toml` is the table on disk:

    [[tissue]]
    id = 0
    name = "stroma"
    color = "#e8b4c8"
    aliases = ["connective tissue"]   # optional: names or palette colours in foreign files that mean this type
"""

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.errors import TissueError

UNLABELLED = 255
UNLABELLED_COLOR = (255, 255, 255)
# A colour-blind friendly cycle (Paul Tol's "bright" and "muted" schemes) for types that come without a colour.
DEFAULT_COLORS = (
    "#ee99aa", "#4477aa", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#332288", "#117733", "#882255",
)  # fmt: skip


@dataclass(frozen=True)
class TissueType:
    """One tissue type: `id` in 0..254, a `name`, a `color` as #rrggbb, other names that mean the same."""

    id: int
    name: str
    color: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 <= self.id < UNLABELLED:
            raise TissueError(f"tissue {self.name!r} has id {self.id}; ids run from 0 to 254 (255 is unlabelled)")
        try:
            _rgb(self.color)
        except ValueError:
            raise TissueError(f"tissue {self.name!r} has color {self.color!r}; write it as #rrggbb") from None


@dataclass(frozen=True)
class TissueTable:
    """Tissue types in order of id. Names are unique without regard to case; so are ids."""

    types: tuple[TissueType, ...]
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
                if by_name.setdefault(name.strip().lower(), tissue) is not tissue:
                    raise TissueError(f"the tissue table gives {name!r} to two types; names and aliases must be unique")
        object.__setattr__(self, "_by_name", by_name)

    @classmethod
    def from_names(cls, names: list[str]) -> "TissueTable":
        """A table with ids 0, 1, ... in the order of `names` and default colours."""
        return cls(tuple(TissueType(i, n, DEFAULT_COLORS[i % len(DEFAULT_COLORS)]) for i, n in enumerate(names)))

    @classmethod
    def load(cls, path: Path | str) -> "TissueTable":
        """Read `tissue.toml`; raises TissueError with file and cure."""
        path = Path(path)
        try:
            rows = tomllib.loads(path.read_text(encoding="utf-8")).get("tissue", [])
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TissueError(f"{path}: cannot read the tissue table ({error}); see docs/reference/files.md") from None
        try:
            if not isinstance(rows, list):
                raise TissueError("tissue is no list; write each type as [[tissue]]")
            return cls.from_rows(rows)
        except TissueError as error:
            raise TissueError(f"{path}: {error}") from None

    @classmethod
    def from_rows(cls, rows: list[dict]) -> "TissueTable":
        """A table from parsed TOML or JSON rows; unknown keys are refused."""
        types = []
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or type(row.get("id")) is not int or not isinstance(row.get("name"), str):
                raise TissueError(f"tissue entry {index + 1} needs an integer id and a text name")
            if unknown := set(row) - {"id", "name", "color", "aliases"}:
                raise TissueError(
                    f"tissue {row['name']!r} has unknown keys {sorted(unknown)}; known: id, name, color, aliases"
                )
            color, aliases = row.get("color", DEFAULT_COLORS[row["id"] % len(DEFAULT_COLORS)]), row.get("aliases", [])
            if not isinstance(color, str):
                raise TissueError(f"tissue {row['name']!r} has color {color!r}; write it as #rrggbb")
            if not isinstance(aliases, list):
                raise TissueError(f"tissue {row['name']!r} has aliases {aliases!r}; write them as a list of texts")
            types.append(TissueType(row["id"], row["name"], color, tuple(str(a) for a in aliases)))
        return cls(tuple(types))

    def to_rows(self) -> list[dict]:
        """Plain rows, the inverse of `from_rows`."""
        rows = [{"id": t.id, "name": t.name, "color": t.color, "aliases": list(t.aliases)} for t in self.types]
        return [row if row["aliases"] else {k: v for k, v in row.items() if k != "aliases"} for row in rows]

    def to_toml(self) -> str:
        """The text of `tissue.toml`."""
        blocks = []
        for row in self.to_rows():
            lines = [f"{key} = {_toml_value(value)}" for key, value in row.items()]
            blocks.append("[[tissue]]\n" + "\n".join(lines) + "\n")
        return "\n".join(blocks)

    def find(self, name: str) -> TissueType:
        """The type of this name or alias, in any case; raises TissueError listing the known names."""
        found = self._by_name.get(name.strip().lower())
        if found is None:
            raise TissueError(f"unknown tissue {name!r}; known: {', '.join(self.names)}")
        return found

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
        """The map as an RGB picture; unlabelled is white."""
        return np.asarray(self.palette(), np.uint8).reshape(256, 3)[semantic_map]

    def check(self, semantic_map: UInt8[np.ndarray, "h w"], where: str) -> None:
        """Raise TissueError naming `where` when the map holds an id that the table does not know."""
        unknown = sorted(set(np.unique(semantic_map).tolist()) - set(self.ids) - {UNLABELLED})
        if unknown:
            raise TissueError(
                f"{where}: map values {unknown[:5]} are in no tissue table (known: {self.ids}, 255 = unlabelled); "
                "add them to tissue.toml"
            )


def _rgb(color: str) -> tuple[int, int, int]:
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(color)
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _toml_value(value: int | str | list[str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    # A TOML basic string is a JSON string, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
