"""Foreign label maps, in whatever values or colours their tool wrote, as semantic maps.

What a value means stands in the tissue table. A type with integer aliases (`aliases = ["7"]`) is read by these alone,
any other by its id; colours are read by `color` and by aliases such as "#ff0000". 255 and white are unlabelled unless a
type claims them.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer, UInt8
from PIL import Image

from histoloom.errors import ImageError, TissueError
from histoloom.tissue import UNLABELLED, TissueTable

BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, Image.DecompressionBombError)  # what Pillow raises
LOSSY = (".jpg", ".jpeg", ".webp")
_WHITE = 0xFFFFFF


def open_picture(path: Path) -> Image.Image:
    """The picture with its pixels loaded; raises ImageError for broken, multi-page and rotated files."""
    try:
        with Image.open(path) as picture:
            picture.load()
            pages, orientation = getattr(picture, "n_frames", 1), picture.getexif().get(0x0112, 1)
    except BROKEN as error:
        raise ImageError(f"{path}: cannot read the picture ({error}); replace the file or leave it out") from None
    if pages > 1:
        raise ImageError(f"{path}: holds {pages} pages; save the one that counts as a picture of its own")
    if orientation != 1:
        raise ImageError(
            f"{path}: is stored rotated (EXIF orientation {orientation}); save it upright, as its map lies"
        )
    return picture


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image as 8-bit RGB; raises ImageError for other depths and colour spaces."""
    picture = open_picture(path)
    if picture.mode not in ("RGB", "RGBA", "P", "L"):
        raise ImageError(f"{path}: has pixels of kind {picture.mode!r}; save it as 8-bit RGB")
    return np.asarray(picture.convert("RGB"))


class MapReader:
    """Reads maps by one tissue table; `unlabelled` lists further values ("0") or colours ("#000000") without a label.

    Raises TissueError where the table gives one value or colour to two types.
    """

    def __init__(self, table: TissueTable, unlabelled: tuple[str, ...] = ()):
        self._names = {UNLABELLED: "unlabelled"} | {tissue.id: tissue.name for tissue in table.types}
        self._values: dict[int, int] = {}
        self._colors: dict[int, int] = {}
        for tissue in table.types:
            values = [int(alias) for alias in tissue.aliases if _is_integer(alias)]
            _claim(self._values, values or [tissue.id], tissue.id, self._names)
            colors = [color for alias in tissue.aliases if (color := _color(alias)) is not None]
            _claim(self._colors, colors, tissue.id, self._names)
        for name in unlabelled:
            if (color := _color(name)) is None and not _is_integer(name):
                raise TissueError(f"unlabelled {name!r} is neither a value such as 0 nor a colour such as #000000")
            meanings, key = (self._values, int(name)) if color is None else (self._colors, color)
            _claim(meanings, [key], UNLABELLED, self._names)
        self._by_color_only = bool(self._colors)
        own = Counter(tissue.color.lower() for tissue in table.types)
        for tissue in table.types:  # a colour that several types are drawn in names none of them
            if own[tissue.color.lower()] == 1:
                _claim(self._colors, [_color(tissue.color)], tissue.id, self._names)
        self._values.setdefault(UNLABELLED, UNLABELLED)
        self._colors.setdefault(_WHITE, UNLABELLED)

    def read(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """The semantic map in the file at `path`; raises ImageError, or TissueError for a value no type claims.

        Grey maps are read by value, RGB by colour, or by value where the channels agree and no type has that grey;
        transparent pixels are unlabelled. Indexed maps are read by colour where the table knows all their colours or
        has colour aliases, else by value; index 255 is always a value.
        """
        picture = open_picture(path)
        pixels = np.asarray(picture)
        if picture.mode == "P":
            return _translate(pixels, self._indexed_meaning(picture, pixels, path), path)
        if picture.mode in ("RGB", "RGBA"):
            ids = _translate(_pack(pixels), self._color_meaning, path, color=True)
            return ids if picture.mode == "RGB" else np.where(pixels[..., 3] == 0, np.uint8(UNLABELLED), ids)
        if picture.mode not in ("1", "L") and not picture.mode.startswith("I"):
            raise ImageError(
                f"{path}: a map has pixels of kind {picture.mode!r}; save it as indexed or grey, 8 or 16 bit"
            )
        return _translate(pixels.astype(np.int64), self._values.get, path)

    def _indexed_meaning(
        self, picture: Image.Image, indices: UInt8[np.ndarray, "h w"], path: Path
    ) -> Callable[[int], int | None]:
        palette = _pack(np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)).tolist()
        used = {i: palette[i] for i in np.unique(indices).tolist() if i < min(len(palette), UNLABELLED)}
        by_color = {i: self._colors[color] for i, color in used.items() if color in self._colors}
        unknown = [color for i, color in used.items() if i not in by_color]
        # White is also the second colour of any two-colour map, so alone it is no evidence that colours count.
        evidence = {i: tissue for i, tissue in by_color.items() if used[i] != _WHITE or tissue != UNLABELLED}
        if unknown and (self._by_color_only or any(self._values.get(i) != tissue for i, tissue in evidence.items())):
            raise TissueError(
                f"{path}: the palette colour {_shown(unknown[0], True)} belongs to no tissue type, though colours seem "
                "to count; add it to the aliases of a type in the tissue table, or save the map as grey values"
            )
        if unknown or not (evidence or self._by_color_only):
            return self._values.get
        return (by_color | {UNLABELLED: self._values[UNLABELLED]}).get

    def _color_meaning(self, color: int) -> int | None:
        red, green, blue = color >> 16, color >> 8 & 255, color & 255
        return self._colors.get(color, self._values.get(red) if red == green == blue else None)


def _translate(
    codes: Integer[np.ndarray, "h w"], meaning: Callable[[int], int | None], path: Path, color: bool = False
) -> UInt8[np.ndarray, "h w"]:
    present = np.unique(codes)
    ids = [meaning(code) for code in present.tolist()]
    if None in ids:
        unknown = [code for code, tissue in zip(present.tolist(), ids, strict=True) if tissue is None]
        found = ("colour " if color else "value ") + ", ".join(_shown(code, color) for code in unknown[:5])
        lossy = " (a lossy format blurs values: save maps as PNG)" if path.suffix.lower() in LOSSY else ""
        raise TissueError(
            f"{path}: map {found} belongs to no tissue type{lossy}; add it to the aliases of a type in the tissue "
            "table, or name it with --unlabelled"
        )
    return np.array(ids, np.uint8)[np.searchsorted(present, codes)]


def _claim(meanings: dict[int, int], keys: list[int], tissue: int, names: dict[int, str]) -> None:
    for key in keys:
        if (other := meanings.setdefault(key, tissue)) != tissue:
            raise TissueError(
                f"{_shown(key, key > 0xFFFF)} in maps would mean both {names[other]!r} and {names[tissue]!r}; "
                "give each value and colour (id, color, aliases) to one type of the tissue table"
            )


def _shown(code: int, color: bool) -> str:
    return f"#{code:06x}" if color else str(code)


def _pack(colors: UInt8[np.ndarray, "*n c"]) -> Int64[np.ndarray, "*n"]:
    red, green, blue = (colors[..., channel].astype(np.int64) for channel in range(3))
    return red << 16 | green << 8 | blue


def _color(name: str) -> int | None:
    if len(name) != 7 or name[0] != "#":
        return None
    try:
        return int.from_bytes(bytes.fromhex(name[1:]))
    except ValueError:
        return None


def _is_integer(name: str) -> bool:
    return name.isascii() and name.strip().isdigit()
