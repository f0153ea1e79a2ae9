"""A folder of woven patches, from start to contact sheet: which maps, which crops, and what is written."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.generation.bank import CropBank, load_bank
from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.generation.export import AnnotatedPatch, read_woven, write_patches
from histoloom.generation.layouts import LayoutConfig, draw_layouts
from histoloom.generation.patches import Order, WeaveConfig, copy_limit_of, read_maps, weave
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

SHEET_ROWS = 64  # patches on a contact sheet, at most


@dataclass(frozen=True)
class Source:
    """Where maps and crops come from: a folder of maps, or `layouts` drawn maps of `size` px; a crop bank, or none."""

    maps: Path | None
    layouts: int = 16
    size: int = 224
    crops: Path | None = None

    def __post_init__(self):
        if self.maps is None and self.layouts < 1:
            raise ConfigError("give a folder of maps, or the number of layouts to draw (1 or more)")


def place_orders(source: Source, table: TissueTable, seed: int) -> list[Order]:
    """One order per map; crops of order i are a function of (seed, i). Drawn layouts show one type beside the
    background. Raises InputError for crops whose tissues are on none of the maps."""
    if source.maps is not None:
        maps = read_maps(source.maps, table)
    else:
        drawn = draw_layouts(LayoutConfig(two_types=0.0), table, source.layouts, seed, source.size)
        maps = [(f"layout {i} of seed {seed}", layout) for i, layout in enumerate(drawn)]
    bank = load_bank(source.crops, table) if source.crops is not None else CropBank({})
    orders = [
        Order(semantic_map, name, bank.draw(semantic_map, np.random.default_rng((seed, i))) if bank.sets else [])
        for i, (name, semantic_map) in enumerate(maps)
    ]
    if bank.sets and not any(order.crops for order in orders):
        raise InputError(
            f"{source.crops}: none of its crops is of a tissue on the maps; add crops of those, or change the maps"
        )
    return orders


def weave_folder(
    pipeline: HistoloomPipeline,
    orders: list[Order],
    source: Source,
    config: WeaveConfig,
    out: Path,
    model: str,
    callback: Callable[[int], None] = lambda count: None,
) -> list[dict]:
    """Weave the orders into `out` with their contact sheet; an interrupted run goes on. Returns the rows of the
    index."""
    settings = asdict(config) | {"copy_limit": copy_limit_of(pipeline, config)}
    settings |= {k: str(v) if isinstance(v, Path) else v for k, v in asdict(source).items()}
    record = {
        "version": VERSION,
        "model": model,
        "model_hash": pipeline.fingerprint,
        "config": settings,
        "seed": config.seed,
    }

    def weave_from(first: int) -> Iterator[AnnotatedPatch]:
        callback(first)
        return weave(pipeline, orders, config, first, callback)

    write_patches(weave_from, pipeline.table, out, record)
    woven = read_woven(out)
    rows = [
        SheetRow(semantic_map, [(c.tissue, c.pixels) for c in order.crops], image)
        for semantic_map, order, image in zip(woven.semantic_maps, orders, woven.images, strict=False)
    ]
    sheet = contact_sheet(rows[:SHEET_ROWS], pipeline.table, columns=2 if len(rows) <= 16 else 4)
    _save(sheet, out / "contact-sheet.png")
    return woven.rows


def told_of_copies(rows: list[dict]) -> str:
    """One line on the rows of an index: patches searched for their crops, woven again, and alike still."""
    searched = [row for row in rows if row["copy_score"] is not None]
    if not searched:
        return "not searched for copies of crops: there is no crop with texture, no limit, or only the model's own"
    again = sum(row["tries"] > 1 for row in searched)
    alike = [row["image"] for row in searched if row["copy_score"] > row["copy_limit"]]
    named = f", such as {alike[0]}; see copy_score in index.parquet" if alike else ""
    return (
        f"searched {len(searched)} of {len(rows)} patches for their crops: {again} were more alike than "
        f"{searched[0]['copy_limit']:.2f} and woven again, {len(alike)} still are{named}"
    )


def _save(sheet: Image.Image, path: Path) -> None:
    aside = path.with_suffix(".partial")
    try:
        sheet.save(aside, "PNG")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free some space, and the same command adds it"
        ) from None
