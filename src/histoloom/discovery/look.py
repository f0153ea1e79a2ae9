"""Show what each type looks like: a contact sheet per type, the tree of types, and the shares of each slide.

Windows are drawn at random from as many cases as possible and not selected: a type that mixes two tissues shows both.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from histoloom.discovery.levels import Levels
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.windows import Assigned, ReadWindow
from histoloom.errors import ConfigError
from histoloom.files import whole_file
from histoloom.progress import SILENT, Bar
from histoloom.tissue import TissueTable

TILE = 72  # px, edge of a window on a contact sheet
GAP = 4
ROW, WIDTH = 64, 1200  # px of the tree


@dataclass(frozen=True)
class LookConfig:
    """What is shown of each type."""

    windows: int = 12  # of each of the finest types
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.windows <= 1000 or not 0 <= self.seed < 2**53:
            raise ConfigError(f"windows {self.windows} must be in [1, 1000], seed {self.seed} in [0, 2^53)")


@dataclass(frozen=True, eq=False)
class TypeSheet:
    """One of the finest types: a sheet of its windows, and its numbers of windows and cases."""

    id: int
    sheet: UInt8[np.ndarray, "h w 3"]
    windows: int
    cases: int


def type_sheets(
    assigned: Assigned,
    named: NamedTypes,
    read: ReadWindow,
    config: LookConfig,
    bar: Bar = SILENT,
) -> list[TypeSheet]:
    """A contact sheet of each named type, in the order of the tree: members of one coarse type are next to each
    other."""
    ids = named.levels.of[-1][assigned.types]
    numbers = {case: number for number, case in enumerate(dict.fromkeys(assigned.cases))}
    cases = np.array([numbers[case] for case in assigned.cases], np.int32)
    sheets = []
    for tissue in tree_order(named.levels):
        mine = np.flatnonzero(ids == tissue)
        if len(mine):
            chosen = spread_over_cases(cases[mine], config.windows, np.random.default_rng((config.seed, tissue)))
            windows = [read(assigned.slides[i], *assigned.places[i].tolist()) for i in mine[chosen].tolist()]
            sheets.append(TypeSheet(tissue, _tiled(windows), len(mine), len(np.unique(cases[mine]))))
        bar.advance()
    return sheets


def spread_over_cases(cases: np.ndarray, count: int, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """At most `count` random indices; no case appears twice before every case has appeared once."""
    order = rng.permutation(len(cases))
    _, of_case = np.unique(cases[order], return_inverse=True)
    turn, seen = np.zeros(len(order), np.int64), np.zeros(of_case.max() + 1, np.int64)
    for place, case in enumerate(of_case.tolist()):
        turn[place], seen[case] = seen[case], seen[case] + 1
    return order[np.argsort(turn, kind="stable")][:count]


def tree_order(levels: Levels) -> list[int]:
    """Ids of the finest level; members of one coarse type are next to each other."""
    order = np.lexsort(levels.of[::-1])
    return list(dict.fromkeys(levels.of[-1][order].tolist()))


def tree_picture(named: NamedTypes, sizes: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "h w 3"]:
    """The tree, coarse types above the finer ones they consist of; widths follow `sizes`, the numbers of windows."""
    levels = named.levels
    order = np.lexsort(levels.of[::-1])
    # A type with few windows keeps a visible strip.
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
    """Black or white, whichever is more legible on a color."""
    red, green, blue = bytes.fromhex(color[1:])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def write_shares(path: Path, slides: list[str], shares: np.ndarray, table: TissueTable) -> None:
    """Write a CSV file with a row per slide and a column per type: its share of the tissue of the slide.

    Spreadsheets run cells that begin with =, +, - or @, so such names are quoted with an apostrophe.
    """
    with whole_file(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", *map(_cell, table.names)])
        for slide, row in zip(slides, shares, strict=True):
            writer.writerow([_cell(slide), *(f"{row[i]:.5f}" for i in table.ids)])


def _cell(name: str) -> str:
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _tiled(windows: list[np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    across = min(len(windows), 6)
    down = -(-len(windows) // across)
    sheet = Image.new("RGB", (across * (TILE + GAP) - GAP, down * (TILE + GAP) - GAP), "white")
    for number, window in enumerate(windows):
        place = (number % across * (TILE + GAP), number // across * (TILE + GAP))
        sheet.paste(Image.fromarray(window).resize((TILE, TILE), Image.Resampling.LANCZOS), place)
    return np.asarray(sheet)
