"""What do the types look like? A contact sheet of each, their tree, the maps on their slides, and each slide's shares.

Windows are drawn at random from as many cases as there are, not chosen for their looks: a type that holds two tissues
shows both.
"""

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from histoloom.discovery.levels import Levels
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.windows import Assigned, ReadWindow
from histoloom.tissue import TissueTable

TILE = 72  # px, edge of a window on a contact sheet
GAP = 4
ROW, WIDTH = 64, 1200  # px of the tree


@dataclass(frozen=True)
class LookConfig:
    """What is shown of each type."""

    windows: int = 12  # of each of the finest types
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TypeSheet:
    """One of the finest types: windows of it, how many windows and cases it has."""

    id: int
    sheet: UInt8[np.ndarray, "h w 3"]
    windows: int
    cases: int


def type_sheets(
    assigned: Assigned,
    named: NamedTypes,
    read: ReadWindow,
    config: LookConfig,
    advance: Callable[[], None] = lambda: None,
) -> list[TypeSheet]:
    """A contact sheet of each named type, in the order of the tree: the coarse types' members side by side.

    `advance` is called after each type.
    """
    ids = named.levels.of[-1][assigned.types]
    numbers = {case: number for number, case in enumerate(dict.fromkeys(assigned.cases))}
    cases = np.fromiter(map(numbers.get, assigned.cases), np.int32, len(assigned))
    sheets = []
    for tissue in tree_order(named.levels):
        mine = np.flatnonzero(ids == tissue)
        if len(mine):
            chosen = spread_over_cases(cases[mine], config.windows, np.random.default_rng((config.seed, tissue)))
            windows = [read(assigned.slides[i], *assigned.places[i].tolist()) for i in mine[chosen].tolist()]
            sheets.append(TypeSheet(tissue, _tiled(windows), len(mine), len(np.unique(cases[mine]))))
        advance()
    return sheets


def spread_over_cases(cases: np.ndarray, count: int, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """At most `count` indices, drawn so that no case comes twice before every case came once."""
    order = rng.permutation(len(cases))
    _, of_case = np.unique(cases[order], return_inverse=True)
    turn, seen = np.zeros(len(order), np.int64), np.zeros(of_case.max() + 1, np.int64)
    for place, case in enumerate(of_case.tolist()):
        turn[place], seen[case] = seen[case], seen[case] + 1
    return order[np.argsort(turn, kind="stable")][:count]


def tree_order(levels: Levels) -> list[int]:
    """Ids of the finest level, members of one coarse type side by side."""
    order = np.lexsort(levels.of[::-1])
    return list(dict.fromkeys(levels.of[-1][order].tolist()))


def tree_picture(named: NamedTypes, sizes: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "h w 3"]:
    """The tree, coarse types above the finer ones they consist of; as wide as their windows are many (`sizes`)."""
    levels = named.levels
    order = np.lexsort(levels.of[::-1])
    # A type of few windows keeps a strip that can be seen.
    width = np.maximum(sizes[order], sizes.sum() / WIDTH * 3).astype(np.float64)
    edges = np.concatenate([[0], np.cumsum(width)]) / width.sum() * (WIDTH - 1)
    picture = Image.new("RGB", (WIDTH, ROW * len(levels.counts)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for row, (of, table) in enumerate(zip(levels.of, named.tables, strict=True)):
        names = {t.id: t for t in table.types}
        starts = np.flatnonzero(np.diff(of[order].astype(int), prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            tissue = names[int(of[order[start]])]
            box = (edges[start], row * ROW, edges[stop], (row + 1) * ROW)
            draw.rectangle(box, fill=tissue.color, outline="white")
            if draw.textlength(tissue.name, font) < box[2] - box[0] - 6:
                draw.text((box[0] + 4, box[1] + 4), tissue.name, fill=ink(tissue.color), font=font)
    return np.asarray(picture)


def ink(color: str) -> str:
    """Black or white, whichever is read more easily on a colour."""
    red, green, blue = bytes.fromhex(color[1:])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def write_shares(path: Path, slides: list[str], shares: np.ndarray, table: TissueTable) -> None:
    """A CSV file with a row per slide and a column per type: its part of the slide's tissue."""
    aside = path.with_suffix(".partial")
    with aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", *table.names])
        for slide, row in zip(slides, shares, strict=True):
            writer.writerow([slide, *(f"{row[i]:.5f}" for i in table.ids)])
    os.replace(aside, path)


def _tiled(windows: list[np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    across = min(len(windows), 6)
    down = -(-len(windows) // across)
    sheet = Image.new("RGB", (across * (TILE + GAP) - GAP, down * (TILE + GAP) - GAP), "white")
    for number, window in enumerate(windows):
        place = (number % across * (TILE + GAP), number // across * (TILE + GAP))
        sheet.paste(Image.fromarray(window).resize((TILE, TILE), Image.Resampling.LANCZOS), place)
    return np.asarray(sheet)
