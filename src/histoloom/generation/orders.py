"""Orders from a source: which maps are woven with which crops, and how they are named in what is written.

File names of maps and crops may name patients. Unless they are asked for, what is written holds an id instead, which
follows from the pixels; the file names go into a key file of their own.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.inputs import content_id
from histoloom.errors import InputError
from histoloom.generation.bank import CropBank, load_bank
from histoloom.generation.layouts import LayoutConfig, draw_layouts
from histoloom.generation.patches import Order
from histoloom.generation.settings import DrawnMaps, Source
from histoloom.patches.maps import MapReader
from histoloom.tissue import TissueTable
from histoloom.walk import is_hidden, source_name, suffix_of

_MAP_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".bmp")
Maps = list[tuple[str, UInt8[np.ndarray, "h w"]]]  # by name


@dataclass(frozen=True)
class Orders:
    """The patches to weave, fingerprints of the files that they come from, and the names of these files by id."""

    orders: list[Order]
    inputs: dict[str, str]
    sources: dict[str, dict[str, list[str]]]  # maps or crops -> id -> file names


def make_orders(source: Source, table: TissueTable, seed: int, mpp: float | None, own_bank: bool = False) -> Orders:
    """One order per map; the crops of order i are a function of (seed, i).

    Drawn maps show one type and the background, at `mpp` micrometers per pixel where it is known. `own_bank` says that
    the crops were woven by the model itself, so that their names are nobody's. Raises InputError for crops whose
    tissues are on none of the maps.
    """
    maps = _draw(source.maps, table, seed, mpp) if isinstance(source.maps, DrawnMaps) else read_maps(source.maps, table)
    bank = load_bank(source.crops, table) if source.crops is not None else CropBank({})
    inputs, sources = {}, {}
    if isinstance(source.maps, Path):
        inputs["maps"] = _hash([content_id(semantic_map) for _, semantic_map in maps])
        sources["maps"] = _names((content_id(semantic_map), name) for name, semantic_map in maps)
        if not source.record_names:
            maps = [(content_id(semantic_map), semantic_map) for _, semantic_map in maps]
    if bank.sets:
        crops = [(name, crop) for name, mine in bank.sets.items() for crop in mine]
        inputs["crops"] = _hash([(name, crop.tissue, content_id(crop.pixels)) for name, crop in crops])
    if bank.sets and not own_bank:
        sources["crops"] = _names((content_id(crop.pixels), crop.source) for _, crop in crops)
        if not source.record_names:
            bank = _with_ids(bank)
    orders = [
        Order(semantic_map, name, bank.draw(semantic_map, np.random.default_rng((seed, i))) if bank.sets else [])
        for i, (name, semantic_map) in enumerate(maps)
    ]
    if bank.sets and not any(order.crops for order in orders):
        raise InputError(
            f"{source.crops}: none of its crops is of a tissue on the maps; add crops of those, or change the maps"
        )
    return Orders(orders, inputs, sources)


def read_maps(folder: Path | str, table: TissueTable) -> Maps:
    """All maps of a folder by file name, in order; values and colors as in `tissue.toml`. They must share one size."""
    folder = Path(folder)
    paths = sorted(p for p in folder.glob("*") if suffix_of(p) in _MAP_SUFFIXES and not is_hidden(p.name))
    if not paths:
        raise InputError(f"{folder}: holds no maps (PNG, TIFF, WebP); give a folder of label images")
    reader = MapReader(table)
    maps = [(source_name(path, folder), reader.read(path)) for path in paths]
    odd = [name for name, m in maps if m.shape != maps[0][1].shape]
    if odd:
        raise InputError(f"{folder / odd[0]}: differs in size from {maps[0][0]}; weave one size per folder")
    return maps


def layouts_at(mpp: float | None) -> LayoutConfig:
    """Layouts of one type and the background, at `mpp` micrometers per pixel where that is known."""
    return LayoutConfig(two_types=0.0) if mpp is None else LayoutConfig(two_types=0.0, mpp=mpp)


def _draw(drawn: DrawnMaps, table: TissueTable, seed: int, mpp: float | None) -> Maps:
    layouts = draw_layouts(layouts_at(mpp), table, drawn.count, seed, drawn.size)
    return [(f"layout {i} of seed {seed}", layout) for i, layout in enumerate(layouts)]


def _with_ids(bank: CropBank) -> CropBank:
    """The bank with ids in place of file names."""
    return CropBank({name: [replace(c, source=content_id(c.pixels)) for c in mine] for name, mine in bank.sets.items()})


def _names(files: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """File names by id; files of the same pixels share one."""
    names: dict[str, list[str]] = {}
    for identity, name in files:
        names.setdefault(identity, []).append(name)
    return names


def _hash(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
