"""Render the look as one HTML page that needs no other file; the template escapes every name."""

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from histoloom.discovery.look import TypeSheet, ink
from histoloom.discovery.names import NamedTypes
from histoloom.tissue import TissueTable, TissueType

TEMPLATE = Path(__file__).with_name("look.html.jinja")
MAX_SLIDES = 24  # slides with pictures

Shares = tuple[TissueTable, list[str], Float[np.ndarray, "n k"]]  # a table of slides by types


def look_page(
    title: str,
    named: NamedTypes,
    sheets: list[TypeSheet],
    tree: UInt8[np.ndarray, "h w 3"],
    overlays: dict[str, list[tuple[str, bytes]]],
    shares: list[Shares],
) -> str:
    """The page: `overlays` are JPEGs by slide, each with the name of its level; `shares` are tables of slides by
    types."""
    types = {t.id: t for t in named.finest.types}
    shown = list(overlays.items())[:MAX_SLIDES]
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        counts=named.levels.counts,
        tree=_png(tree),
        types=[
            _chip(types[sheet.id]) | {"windows": sheet.windows, "cases": sheet.cases, "picture": _png(sheet.sheet)}
            for sheet in sheets
        ],
        overlays=[
            {"name": name, "pictures": [{"caption": level, "data": _data("jpeg", jpeg)} for level, jpeg in pictures]}
            for name, pictures in shown
        ],
        more_overlays=len(overlays) - len(shown),
        shares=[_share_table(*table) for table in shares],
    )


def _chip(tissue: TissueType) -> dict:
    return {"id": tissue.id, "name": tissue.name, "color": tissue.color, "ink": ink(tissue.color)}


def _share_table(table: TissueTable, slides: list[str], shares: Float[np.ndarray, "n k"]) -> dict:
    rows = [{"slide": name, "shares": row[table.ids].tolist()} for name, row in zip(slides, shares, strict=True)]
    return {"types": [_chip(tissue) for tissue in table.types], "rows": rows}


def _png(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return _data("png", buffer.getvalue())


def _data(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
