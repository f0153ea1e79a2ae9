"""Foreign label maps, in whatever values or colors their tool wrote, as semantic maps.

What a value means is written in the tissue table. A type with whole numbers or ranges (`aliases = ["7"]`, `["1-500"]`,
`[">0"]`) among its aliases is read by these alone, any other by its id. A number counts before a range, a range
before an id, and the last of several ranges before the others. Colors are read by `color` and by aliases such as
"#ff0000". 255 and white are unlabeled unless a type claims them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from histoloom.errors import ImageError, TissueError
from histoloom.pictures import label_pixels, open_picture, pack_colors, transparent
from histoloom.shown import is_reversed, palette_of
from histoloom.text import counted
from histoloom.tissue import UNLABELLED, TissueTable, alias_range

_WHITE = 0xFFFFFF


@dataclass
class Tally:
    """In how many maps each type occurs, and in how many 255 or white, which no type claims."""

    maps: int = 0
    types: Counter[int] = field(default_factory=Counter)
    unclaimed: int = 0

    def count(self, semantic_map: UInt8[np.ndarray, "h w"], has_unclaimed: bool) -> None:
        """Count one map."""
        self.maps += 1
        self.types.update(set(np.unique(semantic_map).tolist()) - {UNLABELLED})
        self.unclaimed += has_unclaimed

    def hint(self) -> str:
        """What may have become of a type that never occurs; empty where 255 and white are rare."""
        if self.unclaimed * 2 < self.maps or not self.maps:
            return ""
        return (
            f"255 (white) is in {self.unclaimed} of {counted(self.maps, 'map')} and counts as unlabeled; if it means a "
            'type, give that type the alias "255" or "#ffffff"'
        )


class MapReader:
    """Reads maps by one tissue table; `unlabelled` lists further values ("0") or colors ("#000000") without a label. It
    is None where the user can neither name any nor change the table, which is that of a model.

    `tally` counts what was read. Raises TissueError where the table gives one value or color to two types.
    """

    def __init__(self, table: TissueTable, unlabelled: tuple[str, ...] | None = None):
        self.tally = Tally()
        self._names = {UNLABELLED: "unlabelled"} | {tissue.id: tissue.name for tissue in table.types}
        self._values: dict[int, int] = {}
        self._ids: set[int] = set()  # values that nothing but the id of a type claims
        self._colors: dict[int, int] = {}
        self._ranges = [
            (*found, tissue.id)
            for tissue in table.types
            for alias in tissue.aliases
            if (found := alias_range(alias)) is not None
        ]
        for tissue in table.types:
            values = [int(alias) for alias in tissue.aliases if _is_integer(alias)]
            has_range = any(tissue.id == of for _, _, of in self._ranges)
            _claim(self._values, values or ([] if has_range else [tissue.id]), tissue.id, self._names)
            self._ids |= set() if values or has_range else {tissue.id}
            colors = [color for alias in tissue.aliases if (color := _color(alias)) is not None]
            _claim(self._colors, colors, tissue.id, self._names)
        self._cure = "add it to the aliases of a type in the tissue table, or name it with --unlabelled"
        if unlabelled is None:
            known = ", ".join(f"{tissue.id} {tissue.name}" for tissue in table.types)
            self._cure = f"known: {known}, and 255 for unlabeled"
        for name in unlabelled or ():
            if (color := _color(name)) is None and not _is_integer(name):
                raise TissueError(f"unlabelled {name!r} is neither a value such as 0 nor a color such as #000000")
            meanings, key = (self._values, int(name)) if color is None else (self._colors, color)
            _claim(meanings, [key], UNLABELLED, self._names)
        self._by_color_only = bool(self._colors)
        own = Counter(tissue.color.lower() for tissue in table.types)
        for tissue in table.types:  # a color that several types are drawn in names none of them
            if own[tissue.color.lower()] == 1:
                _claim(self._colors, [_packed_color(tissue.color)], tissue.id, self._names)
        self._claims_255 = self._value(UNLABELLED) is not None
        if not self._claims_255:
            self._values[UNLABELLED] = UNLABELLED
        self._claims_white = _WHITE in self._colors
        self._colors.setdefault(_WHITE, UNLABELLED)

    def read(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """The semantic map in the file at `path`; raises ImageError, or TissueError for a value that no type claims.

        Gray maps are read by value, RGB by color, or a map of grays alone by value where no type has that gray;
        transparent pixels are unlabeled. Indexed maps are read by color where the table knows all their colors or
        has color aliases, else by value; index 255 is always a value. A palette of white, then black, is that of a
        gray map, which is read by its colors.
        """
        picture, coding = open_picture(path)
        if fault := coding.label_fault():
            raise ImageError(f"{path}: {fault}")
        hidden = transparent(picture)
        shown = np.ones((picture.height, picture.width), bool) if hidden is None else ~hidden
        codes, is_color = label_pixels(picture, coding)
        palette = palette_of(picture)
        if palette is not None and is_reversed(palette, codes[shown]):
            codes, is_color = pack_colors(np.asarray(picture.convert("RGB"))), True
            meaning = self._gray_meaning
        elif palette is not None:
            meaning = self._indexed_meaning(pack_colors(palette).tolist(), codes[shown], path)
        else:
            meaning = self._color_meaning(codes[shown]) if is_color else self._value
        semantic_map = self._translate(codes, shown, meaning, path, is_color)
        unclaimed = not self._claims_255 and not (is_color and self._claims_white)
        self.tally.count(semantic_map, bool(unclaimed and (codes[shown] == (_WHITE if is_color else UNLABELLED)).any()))
        return semantic_map

    def _translate(
        self,
        codes: Integer[np.ndarray, "h w"],
        shown: Bool[np.ndarray, "h w"],
        meaning: Callable[[int], int | None],
        path: Path,
        color: bool,
    ) -> UInt8[np.ndarray, "h w"]:
        present, place = np.unique(codes[shown], return_inverse=True)
        ids = [meaning(code) for code in present.tolist()]
        if None in ids:
            unknown = [code for code, tissue in zip(present.tolist(), ids, strict=True) if tissue is None]
            found = ("color " if color else "value ") + ", ".join(_shown(code, color) for code in unknown[:5])
            raise TissueError(f"{path}: map {found} belongs to no tissue type; {self._cure}")
        semantic_map = np.full(codes.shape, UNLABELLED, np.uint8)
        semantic_map[shown] = np.array(ids, np.uint8)[place.reshape(-1)] if ids else UNLABELLED
        return semantic_map

    def _value(self, value: int) -> int | None:
        found = self._values.get(value)
        if found is None or value in self._ids:
            found = next((tissue for low, high, tissue in reversed(self._ranges) if low <= value <= high), found)
        return found

    def _indexed_meaning(
        self, palette: list[int], indices: Integer[np.ndarray, " n"], path: Path
    ) -> Callable[[int], int | None]:
        used = {i: palette[i] for i in np.unique(indices).tolist() if i < min(len(palette), UNLABELLED)}
        by_color = {i: self._colors[color] for i, color in used.items() if color in self._colors}
        unknown = [color for i, color in used.items() if i not in by_color]
        # White is also the second color of any two-color map, so alone it is not evidence that colors count.
        evidence = {i: tissue for i, tissue in by_color.items() if used[i] != _WHITE or tissue != UNLABELLED}
        if unknown and (self._by_color_only or any(self._value(i) != tissue for i, tissue in evidence.items())):
            raise TissueError(
                f"{path}: the palette color {_shown(unknown[0], True)} belongs to no tissue type, though colors seem "
                f"to count; save the map as gray values; {self._cure}"
            )
        if unknown or not (evidence or self._by_color_only):
            return self._value
        return (by_color | {UNLABELLED: self._values.get(UNLABELLED, UNLABELLED)}).get

    def _color_meaning(self, colors: Integer[np.ndarray, " n"]) -> Callable[[int], int | None]:
        if (colors == (colors & 255) * 0x010101).all():
            return self._gray_meaning
        # Not by value: black is the background of a colored map, and would be the type of id 0.
        return (self._colors if self._claims_white else self._colors | {_WHITE: self._values[UNLABELLED]}).get

    def _gray_meaning(self, color: int) -> int | None:
        if color in self._colors and (color != _WHITE or self._claims_white):
            return self._colors[color]
        return self._value(color & 255)


def _claim(meanings: dict[int, int], keys: list[int], tissue: int, names: dict[int, str]) -> None:
    for key in keys:
        if (other := meanings.setdefault(key, tissue)) != tissue:
            raise TissueError(
                f"{_shown(key, key > 0xFFFF)} in maps would mean both {names[other]!r} and {names[tissue]!r}; "
                "give each value and color (id, color, aliases) to one type of the tissue table"
            )


def _shown(code: int, color: bool) -> str:
    return f"#{code:06x}" if color else str(code)


def _color(name: str) -> int | None:
    if len(name) != 7 or name[0] != "#":
        return None
    try:
        return _packed_color(name)
    except ValueError:
        return None


def _packed_color(name: str) -> int:
    return int.from_bytes(bytes.fromhex(name[1:]))


def _is_integer(name: str) -> bool:
    return name.isascii() and name.strip().isdigit()
