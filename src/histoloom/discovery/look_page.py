"""All of it on one HTML page that needs no other file."""

import base64
import io
from html import escape

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from histoloom.discovery.look import TypeSheet, ink
from histoloom.discovery.names import NamedTypes
from histoloom.tissue import TissueTable

CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:80em;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse;font-size:.85em}td,th{padding:.15em .6em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img{max-width:100%}.warn{border:1px solid #cc6644;padding:.4em .8em}
.type{display:inline-block;margin:.4em;vertical-align:top;width:300px}.type img{width:300px}
.chip{padding:.1em .5em;border-radius:.3em}.small{font-size:.85em;color:#555}figure{display:inline-block;margin:.5em}
.wide{overflow-x:auto}
"""
SHOWN = 24  # slides with a picture


def look_page(
    title: str,
    named: NamedTypes,
    sheets: list[TypeSheet],
    tree: UInt8[np.ndarray, "h w 3"],
    overlays: dict[str, list[tuple[str, bytes]]],
    shares: list[tuple[TissueTable, list[str], Float[np.ndarray, "n k"]]],
) -> str:
    """The page: `overlays` are JPEGs by slide, each with the name of its level; `shares` tables of slides by types."""
    names = {t.id: t for t in named.finest.types}
    parts = [
        f"<h1>Tissue types of {escape(title)}</h1>",
        '<p class="warn">This page shows real tissue. Keep it as carefully as its source.</p>',
        f"<h2>The tree: {', '.join(map(str, named.levels.counts))} types</h2>",
        "<p>Each row is a level; what stands below a type are the finer types that it consists of. Width: windows.</p>",
        f'<img alt="tree of types" src="{_png(tree)}">',
        "<h2>The types</h2>",
        '<p class="small">Windows drawn at random, over as many cases as there are. Name and merge types in '
        "discovered.toml.</p>",
    ]
    for sheet in sheets:
        tissue = names[sheet.id]
        chip = f'<span class="chip" style="background:{tissue.color};color:{ink(tissue.color)}">{sheet.id}</span>'
        about = f"{sheet.windows:,} windows, {sheet.cases} case{'s' if sheet.cases != 1 else ''}"
        parts.append(
            f'<div class="type">{chip} {escape(tissue.name)}<br><span class="small">{about}</span>'
            f'<img alt="" src="{_png(sheet.sheet)}"></div>'
        )
    if overlays:
        parts.append("<h2>The maps</h2>")
    for slide, pictures in list(overlays.items())[:SHOWN]:
        parts.append(f"<h3>{escape(slide)}</h3>")
        for caption, jpeg in pictures:
            data = base64.b64encode(jpeg).decode()
            parts.append(
                f'<figure><img alt="" width="560" src="data:image/jpeg;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
    if len(overlays) > SHOWN:
        parts.append(f'<p class="small">{len(overlays) - SHOWN} more slides have overlays in the folder of maps.</p>')
    if shares:
        parts.append("<h2>Shares</h2><p>Per cent of each slide's tissue. shares.csv beside this page has all levels'"
                     " finest.</p>")  # fmt: skip
    parts += [_shares(*some) for some in shares]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Tissue types</title><style>{CSS}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _shares(table: TissueTable, slides: list[str], shares: Float[np.ndarray, "n k"]) -> str:
    head = "".join(
        f'<th><span class="chip" style="background:{t.color};color:{ink(t.color)}">{escape(t.name)}</span></th>'
        for t in table.types
    )
    rows = "".join(
        f"<tr><td>{escape(slide)}</td>" + "".join(f"<td>{100 * row[i]:.1f}</td>" for i in table.ids) + "</tr>"
        for slide, row in zip(slides, shares, strict=True)
    )
    return f'<div class="wide"><table><tr><th>slide</th>{head}</tr>{rows}</table></div>'


def _png(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
