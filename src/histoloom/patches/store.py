"""A patch dataset on disk: Parquet shards, a tissue table, a description and a record of the run that made it.

    DATASET/
      tissue.toml            ids, names, colors
      dataset.json           name, command, settings, counts, notes
      record.json            the run: settings and fingerprints of all inputs
      README.md              dataset card
      data/train-00000.parquet ...
      overlays/SLIDE.jpg     from slides: tissue, annotation and chosen patches on a thumbnail
      lumens.jpg             from `histoloom lumens`: patches before and after
      levels.toml            from discovered maps: to which coarser types the ids belong
      paths.local.json       from slides: where slides and annotations are on this machine

A killed run leaves whole shards or none.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int, UInt8
from PIL import Image

from histoloom.errors import ImageError, InputError
from histoloom.files import whole_file
from histoloom.parquet import read_batches, schema_of
from histoloom.patches.dataset import read_description
from histoloom.patches.schema import COLUMNS, TYPES, arrow_schema
from histoloom.pictures import read_image, read_labels
from histoloom.text import counted, shorten
from histoloom.tissue import UNLABELLED, TissueTable

ROWS_PER_SHARD = 4096
INDEX_ROWS_PER_SHARD = 2**16  # rows without pixels, at about 1 kB in memory: 10,000 shards for 634 million patches
SCALE_TOLERANCE = 0.1  # share by which two scales may differ and still be one
BYTES_PER_SHARD = 2**29  # of encoded images: what a writer holds in memory

ReadPlace = Callable[[dict], tuple[np.ndarray, np.ndarray]]  # a row -> its image and semantic map


@dataclass(frozen=True, repr=False, eq=False)
class Patches:
    """Patches of one split, in memory.

    images uint8 `n h w 3`, semantic_maps uint8 `n h w`, cases and sources of length n, mpp (nan where unknown), places
    int64 `n 3`: x, y and edge in level-0 pixels of the source.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    semantic_maps: UInt8[np.ndarray, "n h w"]
    cases: list[str]
    sources: list[str]
    mpp: Float[np.ndarray, " n"]
    places: Int[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.cases)

    def __repr__(self) -> str:
        height, width = self.semantic_maps.shape[1:]
        known = sorted({f"{mpp:.4g}" for mpp in self.mpp.tolist() if mpp == mpp})
        mpp = f", {' or '.join(known)} um/px" if known else ""
        return f"Patches({len(self)} of {counted(len(set(self.cases)), 'case')}, {width} x {height} px{mpp})"

    def _repr_html_(self) -> str:
        """The first patches above their maps, for a notebook."""
        from histoloom.patches.preview import preview_html

        return preview_html(repr(self), self.images, self.semantic_maps, self.names)

    @cached_property
    def names(self) -> list[str]:
        """The source of each patch, with its place where several patches have one source, such as a slide."""
        several = {source for source, count in Counter(self.sources).items() if count > 1}
        places = zip(self.sources, self.places.tolist(), strict=True)
        return [f"{source} ({x}, {y})" if source in several else source for source, (x, y, _) in places]

    def select(self, indices: Iterable[int] | Int[np.ndarray, " m"]) -> "Patches":
        """The patches at `indices`, in that order; raises InputError for a mask, and for numbers of no patch."""
        at = positions(indices, len(self))
        names = [self.cases[i] for i in at], [self.sources[i] for i in at]
        return Patches(self.images[at], self.semantic_maps[at], *names, self.mpp[at], self.places[at])

    def fingerprint(self) -> str:
        """SHA-256 over pixels, maps, cases and mpp, in order: the data that a run was trained on."""
        digest = hashlib.sha256("\n".join(self.cases).encode())
        for array in (self.images, self.semantic_maps):
            digest.update(np.ascontiguousarray(array).data)
        if np.isfinite(self.mpp).any():
            digest.update(self.mpp.astype("<f8").tobytes())
        return digest.hexdigest()


def positions(indices: Iterable[int] | Int[np.ndarray, " m"], count: int) -> Int[np.ndarray, " m"]:
    """The indices of some of `count` items as an array; raises InputError for anything but whole numbers of items."""
    at = np.asarray(list(indices))
    if at.size and not np.issubdtype(at.dtype, np.integer):
        raise InputError(f"indices hold {at.dtype}; give whole numbers, such as np.flatnonzero(mask)")
    if at.size and not -count <= at.min() <= at.max() < count:
        raise InputError(f"indices run from {at.min()} to {at.max()}; there are {count} items")
    return at.astype(np.int64)


def common_mpp(mpp: Float[np.ndarray, " n"]) -> float | None:
    """The micrometers per pixel that all patches share (to 2 %); None if unknown or mixed."""
    if not len(mpp) or not np.isfinite(mpp).all() or mpp.max() > 1.02 * mpp.min():
        return None
    return float(np.median(mpp))


def write_shards(
    rows: Iterable[dict], table: TissueTable, folder: Path, split: str, schema: pa.Schema | None = None
) -> int:
    """Write `rows` as `data/{split}-NNNNN.parquet`; returns their number.

    They are dicts with the columns of `schema`, which holds images as `image`; by default that of patch rows.
    """
    schema = schema or arrow_schema(table)
    count = 0
    for shard, batch in enumerate(_batches(rows)):
        group = 64 if batch[0]["image"] else 4096  # rows; small groups let a reader hold few images
        with whole_file(folder / "data" / f"{split}-{shard:05d}.parquet") as aside:
            columns = pa.Table.from_pylist(batch, schema)
            with aside.open("wb") as file:  # pyarrow refuses names that are not UTF-8
                pq.write_table(columns, file, compression="zstd", row_group_size=group)
        count += len(batch)
    return count


def _batches(rows: Iterable[dict]) -> Iterator[list[dict]]:
    batch, held = [], 0
    for row in rows:
        batch.append(row)
        held += len(row["image"]["bytes"]) if row["image"] else 0
        if len(batch) == (ROWS_PER_SHARD if held else INDEX_ROWS_PER_SHARD) or held >= BYTES_PER_SHARD:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def read_table(folder: Path | str) -> TissueTable:
    """The tissue table of a dataset; raises InputError for another folder."""
    folder = Path(folder)
    if not (folder / "tissue.toml").is_file():
        raise InputError(f"{folder}: not a patch dataset (no tissue.toml); make one with `histoloom import`")
    return TissueTable.load(folder / "tissue.toml")


def iter_rows(
    folder: Path | str, split: str, columns: list[str] | None = None, skip_damaged: bool = False
) -> Iterator[dict]:
    """Rows of one split, shard by shard, as dicts; pixels stay encoded. Memory is flat in the number of rows."""
    for batch in iter_batches(folder, split, columns, skip_damaged):
        yield from batch.to_pylist()


def shards_of(folder: Path | str, split: str) -> list[Path]:
    """The shards of one split, in order."""
    return sorted((Path(folder) / "data").glob(f"{split}-*.parquet"))


def check_types(shard: Path, table: TissueTable) -> None:
    """Raise InputError where a shard was written with a tissue table in which a type of `table` has another id."""
    try:
        rows = json.loads((schema_of(shard).metadata or {}).get(TYPES, b"[]"))
        moved = table.moved((row["name"], row["id"]) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # of another program
    if moved:
        name, id, here = moved
        raise InputError(
            f"{shard}: was written with id {id} for {shorten(name)!r}, which is {here} in the tissue.toml of the "
            "dataset; restore that file, or make the dataset again"
        )


def iter_batches(
    folder: Path | str, split: str, columns: list[str] | None = None, skip_damaged: bool = False
) -> Iterator[pa.RecordBatch]:
    """Rows of one split in batches of at most 64, in the same order.

    Raises InputError naming a damaged shard, one whose types have other ids than those of the dataset, or a split with
    more or fewer rows than its description says. `skip_damaged` goes on with the next shard, for callers that have
    reported it.
    """
    shards, table, count = shards_of(folder, split), _table_of(folder), 0
    if not shards:
        raise InputError(
            f"{folder}: no shards of split {split!r} under data/; known: {', '.join(splits(folder)) or 'none'}"
        )
    types = {name: COLUMNS.field(name).type for name in (columns or COLUMNS.names)}
    for shard in shards:
        try:
            if table is not None:
                check_types(shard, table)
            for batch in read_batches(shard, 64, columns, types):
                count += batch.num_rows
                yield batch
        except InputError:
            if not skip_damaged:
                raise
    if not skip_damaged:
        check_count(folder, split, count)


def check_count(folder: Path | str, split: str, count: int) -> None:
    """Raise InputError where the description of a dataset gives another number of patches: a shard may be missing."""
    if (described := _described_rows(folder, split)) not in (None, count):
        raise InputError(
            f"{folder}: split {split!r} has {count} patches, but its dataset.json says {described}; copy the dataset "
            "again, or write the number there if you have changed it yourself"
        )


def _table_of(folder: Path | str) -> TissueTable | None:
    return read_table(folder) if (Path(folder) / "tissue.toml").is_file() else None


def _described_rows(folder: Path | str, split: str) -> int | None:
    """The rows of a split by `dataset.json`; None where that does not say."""
    try:
        counts = (read_description(folder) or {})["counts"][split]["patches"]
    except (KeyError, TypeError):
        return None
    return counts if isinstance(counts, int) else None


def splits(folder: Path | str) -> list[str]:
    """Names of the splits that a dataset has."""
    return sorted({p.name.rsplit("-", 1)[0] for p in (Path(folder) / "data").glob("*-*.parquet")})


def has_pixels(folder: Path | str, split: str, skip_damaged: bool = False) -> bool:
    """False for an index of places, whose pixels are read from the slides; raises InputError for a split without rows.

    A dataset has pixels for all of its rows or for none.
    """
    first = next(iter_rows(folder, split, ["semantic_map"], skip_damaged), None)
    if first is None:
        raise InputError(f"{folder}: split {split!r} has no rows; make the dataset again")
    return first["semantic_map"] is not None


def count_patches(folder: Path | str, split: str) -> int:
    """The number of patches of one split, counted without their pixels."""
    return sum(1 for _ in iter_rows(folder, split, ["case"]))


def spread(count: int, most: int) -> Int[np.ndarray, " n"]:
    """At most `most` of the numbers below `count`, evenly spread: a few patches that stand for all."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def load_patches(
    folder: Path | str,
    split: str,
    read: ReadPlace | None = None,
    skip_damaged: bool = False,
    most: int | None = None,
) -> Patches:
    """All patches of one split, or those of `spread`, decoded; they must share one size.

    An index of places has no pixels: `read`, such as `PlaceReader(folder).read`, takes them from the slides. Raises
    InputError and ImageError naming folder, shard or patch, also for a map that holds an id which the tissue table
    lacks; `skip_damaged` leaves out shards that cannot be read.
    """
    table, known = _table_of(folder), np.zeros(256, bool)
    known[[*(range(256) if table is None else table.ids), UNLABELLED]] = True
    images, maps, cases, sources, mpp, places = [], [], [], [], [], []
    columns = ["image", "semantic_map", "source", "x", "y", "size", "case", "mpp"]
    wanted = None if most is None else set(spread(count_patches(folder, split), most).tolist())
    for number, row in enumerate(iter_rows(folder, split, columns, skip_damaged)):
        if wanted is not None and number not in wanted:
            continue
        image, semantic_map = row_pixels(row, read, f"{folder}: split {split!r}")
        if not known[semantic_map].all():
            raise InputError(
                f"{folder}: split {split!r}: {row['source']}: its map holds {semantic_map[~known[semantic_map]][0]}, "
                "which is not in its tissue.toml; restore that file, or make the dataset again"
            )
        images.append(image)
        maps.append(semantic_map)
        cases.append(row["case"])
        sources.append(row["source"])
        mpp.append(np.nan if row["mpp"] is None else row["mpp"])
        places.append((row["x"], row["y"], row["size"]))
    if not maps:
        raise InputError(f"{folder}: split {split!r} has no rows; make the dataset again")
    if len({m.shape for m in maps}) > 1:
        raise ImageError(
            f"{folder}: patches differ in size {sorted({m.shape for m in maps})[:3]}; import them with --size"
        )
    return Patches(np.stack(images), np.stack(maps), cases, sources, np.asarray(mpp), np.asarray(places, np.int64))


def row_pixels(row: dict, read: ReadPlace | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and map of a row, decoded, or from `read` where the row has none; `where` names the dataset in errors.

    Raises InputError for a row without pixels where there is no `read`, ImageError for pixels that cannot be used.
    """
    if row["image"] is None or row["semantic_map"] is None:
        if read is None:
            raise InputError(
                f"{where} is an index without pixels; read them from the slides by read=PlaceReader(folder).read, or "
                "make the dataset with --pixels"
            )
        return read(row)
    name = f"{where}: {row['source']}"
    image, semantic_map = (
        read_image(row["image"]["bytes"] or b"", name),
        read_labels(row["semantic_map"]["bytes"] or b"", name),
    )
    if image.shape[:2] != semantic_map.shape:
        raise ImageError(
            f"{name}: its image has shape {image.shape} and its map {semantic_map.shape}; they must be of one size: "
            "make the dataset again"
        )
    return image, semantic_map


def encode_png(array: UInt8[np.ndarray, "..."]) -> dict:
    """An array as the struct that the `image` and `semantic_map` columns hold (lossless PNG)."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return {"bytes": buffer.getvalue(), "path": None}
