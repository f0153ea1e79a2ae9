"""Where maps come from: drawn by a procedure, a folder of label maps, or one split of a patch dataset.

A source gives one map at a time, by number, so that memory does not grow with their count.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from histoloom.conditioning.inputs import content_id
from histoloom.errors import ConfigError, InputError, TissueError
from histoloom.generation.layouts import LayoutConfig, Layouts
from histoloom.generation.settings import Drawing
from histoloom.parquet import guarded, open_parquet
from histoloom.patches.maps import MapReader
from histoloom.patches.schema import COLUMNS
from histoloom.patches.store import check_count, check_types, read_table, shards_of, splits
from histoloom.pictures import read_labels
from histoloom.tissue import UNLABELLED, TissueTable, TissueType
from histoloom.walk import Found, find_files, source_name, suffix_of

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".bmp", ".jp2")  # JPEG changes values
TURN = 10**7  # between the number of a layout and those in its place
SemanticMap = UInt8[np.ndarray, "h w"]


@runtime_checkable
class MapSource(Protocol):
    """Maps by number, and the files behind them."""

    def __len__(self) -> int: ...

    def read(self, number: int, turn: int = 0) -> tuple[str, SemanticMap]:
        """A map, and what it is called in what is written; `turn` 1, 2, ... gives others in its place."""
        ...

    def files(self) -> Iterator[tuple[str, SemanticMap]]:
        """Name and map of each file; nothing where maps are drawn."""
        ...


def maps_in(folder: Path, split: str, table: TissueTable, record_names: bool = False) -> MapSource:
    """The maps of a folder or of one split of a patch dataset, as ids of `table`."""
    if is_dataset(folder):
        return DatasetMaps(folder, split, table, record_names)
    if split:
        raise ConfigError(f"split {split!r} has no effect: {folder} is not a patch dataset; leave it out")
    return FolderMaps(folder, table, record_names)


def find_maps(folder: Path) -> Found:
    """The label maps below a folder, and what is left out; raises InputError where there is none."""
    found = Found(folder)
    if folder.is_dir():
        found = find_files(folder, lambda path: suffix_of(path) in MAP_SUFFIXES, "maps")
    if not found.files:
        more = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise InputError(
            f"{folder}: holds no maps (PNG, TIFF, WebP){more}; give a folder of label images, or a patch dataset"
        )
    return found


def is_dataset(folder: Path) -> bool:
    """Whether `folder` is a patch dataset."""
    return (folder / "tissue.toml").is_file() and (folder / "data").is_dir()


def layouts_at(drawing: Drawing, mpp: float | None) -> LayoutConfig:
    """How layouts are drawn, at `mpp` micrometers per pixel where that is known."""
    scale = LayoutConfig.mpp if mpp is None else mpp
    return LayoutConfig(mpp=scale, background=drawing.background, two_types=drawing.two_types, styles=drawing.styles)


class LayoutMaps:
    """Maps that a procedure draws."""

    def __init__(self, layouts: Layouts, count: int):
        self._layouts, self._count = layouts, count

    def __len__(self) -> int:
        return self._count

    def read(self, number: int, turn: int = 0) -> tuple[str, SemanticMap]:
        """Layout `number`, or another in its place."""
        number += TURN * turn
        return f"layout {number} of seed {self._layouts.seed}", self._layouts.draw(number)

    def files(self) -> Iterator[tuple[str, SemanticMap]]:
        """Nothing: no file is behind a layout."""
        return iter(())


class _FileMaps(ABC):
    """Maps of files. They are called by a hash of their pixels, or with `record_names` by their files."""

    def __init__(self, record_names: bool):
        self._record_names = record_names

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def named(self, number: int) -> tuple[str, SemanticMap]:
        """The file of a map, and the map."""

    def read(self, number: int, turn: int = 0) -> tuple[str, SemanticMap]:
        """A map, and its name in what is written; these maps have no replacements."""
        name, semantic_map = self.named(number)
        return name if self._record_names else content_id(semantic_map), semantic_map

    def files(self) -> Iterator[tuple[str, SemanticMap]]:
        """Name and map of each file."""
        return map(self.named, range(len(self)))


class FolderMaps(_FileMaps):
    """The label maps below a folder in order of path, of any sizes; values and colors as in `tissue.toml`."""

    def __init__(self, folder: Path, table: TissueTable, record_names: bool = False):
        super().__init__(record_names)
        self._folder, self._reader = folder, MapReader(table)
        self._paths = find_maps(folder).files

    def __len__(self) -> int:
        return len(self._paths)

    def named(self, number: int) -> tuple[str, SemanticMap]:
        """The map of one file; raises ImageError or TissueError naming it."""
        path = self._paths[number]
        return source_name(path, self._folder), self._reader.read(path)


class DatasetMaps(_FileMaps):
    """The maps of one split of a patch dataset, in its order; tissue types are matched by name."""

    def __init__(self, folder: Path, split: str, table: TissueTable, record_names: bool = False):
        super().__init__(record_names)
        known = splits(folder)
        if split not in known:
            said = f"has no split {split!r}" if split else "is a patch dataset"
            raise InputError(f"{folder}: {said}; name one with --split: {', '.join(known) or 'it has none'}")
        self._where, self._of = f"{folder}, split {split}", (folder.resolve(), split)
        own = read_table(folder)
        self._table, self._theirs = table, {tissue.id: tissue for tissue in own.types}
        self._groups: list[tuple[Path, int, int]] = []  # shard, group of rows, first row
        self._count = 0
        for shard in shards_of(folder, split):
            check_types(shard, own)
            with open_parquet(shard, _TYPES) as file:
                for group in range(file.metadata.num_row_groups):
                    self._groups.append((shard, group, self._count))
                    self._count += file.metadata.row_group(group).num_rows
        self._firsts = np.array([first for _, _, first in self._groups])
        if not self._count:
            raise InputError(f"{self._where}: has no rows; make the dataset again")
        check_count(folder, split, self._count)

    def __len__(self) -> int:
        return self._count

    def is_of(self, folder: Path, split: str) -> bool:
        """Whether these are the maps of that split."""
        return self._of == (folder.resolve(), split)

    def named(self, number: int) -> tuple[str, SemanticMap]:
        """The map of row `number`; raises InputError for an index without pixels."""
        shard, group, first = self._groups[int(np.searchsorted(self._firsts, number, side="right")) - 1]
        row = _rows(shard, group)[number - first]
        if row["semantic_map"] is None:
            raise InputError(f"{self._where}: is an index without pixels; make the dataset with --pixels")
        name = f"{row['source']} ({row['x']}, {row['y']})"
        semantic_map = read_labels(row["semantic_map"]["bytes"] or b"", f"{self._where}: {name}")
        return name, self._translated(semantic_map, name)

    def _translated(self, semantic_map: SemanticMap, name: str) -> SemanticMap:
        """The map with the ids of the model's table."""
        lookup = np.full(256, UNLABELLED, np.uint8)
        for value in set(np.unique(semantic_map).tolist()) - {UNLABELLED}:
            theirs = self._theirs.get(value)
            if theirs is None:
                raise InputError(f"{self._where}: {name}: its map holds {value}, which is not in its tissue.toml")
            lookup[value] = _id_in(self._table, theirs, f"{self._where}: {name}")
        return lookup[semantic_map]


def _id_in(table: TissueTable, tissue: TissueType, where: str) -> int:
    """The id of a type of another table, by name or alias; raises TissueError for a type that `table` lacks."""
    names = [name for name in tissue.aliases if any(map(str.isalpha, name)) and not name.startswith("#")]
    for name in (tissue.name, *names):
        with contextlib.suppress(TissueError):
            return table.find(name).id
    raise TissueError(
        f"{where}: holds {tissue.name!r}, which the model does not know ({', '.join(table.names)}); give it one of "
        "these names as an alias in the tissue.toml of the dataset"
    )


_COLUMNS = ["semantic_map", "source", "x", "y"]
_TYPES = {name: COLUMNS.field(name).type for name in _COLUMNS}


@lru_cache(maxsize=8)  # groups have 64 rows; maps alone are small
def _rows(shard: Path, group: int) -> list[dict]:
    with open_parquet(shard) as file, guarded(shard):
        rows: pa.Table = file.read_row_group(group, _COLUMNS)
        return rows.to_pylist()
