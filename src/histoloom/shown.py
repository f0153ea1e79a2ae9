"""What a picture shows, where that and not the stored values decides: masks, indexed grays, label maps among images."""

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image

from histoloom.pictures import WHITE, rgb_pixels, transparent
from histoloom.tissue import UNLABELLED

MOST_LABELS = 32  # values in a label map; an indexed image of tissue has about 256
LABEL_SPREAD = 64  # of 255: by so much colors of a map differ, and those of blank glass do not


def marked(picture: Image.Image) -> Bool[np.ndarray, "h w"]:
    """True where a picture shows anything but black; transparent pixels show nothing."""
    is_gray = picture.mode in ("1", "L") or picture.mode.startswith("I")  # 16 bits have no RGB
    pixels = np.asarray(picture if is_gray else picture.convert("RGB"))
    lit = np.asarray(pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0)
    hidden = transparent(picture)
    return lit if hidden is None else lit & ~hidden


def palette_of(picture: Image.Image) -> UInt8[np.ndarray, "n 3"] | None:
    """The colors of an indexed picture; None for any other."""
    colors = picture.getpalette("RGB") if picture.mode in ("P", "PA") else None
    return None if colors is None else np.array(colors, np.uint8).reshape(-1, 3)


def is_reversed(palette: UInt8[np.ndarray, "n 3"], indices: Integer[np.ndarray, "*n"]) -> bool:
    """Whether 0 shows as white, and 1 and all else in the palette as black: programs index gray pictures so, and what
    they mean is the gray, not the index."""
    grays = palette[:, 0]
    return (
        bool((palette == palette[:, :1]).all() and np.isin(grays, (0, WHITE)).all())
        and bool(grays[0] == WHITE)
        and not grays[1:2].any()
        and int(indices.max(initial=0)) <= 1
    )


def by_color(palette: list[int], shown: list[int], own: dict[int, int]) -> dict[int, int]:
    """What each index means whose color counts, and not the index: programs order a palette as they like.

    `palette` has colors as 0xrrggbb, `shown` the indices in a picture, `own` a value for each color in which a table
    draws a type. Empty where a color is in no table, or where there is none but white, which is also the second color
    of any two-color picture. Index 255 is always a value.
    """
    used = {index: palette[index] for index in shown if index < min(len(palette), UNLABELLED)}
    counts = set(used.values()) - {0xFFFFFF} and own.keys() >= set(used.values())
    return {index: own[color] for index, color in used.items()} if counts else {}


def looks_like_labels(picture: Image.Image) -> bool:
    """Whether a picture has few colors that differ much, as label maps do, or is indexed or gray and has few.

    White alone is blank glass.
    """
    if picture.mode not in ("1", "L", "P", "RGB", "RGBA") or picture.getcolors(MOST_LABELS) is None:
        return False
    pixels = rgb_pixels(picture).reshape(-1, 3)
    spread = int((pixels.max(axis=0) - pixels.min(axis=0)).max())
    return bool(pixels.min() < WHITE) if picture.mode in ("1", "L", "P") else spread > LABEL_SPREAD
