"""Pictures, and patches above their maps, as HTML for a notebook."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from histoloom.tissue import DEFAULT_COLORS, UNLABELLED

_SHOWN = 8
_EDGE = 112  # pixels on the screen


def preview_html(
    title: str,
    images: UInt8[np.ndarray, "n h w 3"],
    semantic_maps: UInt8[np.ndarray, "n h w"],
    names: Sequence[str],
) -> str:
    """A table with the first patches and their maps, colored by id; white is unlabeled."""
    maps = [_paint(semantic_map) for semantic_map in semantic_maps[:_SHOWN]]
    return pictures_html(title, [list(zip(names, images, strict=True)), list(zip(names, maps, strict=False))])


def pictures_html(title: str, rows: Sequence[Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]]) -> str:
    """A table with the first pictures of each row, with their names as tooltips."""
    lines = ("".join(_cell(pixels, name) for name, pixels in row[:_SHOWN]) for row in rows)
    return f"<div>{escape(title)}</div><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(pixels: UInt8[np.ndarray, "h w 3"], name: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((_EDGE, _EDGE)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<td><img src="data:image/png;base64,{data}" width="{_EDGE}" title="{escape(name, quote=True)}"></td>'


def _paint(semantic_map: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    cycle = np.array([tuple(bytes.fromhex(color[1:])) for color in DEFAULT_COLORS], np.uint8)
    colors = cycle[np.arange(256) % len(cycle)]
    colors[UNLABELLED] = 255
    return colors[semantic_map]
