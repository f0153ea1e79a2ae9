"""Woven patches on disk: image, label map, and a row that says how each was made.

    FOLDER/
      images/00000.png       RGB; a text chunk holds the provenance, so that a picture that strays explains itself
      maps/00000.png         indexed palette, pixel = tissue id, 255 = unlabelled
      index.parquet          one row per patch
      tissue.toml            ids, names, colours
      generation.json        version, configuration, seed, model

A run works in `FOLDER.partial` and renames it at the end, so FOLDER is whole or absent. Within, each file is written
aside and renamed, the image last: the unbroken run of images is finished, and a run started again goes on behind it.
"""

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from histoloom.errors import ImageError, InputError, OutputError
from histoloom.patches.heterogeneity import class_fractions
from histoloom.patches.store import read_table
from histoloom.pictures import decode_image
from histoloom.tissue import TissueTable

PROVENANCE_KEY = "histoloom"  # of the PNG text chunk

_CROP = pa.struct(
    [("source", pa.string()), ("tissue_id", pa.int16())]
    + [(name, pa.int32()) for name in ("x", "y", "width", "height")]
    + [("texture", pa.bool_())]  # false: no more than its colours was shown
)
COLUMNS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),  # relative to the folder
        pa.field("semantic_map", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("map_source", pa.string(), nullable=False),  # where the map came from
        pa.field("crops", pa.list_(_CROP), nullable=False),
        pa.field("conditioning", pa.string(), nullable=False),
        pa.field("map_guidance", pa.float64(), nullable=False),
        pa.field("crop_guidance", pa.float64(), nullable=False),
        pa.field("guidance_interval", pa.list_(pa.float64())),  # shares of noise between which guidance above 1 acted
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("scheduler", pa.string(), nullable=False),
        pa.field("copy_limit", pa.float64()),  # likeness to a crop above which a patch was woven again
        pa.field(
            "copy_score", pa.float64()
        ),  # highest likeness to a crop it was to follow; null: not searched, or flat
        pa.field("tries", pa.int32(), nullable=False),  # times that it was woven
        pa.field("model_hash", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),  # of Histoloom
        pa.field("fractions", pa.list_(pa.float32()), nullable=False),  # of the labelled pixels, by tissue id
    ]
)

ADDED = {"copy_limit", "copy_score", "tries", "guidance_interval"}  # columns that older folders do not have


@dataclass(frozen=True)
class CropUse:
    """One crop that was woven from: its file or bank entry, its tissue id, its box in pixels of that source, and
    whether its texture was shown or its colours alone."""

    source: str
    tissue_id: int
    x: int
    y: int
    width: int
    height: int
    texture: bool = True


@dataclass(frozen=True)
class Provenance:
    """All that is needed to weave the same patch again."""

    seed: int
    map_source: str
    crops: tuple[CropUse, ...]
    conditioning: str
    map_guidance: float
    crop_guidance: float
    steps: int
    scheduler: str
    model_hash: str
    version: str
    copy_limit: float | None = None
    copy_score: float | None = None
    tries: int = 1
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # older versions guided at all times


@dataclass(frozen=True)
class AnnotatedPatch:
    """A woven image, uint8 `h w 3`, the map it was woven from, uint8 `h w` (writing checks this), its provenance."""

    image: UInt8[np.ndarray, "h w 3"]
    semantic_map: UInt8[np.ndarray, "mh mw"]
    provenance: Provenance


@dataclass(frozen=True)
class Woven:
    """A finished folder in memory: images `n h w 3`, semantic_maps `n h w`, the rows of the index, the tissue table."""

    images: UInt8[np.ndarray, "n h w 3"]
    semantic_maps: UInt8[np.ndarray, "n h w"]
    rows: list[dict]
    table: TissueTable


def write_patches(
    weave: Callable[[int], Iterable[AnnotatedPatch]], table: TissueTable, folder: Path | str, record: dict
) -> int:
    """Write what `weave(first)` yields, patch after patch from number `first` on; returns how many the folder holds.

    `first` counts the patches that an interrupted run with the same `record` has left: they are kept, not woven again.
    `record` is plain JSON (version, configuration, seed, model hash) and must decide every patch. A finished folder
    with this record is left as it is. Nothing is created before the first patch arrives. Raises OutputError when the
    folder holds anything else, or cannot be written; ImageError or TissueError when a patch does not fit its map or
    the table.
    """
    folder = Path(folder)
    aside = folder.with_name(folder.name + ".partial")
    if _is_finished(folder, record):
        return pq.read_metadata(folder / "index.parquet").num_rows
    done = _count_finished(aside, record)
    for number, patch in enumerate(weave(done), start=done):
        _check(patch, table, number)
        with _one_clear_line(folder, aside):
            if number == 0:
                _begin(aside, table, record)
            _write_patch(aside, number, patch, table)
        done = number + 1
    if not done:
        raise OutputError(f"{folder}: there was nothing to weave, so nothing was written; ask for at least one patch")
    with _one_clear_line(folder, aside):
        _write_index(aside, done, table)
        os.replace(aside, folder)
    return done


def read_woven(folder: Path | str) -> Woven:
    """Read a finished folder back; raises InputError or ImageError with file and cure.

    The index may come from anywhere: a path in it that leads out of the folder is refused before anything is opened.
    """
    folder = Path(folder)
    try:
        rows = pq.read_table(folder / "index.parquet").to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{folder}: no readable index.parquet ({error}); weave it with `histoloom generate`") from None
    if not rows:
        raise InputError(f"{folder / 'index.parquet'}: names no patches; weave the folder anew")
    if absent := sorted(set(COLUMNS.names) - ADDED - rows[0].keys()):
        raise InputError(
            f"{folder / 'index.parquet'}: has no column {absent[0]!r}, so it is no index of woven patches; name the "
            "folder that `histoloom generate` wrote"
        )
    columns = ("image", "semantic_map")
    places = [[_inside(folder, number, column, row[column]) for column in columns] for number, row in enumerate(rows)]
    images, maps = ([_read(path) for path in paths] for paths in zip(*places, strict=True))
    for row, image, semantic_map in zip(rows, images, maps, strict=True):
        if image.shape != (*maps[0].shape, 3) or semantic_map.shape != maps[0].shape:
            raise ImageError(
                f"{folder / row['image']}: image {image.shape} and map {semantic_map.shape} do not fit the first map "
                f"{maps[0].shape}; weave the folder anew"
            )
    for row in rows:
        row["guidance_interval"] = row.get("guidance_interval") or [0.0, 1.0]  # older versions guided at all times
    return Woven(np.stack(images), np.stack(maps), rows, read_table(folder))


def read_provenance(image: Path | str) -> Provenance:
    """The provenance that a woven PNG carries in itself; raises ImageError where there is none."""
    try:
        with Image.open(image) as opened:
            values = json.loads(opened.info[PROVENANCE_KEY])
        crops = tuple(CropUse(**crop) for crop in values.pop("crops"))
        interval = tuple(values.pop("guidance_interval", (0.0, 1.0)))
        return Provenance(crops=crops, guidance_interval=interval, **values)
    except (OSError, UnidentifiedImageError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{image}: carries no readable provenance ({error!r}); it was not woven here, or was re-saved"
        ) from None


def _inside(folder: Path, number: int, column: str, name: str) -> Path:
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that is none
        path = None
    if path is None or Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder / 'index.parquet'}, row {number}: {column} {name!r} leads out of the folder; copy the file into "
            "it and name it by a relative path, or weave the folder anew"
        )
    return folder / name


def _is_finished(folder: Path, record: dict) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / "index.parquet").is_file():
        raise OutputError(f"{folder}: exists and holds no woven patches; give --out another folder")
    _check_record(folder, record, folder)
    return True


def _count_finished(aside: Path, record: dict) -> int:
    """How many patches, from 0 on without a gap, an interrupted run has left."""
    if not aside.exists():
        return 0
    first = _image(aside, 0)
    if first.exists():
        _check_record(aside, record, aside)
    return next(number for number in count() if not _image(aside, number).exists())


def _check_record(folder: Path, record: dict, where: Path) -> None:
    try:
        found = json.loads((folder / "generation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{where}: its generation.json cannot be read ({error}); delete it or give --out another folder"
        ) from None
    wanted = json.loads(json.dumps(record))
    if found != wanted:
        differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        raise OutputError(
            f"{where}: was woven under another record (differs in {', '.join(differing)}); "
            "delete it or give --out another folder"
        )


def _check(patch: AnnotatedPatch, table: TissueTable, number: int) -> None:
    where = f"patch {number} ({patch.provenance.map_source})"
    if patch.image.shape != (*patch.semantic_map.shape, 3):
        raise ImageError(
            f"{where}: image {patch.image.shape} and map {patch.semantic_map.shape} differ in size; "
            "weave at the size of the map"
        )
    table.check(patch.semantic_map, where)


def _begin(aside: Path, table: TissueTable, record: dict) -> None:
    for name in ("images", "maps"):
        (aside / name).mkdir(parents=True, exist_ok=True)
    _write(aside / "tissue.toml", table.to_toml().encode())
    _write(aside / "generation.json", (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def _write_patch(aside: Path, number: int, patch: AnnotatedPatch, table: TissueTable) -> None:
    """Map first, image last: an image that is there has its map."""
    semantic_map = Image.fromarray(patch.semantic_map)
    semantic_map.putpalette(table.palette())  # grey becomes indexed; the pixels stay the ids
    _write(_map(aside, number), _png(semantic_map))
    text = PngImagePlugin.PngInfo()
    text.add_text(
        PROVENANCE_KEY, json.dumps(asdict(patch.provenance), sort_keys=True, default=lambda scalar: scalar.item())
    )
    _write(_image(aside, number), _png(Image.fromarray(patch.image), text))


def _write_index(aside: Path, done: int, table: TissueTable) -> None:
    """Rows come from the images themselves, so that an interrupted run and a whole one write the same bytes."""
    rows = [_row(aside, number, table) for number in range(done)]
    schema = COLUMNS.with_metadata({"histoloom.tissue": json.dumps(table.to_rows())})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd")
    _write(aside / "index.parquet", buffer.getvalue())


def _row(aside: Path, number: int, table: TissueTable) -> dict:
    image, semantic_map = _image(aside, number), _map(aside, number)
    places = {"image": image.relative_to(aside).as_posix(), "semantic_map": semantic_map.relative_to(aside).as_posix()}
    fractions = class_fractions(_read(semantic_map), table.num_ids)
    return places | asdict(read_provenance(image)) | {"fractions": fractions.tolist()}


def _image(folder: Path, number: int) -> Path:
    return folder / "images" / f"{number:05d}.png"


def _map(folder: Path, number: int) -> Path:
    return folder / "maps" / f"{number:05d}.png"


def _png(image: Image.Image, text: PngImagePlugin.PngInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _read(path: Path) -> UInt8[np.ndarray, "..."]:
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error}); weave the folder anew") from None


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".partial")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def _one_clear_line(folder: Path, aside: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); free some space or give --out another folder; "
            f"what is finished waits in {aside}, and the same command goes on from there"
        ) from None
