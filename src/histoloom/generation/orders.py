"""Orders from a source: which maps are woven with which crops, and how they are named in what is written.

File names of maps and crops may name patients. Unless they are asked for, what is written holds an id instead, which
follows from the pixels; the file names go into a key file of their own. Orders are made when they are asked for, so
that neither maps nor crops of all patches are in memory at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoloom.conditioning.crops import present_types
from histoloom.conditioning.inputs import content_id
from histoloom.errors import InputError
from histoloom.generation.bank import find_crops
from histoloom.generation.dataset_order import DatasetOrder
from histoloom.generation.layouts import Layouts
from histoloom.generation.lenders import Lender, hash_of, names_of, open_lender
from histoloom.generation.map_sources import LayoutMaps, MapSource, find_maps, is_dataset, layouts_at, maps_in
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
    """One order per entry of `rows`, the numbers of its maps (default: each map once); the crops of order i are a
    function of (seed, i).

    `crops_from` names where the crops come from in errors.
    """

    def __init__(
        self,
        maps: MapSource,
        lender: Lender,
        seed: int,
        crops_from: str = "the bank",
        rows: Sequence[int] | None = None,
    ):
        self.maps, self.lender, self._seed, self._crops_from = maps, lender, seed, crops_from
        self._rows = range(len(maps)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Order:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.replacement(number, 0)

    def replacement(self, number: int, turn: int) -> Order:
        """The order that takes the place of order `number` in turn 1, 2, ...: another map where maps are made, and
        other crops. In turn 0, the order itself."""
        row = self._rows[number]
        name, semantic_map = self.maps.read(row, turn)
        rng = np.random.default_rng((self._seed, number, turn) if turn else (self._seed, number))
        return Order(semantic_map, name, self.lender.draw(row, semantic_map, rng))

    def inputs(self) -> Inputs:
        """Fingerprints and names of all files, each of which is read once.

        Raises InputError for crops whose tissues are on none of the maps, and what reading a map raises.
        """
        fingerprints, sources = {}, {}
        files = [(content_id(semantic_map), name) for name, semantic_map in self.maps.files()]
        if files:
            fingerprints["maps"] = hash_of([identity for identity, _ in files])
            sources["maps"] = names_of(files)
        shown = self.lender.tissues()
        maps = (self.maps.read(row)[1] for row in dict.fromkeys(self._rows))
        if shown and all(shown.isdisjoint(present_types(semantic_map)) for semantic_map in maps):
            raise InputError(
                f"{self._crops_from}: none of its crops is of a tissue on the maps; add crops of those, or change the "
                "maps"
            )
        if shown:
            fingerprints["crops"] = self.lender.fingerprint()
            if (names := self.lender.names()) is not None:
                sources["crops"] = names
        return Inputs(fingerprints, sources)


def make_orders(source: Source, table: TissueTable, seed: int, mpp: float | None, own_bank: bool = False) -> Orders:
    """The orders of a source; drawn maps are at `mpp` micrometers per pixel where it is known.

    Raises InputError for maps or crops that cannot be used, TissueError for tissues that the table does not know.
    """
    maps = open_maps(source, table, seed, mpp)
    rows = _rows(source, maps, table)
    return Orders(maps, open_lender(source, maps, table, own_bank), seed, str(source.crops), rows)


def left_out(source: Source, table: TissueTable) -> list[str]:
    """A line for each kind of file in the folders of maps and crops that is not read."""
    maps = source.maps.maps if isinstance(source.maps, DatasetOrder) else source.maps
    found = [(maps, find_maps(maps))] if isinstance(maps, Path) and not is_dataset(maps) else []
    if source.crops is not None and not is_dataset(source.crops) and source.crops.is_dir():
        found.append((source.crops, find_crops(source.crops, table)))
    return [f"{folder}: {note}" for folder, files in found for note in files.notes]


def _rows(source: Source, maps: MapSource, table: TissueTable) -> Sequence[int]:
    """The numbers of the maps that a source asks for, each as often as it is woven."""
    rows: Sequence[int] = range(len(maps))
    if source.only:
        wanted = {table.find(name).id for name in source.only}
        rows = [row for row in rows if not wanted.isdisjoint(present_types(maps.read(row)[1]))]
        if not rows:
            raise InputError(f"{source.maps}: no map shows {' or '.join(source.only)}; see its tissue types")
    return [row for row in rows for _ in range(source.per_map)] if source.per_map > 1 else rows


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
