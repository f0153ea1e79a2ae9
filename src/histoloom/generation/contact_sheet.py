"""Woven patches at a glance: map, crops and result side by side, and a legend of their tissue types."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from histoloom.errors import InputError, TissueError
from histoloom.pictures import check_rgb
from histoloom.tissue import TissueTable

PAPER, INK, FAINT, EMPTY = "#ffffff", "#2b2b33", "#7a7a85", "#f1f1f4"
FRAME = 3  # pixels of tissue color around a crop
SHADOW = "#4a4a52"  # hairline that sets a pale tissue color off from the paper
SMALLEST_TILE = 16  # px
HEADINGS = ("map", "crops", "woven")


class SheetRow(NamedTuple):
    """One patch on a sheet: its map, its crops as (tissue id, pixels), the image woven from them."""

    semantic_map: UInt8[np.ndarray, "h w"]
    crops: Sequence[tuple[int, UInt8[np.ndarray, "ch cw 3"]]]
    image: UInt8[np.ndarray, "h w 3"]


def contact_sheet(
    rows: Sequence[SheetRow | tuple], table: TissueTable, columns: int = 2, title: str = "", tile: int = 224
) -> Image.Image:
    """A sheet with `columns` patches to a line, three pictures of `tile` pixels each, and a legend of the types shown.

    Raises InputError without rows, columns or room for a picture, ImageError where an image or a crop is not uint8
    `h w 3`, and TissueError where a map or a crop has an id that the table does not know.
    """
    rows = [row if isinstance(row, SheetRow) else SheetRow(*row) for row in rows]
    if columns < 1 or tile < SMALLEST_TILE:
        raise InputError(f"a sheet of {columns} columns, {tile} px a tile; give 1 and {SMALLEST_TILE} or more")
    _check_rows(rows, table)
    columns = min(columns, len(rows))
    gap, wide_gap, margin = max(4, tile // 40), max(12, tile // 10), max(16, tile // 8)
    font, heading = _font(max(13, tile // 13)), _font(max(18, tile // 7))
    group = 3 * tile + 2 * gap
    width = 2 * margin + columns * group + (columns - 1) * wide_gap
    legend = _legend(rows, table, width - 2 * margin, font)
    head = margin + (int(heading.size * 1.6) if title else 0)
    top = head + legend.height + int(font.size * 2.2)
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (width, top + lines * (tile + 2 * gap) - 2 * gap + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, INK, heading)
    sheet.paste(legend, (margin, head))
    for column in range(columns):
        for place, text in enumerate(HEADINGS):
            x = margin + column * (group + wide_gap) + place * (tile + gap)
            draw.text((x, top - font.size // 2), text, FAINT, font, anchor="ls")
    for number, row in enumerate(rows):
        x, y = margin + number % columns * (group + wide_gap), top + number // columns * (tile + 2 * gap)
        for place, picture in enumerate(_triptych(row, table, tile, font)):
            sheet.paste(picture, (x + place * (tile + gap), y))
    return sheet


def comparison_sheet(
    rows: Sequence[tuple[np.ndarray, Sequence[tuple[int, np.ndarray]], Sequence[np.ndarray]]],
    names: Sequence[str],
    table: TissueTable,
    tile: int = 168,
) -> Image.Image:
    """One line per (map, crops, images): a map, its crops, and the image that each of `names` made of them.

    Raises InputError without rows, or where the numbers of images and of names differ.
    """
    if not rows or any(len(images) != len(names) for _, _, images in rows):
        raise InputError(f"a comparison needs rows of {len(names)} images each, one for each of {', '.join(names)}")
    gap, margin = max(4, tile // 40), max(16, tile // 8)
    font = _font(max(12, tile // 12))
    shown = [SheetRow(semantic_map, crops, images[0]) for semantic_map, crops, images in rows]
    headings = ("map", "crops", *names)
    width = 2 * margin + len(headings) * (tile + gap) - gap
    legend = _legend(shown, table, width - 2 * margin, font)
    top = margin + legend.height + int(font.size * 2.2)
    sheet = Image.new("RGB", (width, top + len(rows) * (tile + gap) - gap + margin), PAPER)
    sheet.paste(legend, (margin, margin))
    draw = ImageDraw.Draw(sheet)
    for place, text in enumerate(headings):
        draw.text((margin + place * (tile + gap), top - font.size // 2), text, FAINT, font, anchor="ls")
    for line, (row, (_, _, images)) in enumerate(zip(shown, rows, strict=True)):
        drawn, crops, _ = _triptych(row, table, tile, font)
        resized = [Image.fromarray(image).resize((tile, tile), Image.Resampling.LANCZOS) for image in images]
        for place, picture in enumerate((drawn, crops, *resized)):
            sheet.paste(picture, (margin + place * (tile + gap), top + line * (tile + gap)))
    return sheet


def overlay(
    image: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "h w"], table: TissueTable, alpha: float = 0.3
) -> UInt8[np.ndarray, "h w 3"]:
    """The image under the map's colors at `alpha`, opaque along borders between types; unlabeled pixels stay clear."""
    table.check(semantic_map, "overlay")
    colors = table.colorize(semantic_map)
    border = np.zeros(semantic_map.shape, bool)
    border[1:] |= semantic_map[1:] != semantic_map[:-1]
    border[:, 1:] |= semantic_map[:, 1:] != semantic_map[:, :-1]
    weight = np.where(border, 1.0, alpha) * np.isin(semantic_map, table.ids)
    return np.rint(image + weight[..., None] * (colors.astype(float) - image)).astype(np.uint8)


def _check_rows(rows: list[SheetRow], table: TissueTable) -> None:
    if not rows:
        raise InputError("a contact sheet needs at least one patch; got none")
    for number, row in enumerate(rows):
        table.check(row.semantic_map, f"contact sheet, patch {number}")
        check_rgb(row.image, f"contact sheet, image of patch {number}")
        for crop in row.crops:
            if not isinstance(crop, tuple | list) or len(crop) != 2:
                raise InputError(
                    f"contact sheet, crops of patch {number}: hold a {type(crop).__name__}; give pairs of a tissue id "
                    "and pixels"
                )
            check_rgb(crop[1], f"contact sheet, crop of patch {number}")
        if unknown := {tissue_id for tissue_id, _ in row.crops} - set(table.ids):
            raise TissueError(
                f"contact sheet, crops of patch {number}: unknown tissue ids {sorted(unknown)}; known: {table.ids}"
            )


def _font(size: int) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))  # with a size it is one


def _triptych(row: SheetRow, table: TissueTable, tile: int, font: ImageFont.FreeTypeFont) -> tuple[Image.Image, ...]:
    drawn = _fitted(table.colorize(row.semantic_map), tile, Image.Resampling.NEAREST)
    return drawn, _crop_canvas(row, table, tile, font), _fitted(row.image, tile, Image.Resampling.LANCZOS)


def _fitted(pixels: UInt8[np.ndarray, "h w 3"], tile: int, how: Image.Resampling) -> Image.Image:
    """A picture with its longer edge at `tile` pixels, in the middle of a square."""
    height, width = (max(1, round(edge * tile / max(pixels.shape[:2]))) for edge in pixels.shape[:2])
    square = Image.new("RGB", (tile, tile), EMPTY)
    square.paste(Image.fromarray(pixels).resize((width, height), how), ((tile - width) // 2, (tile - height) // 2))
    return square


def _crop_canvas(row: SheetRow, table: TissueTable, tile: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Crops in a square grid, at one common scale of at most 1, each framed in the color of its tissue."""
    canvas = Image.new("RGB", (tile, tile), EMPTY)
    draw = ImageDraw.Draw(canvas)
    if not row.crops:
        draw.text((tile // 2, tile // 2), "no crop", FAINT, font, anchor="mm")
        return canvas
    side = int(np.ceil(np.sqrt(len(row.crops))))
    lines = -(-len(row.crops) // side)
    largest = max(max(crop.shape[:2]) for _, crop in row.crops)
    scale = min(1.0, (tile / side - 4 * FRAME) / largest)
    for number, (tissue_id, crop) in enumerate(row.crops):
        height, width = (max(1, round(edge * scale)) for edge in crop.shape[:2])
        in_line = min(side, len(row.crops) - number // side * side)
        x = round((number % side + 0.5) * tile / in_line - width / 2)
        y = round((number // side + 0.5) * tile / lines - height / 2)
        box = (x - FRAME, y - FRAME, x + width + FRAME - 1, y + height + FRAME - 1)
        draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), SHADOW)
        draw.rectangle(box, _color(table, tissue_id))
        canvas.paste(Image.fromarray(crop).resize((width, height), Image.Resampling.LANCZOS), (x, y))
    return canvas


def _legend(rows: list[SheetRow], table: TissueTable, width: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """A swatch and a name for each type on the sheet, wrapped to `width` pixels."""
    shown = {
        i for row in rows for i in np.unique(row.semantic_map).tolist() + [tissue_id for tissue_id, _ in row.crops]
    }
    swatch, line, space = int(font.size), int(font.size * 1.6), int(font.size * 1.4)
    places, x, y = [], 0, 0
    for tissue in (t for t in table.types if t.id in shown):
        needed = swatch * 3 // 2 + int(font.getlength(tissue.name))
        if x and x + needed > width:
            x, y = 0, y + line
        places.append((x, y, tissue))
        x += needed + space
    legend = Image.new("RGB", (width, y + line), PAPER)
    draw = ImageDraw.Draw(legend)
    for x, y, tissue in places:
        draw.rectangle((x, y, x + swatch, y + swatch), tissue.color, SHADOW)
        draw.text((x + swatch * 3 // 2, y + swatch // 2), tissue.name, INK, font, anchor="lm")
    return legend


def _color(table: TissueTable, tissue_id: int) -> str:
    return next(tissue.color for tissue in table.types if tissue.id == tissue_id)
