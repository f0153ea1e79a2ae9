"""Orders from a source: which maps are woven with which crops, and how they are named in what is written.

File names of maps and crops may name patients. Unless they are asked for, what is written holds an id instead, which
follows from the pixels; the file names go into a key file of their own. Orders are made when they are asked for, so
that neither maps nor crops of all patches are in memory at once.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from histoloom.conditioning.crops import present_types
from histoloom.conditioning.inputs import content_id
from histoloom.errors import ConfigError, InputError
from histoloom.generation.bank import CropBank, load_bank
from histoloom.generation.dataset_order import DatasetOrder
from histoloom.generation.layouts import Layouts
from histoloom.generation.map_sources import LayoutMaps, MapSource, is_dataset, layouts_at, maps_in
from histoloom.generation.order import Order
from histoloom.generation.ordered_maps import ordered_maps
from histoloom.generation.settings import DrawnMaps, Source
from histoloom.tissue import TissueTable


@dataclass(frozen=True)
class Inputs:
    """The files that orders come from: their fingerprints, and their names by id (maps or crops -> id -> names)."""

    fingerprints: dict[str, str]
    sources: dict[str, dict[str, list[str]]]


class Orders:
    """One order per map of `maps`, by number; the crops of order i are a function of (seed, i).

    With `record_names`, an order names the files of its map and crops; else it holds their ids. `own_bank` says that
    the model itself wove the crops, so that their names identify nobody. `crops_from` names the bank in errors.
    """

    def __init__(
        self,
        maps: MapSource,
        bank: CropBank,
        seed: int,
        record_names: bool = False,
        own_bank: bool = False,
        crops_from: str = "the bank",
    ):
        self.maps, self._seed, self._own_bank = maps, seed, own_bank
        self._hides_crops = not record_names and not own_bank
        self._named, self.bank = bank, _with_ids(bank) if self._hides_crops else bank
        self._crops_from = crops_from

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, number: int) -> Order:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.replacement(number, 0)

    def replacement(self, number: int, turn: int) -> Order:
        """The order that takes the place of order `number` in turn 1, 2, ...: another map where maps are made, and
        other crops. In turn 0, the order itself."""
        name, semantic_map = self.maps.read(number, turn)
        rng = np.random.default_rng((self._seed, number, turn) if turn else (self._seed, number))
        crops = self.bank.draw(semantic_map, rng) if self.bank.sets else []
        return Order(semantic_map, name, crops)

    def inputs(self) -> Inputs:
        """Fingerprints and names of all files, each of which is read once.

        Raises InputError for crops whose tissues are on none of the maps, and what reading a map raises.
        """
        fingerprints, sources = {}, {}
        files = [(content_id(semantic_map), name) for name, semantic_map in self.maps.files()]
        if files:
            fingerprints["maps"] = _hash([identity for identity, _ in files])
            sources["maps"] = _names(files)
        shown = {crop.tissue for crops in self.bank.sets.values() for crop in crops}
        maps = (self.maps.read(number)[1] for number in range(len(self)))
        if shown and all(shown.isdisjoint(present_types(semantic_map)) for semantic_map in maps):
            raise InputError(
                f"{self._crops_from}: none of its crops is of a tissue on the maps; add crops of those, or change the "
                "maps"
            )
        if self.bank.sets:
            crops = [(name, crop) for name, mine in self._named.sets.items() for crop in mine]
            fingerprints["crops"] = _hash([(name, crop.tissue, content_id(crop.pixels)) for name, crop in crops])
            if not self._own_bank:
                sources["crops"] = _names((content_id(crop.pixels), crop.source) for _, crop in crops)
        return Inputs(fingerprints, sources)


def make_orders(source: Source, table: TissueTable, seed: int, mpp: float | None, own_bank: bool = False) -> Orders:
    """The orders of a source; drawn maps are at `mpp` micrometers per pixel where it is known.

    Raises InputError for maps or crops that cannot be used, TissueError for tissues that the table does not know.
    """
    bank = load_bank(source.crops, table) if source.crops is not None else CropBank({})
    return Orders(
        open_maps(source, table, seed, mpp),
        _of_stains(bank, source.stains, source.crops),
        seed,
        source.record_names,
        own_bank,
        str(source.crops),
    )


def open_maps(source: Source, table: TissueTable, seed: int, mpp: float | None) -> MapSource:
    """The maps of a source, as ids of `table`; drawn ones are at `mpp` micrometers per pixel where it is known."""
    wanted = source.maps
    if isinstance(wanted, Path):
        return maps_in(wanted, source.split, table, source.record_names)
    if isinstance(wanted, DatasetOrder):
        split = wanted.split if wanted.maps and is_dataset(wanted.maps) else ""
        base = maps_in(wanted.maps, split, table, source.record_names) if wanted.maps else None
        return ordered_maps(wanted, base, table, seed, mpp)
    assert isinstance(wanted, DrawnMaps)
    return LayoutMaps(Layouts(layouts_at(wanted, mpp), table, seed, wanted.size), wanted.count)


def _of_stains(bank: CropBank, stains: tuple[str, ...], folder: Path | None) -> CropBank:
    """The sets of a bank that are called `stains`; all where none is named."""
    for name in stains:
        if name not in bank.sets:
            known = ", ".join(list(bank.sets)[:12]) or "none"
            raise ConfigError(f"stain {name!r} is not a set of crops in {folder}; known: {known}")
    return CropBank({name: bank.sets[name] for name in stains}) if stains else bank


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
