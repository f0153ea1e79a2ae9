"""Some patches above their maps, as HTML for a notebook."""

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
    pairs = list(zip(names, images, semantic_maps, strict=True))[:_SHOWN]
    rows = ("".join(_cell(image, name) for name, image, _ in pairs), "".join(_cell(_paint(m), n) for n, _, m in pairs))
    return f"<div>{escape(title)}</div><table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


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
