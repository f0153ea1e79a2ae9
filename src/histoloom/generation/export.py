"""Woven patches on disk: image, label map, and a row that says how each was made.

    FOLDER/
      images/00000.png       RGB; a text chunk holds the provenance, so that a stray picture explains itself
      maps/00000.png         indexed palette, pixel = tissue id, 255 = unlabeled
      index.parquet          one row per patch
      metadata.parquet       the same rows as `datasets.load_dataset` reads them: with an image and a map column
      tissue.toml            ids, names, colors
      contact-sheet.png      map, crops and result of the first patches
      delivered.json         of an order: what was ordered and what was obtained
      README.md              dataset card
      dropped/00007.json     of a self-check: a patch that did not pass, and neither did those in its place
      record.json            settings and fingerprints of the inputs
      sources.local.json     file names of maps and crops, by the ids that the rows hold; not for sharing

Images are written last, so all up to the first number without one are finished, and an interrupted run resumes there.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from histoloom import files
from histoloom.errors import ImageError, InputError, OutputError
from histoloom.parquet import count_rows, open_parquet, parquet_writer, read_batches
from histoloom.patches.heterogeneity import class_fractions
from histoloom.patches.preview import preview_html
from histoloom.patches.store import read_table
from histoloom.pictures import opened_picture, read_image, read_labels
from histoloom.records import Record, read_json
from histoloom.tissue import UNLABELLED, TissueTable

FORMAT = 1  # raised when the same settings and inputs give other bytes
ROWS = 1024  # of the index, in memory at a time
SOURCES = "sources.local.json"
PROVENANCE_KEY = "histoloom"  # of the PNG text chunk

_CROP = pa.struct(
    [("source", pa.string()), ("tissue_id", pa.int16())]
    + [(name, pa.int32()) for name in ("x", "y", "width", "height")]
    + [("texture", pa.bool_())]  # false: only its colors were shown
)
COLUMNS = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),  # relative to the folder
        pa.field("semantic_map", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("map_source", pa.string(), nullable=False),  # file or id of the map
        pa.field("crops", pa.list_(_CROP), nullable=False),
        pa.field("conditioning", pa.string(), nullable=False),
        pa.field("map_guidance", pa.float64(), nullable=False),
        pa.field("crop_guidance", pa.float64(), nullable=False),
        pa.field("guidance_interval", pa.list_(pa.float64())),  # shares of noise between which guidance above 1 acted
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("scheduler", pa.string(), nullable=False),
        pa.field("copy_limit", pa.float64()),  # similarity to a crop above which a patch was woven again
        pa.field("copy_score", pa.float64()),  # highest similarity to a crop of its order; null: not searched, or flat
        pa.field("tries", pa.int32(), nullable=False),  # attempts
        pa.field("mpp", pa.float64()),  # micrometers per pixel; null: unknown
        pa.field("model_hash", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),  # of Histoloom
        pa.field("fractions", pa.list_(pa.float32()), nullable=False),  # of the labeled pixels, by tissue id
        pa.field("labeled", pa.int64()),  # pixels with a label
        pa.field("rejected_copies", pa.int32()),  # patches before this one that were dropped for resembling a crop
        pa.field("rejected_maps", pa.int32()),  # and for tissue that was not where the map says
        pa.field("lossy", pa.float64()),  # share of pixels that a judge made unlabeled; null: not judged
    ]
)

ADDED = {  # columns that older folders do not have
    "copy_limit", "copy_score", "tries", "guidance_interval", "mpp",
    "labeled", "rejected_copies", "rejected_maps", "lossy",
}  # fmt: skip


@dataclass(frozen=True)
class CropUse:
    """One crop that a patch was woven from: its file or id, its tissue id, its box in pixels of that source, and
    whether its texture was shown or only its colors."""

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
    mpp: float | None = None
    rejected_copies: int = 0
    rejected_maps: int = 0
    lossy: float | None = None


@dataclass(frozen=True)
class Dropped:
    """A patch that no attempt and no replacement made pass: how many resembled a crop, how many missed their map."""

    rejected_copies: int
    rejected_maps: int


@dataclass(frozen=True, repr=False, eq=False)
class AnnotatedPatch:
    """A woven image, uint8 `h w 3`, the map it was woven from, uint8 `h w` (writing checks this), its provenance."""

    image: UInt8[np.ndarray, "h w 3"]
    semantic_map: UInt8[np.ndarray, "mh mw"]
    provenance: Provenance

    def __repr__(self) -> str:
        made, (height, width) = self.provenance, self.semantic_map.shape
        return f"<AnnotatedPatch: {width} x {height} px, seed {made.seed}, {len(made.crops)} crops>"

    def _repr_html_(self) -> str:
        return preview_html(repr(self), self.image[None], self.semantic_map[None], [self.provenance.map_source])


@dataclass(frozen=True, repr=False, eq=False)
class Woven:
    """A finished folder in memory: images `n h w 3`, semantic_maps `n h w`, the rows of the index, the tissue table."""

    images: UInt8[np.ndarray, "n h w 3"]
    semantic_maps: UInt8[np.ndarray, "n h w"]
    rows: list[dict]
    table: TissueTable

    def __repr__(self) -> str:
        count, height, width = self.semantic_maps.shape
        return f"<Woven: {count} patches of {width} x {height} px, {len(self.table.types)} tissue types>"

    def _repr_html_(self) -> str:
        return preview_html(repr(self), self.images, self.semantic_maps, [row["image"] for row in self.rows])


def write_patches(
    weave: Callable[[int], Iterable[AnnotatedPatch | Dropped]],
    table: TissueTable,
    folder: Path | str,
    record: Record,
    sources: dict | None = None,
    finish: Callable[[Path], None] = lambda aside: None,
) -> int:
    """Write the patches that `weave(first)` yields, from number `first` on; returns how many the folder holds.

    `first` counts the patches that an interrupted run with the same `record` has left. A finished folder with this
    record stays as it is. `sources` is the content of the key file that is not for sharing. `finish` adds files to the
    folder before it is published. Raises OutputError where the folder holds anything else, is being written by another
    process, or cannot be written; ImageError or TissueError where a patch does not fit its map or the table.
    """
    folder = Path(folder)
    if files.is_finished(folder, record):
        return count_rows(folder / "index.parquet")
    with files.resumable_folder(folder, record) as aside:
        done = next(n for n in count() if not (_image(aside, n).exists() or _dropped(aside, n).exists()))
        for number, patch in enumerate(weave(done), start=done):
            if isinstance(patch, AnnotatedPatch):
                _check(patch, table, number)
            if number == 0:
                files.write_text(aside / "tissue.toml", table.to_toml())
                if sources:
                    files.write_json(aside / SOURCES, sources)
            if isinstance(patch, Dropped):
                files.write_json(_dropped(aside, number), asdict(patch))
            else:
                _write_patch(aside, number, patch, table)
            done = number + 1
        if not done:
            raise OutputError(f"{folder}: there is nothing to weave; ask for at least one patch")
        kept = [number for number in range(done) if _image(aside, number).exists()]
        if not kept:
            raise OutputError(
                f"{folder}: all {done} patches failed the self-check; loosen it, or change crops or model"
            )
        _write_index(aside, kept, table)
        finish(aside)
    return len(kept)


def read_dropped(folder: Path) -> list[Dropped]:
    """The patches that were dropped."""
    return [Dropped(**read_json(path)) for path in sorted((folder / "dropped").glob("*.json"))]


def read_index(folder: Path | str) -> list[dict]:
    """The rows of the index of woven patches; raises InputError with file and cure."""
    return list(iter_index(folder))


def iter_index(folder: Path | str) -> Iterator[dict]:
    """The rows of the index one by one, so that memory does not grow with their number; raises as `read_index` does."""
    path = Path(folder) / "index.parquet"
    types = {field.name: field.type for field in COLUMNS if field.name not in ADDED | {"crops"}}
    with open_parquet(path, types) as file:
        if not _holds_crops(file.schema_arrow):
            raise InputError(
                f"{path}: has no column 'crops', so it is not an index of woven patches; name the right folder"
            )
        if not file.metadata.num_rows:
            raise InputError(f"{path}: names no patches; weave the folder again")
    for batch in read_batches(path, ROWS):
        for row in batch.to_pylist():
            row["guidance_interval"] = row.get("guidance_interval") or [0.0, 1.0]  # older versions guided at all times
            yield row


def read_woven(folder: Path | str, most: int | None = None) -> Woven:
    """Read a finished folder, or its first `most` patches, which share one size.

    Raises InputError or ImageError with file and cure. `iter_woven` reads patches of any sizes, one by one.
    """
    rows, images, maps = [], [], []
    for row, image, semantic_map in islice(iter_woven(folder), most):
        if maps and semantic_map.shape != maps[0].shape:
            raise ImageError(
                f"{Path(folder) / row['image']}: its map {semantic_map.shape} has not the size of the first map "
                f"{maps[0].shape}; use iter_woven for patches of several sizes"
            )
        rows.append(row)
        images.append(image)
        maps.append(semantic_map)
    return Woven(np.stack(images), np.stack(maps), rows, read_table(folder))


def iter_woven(folder: Path | str) -> Iterator[tuple[dict, UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]:
    """Row, image and map of each patch of a finished folder; raises InputError or ImageError with file and cure.

    The index may come from anywhere: a path in it that leads out of the folder is refused before any file is opened.
    """
    folder = Path(folder)
    for number, row in enumerate(iter_index(folder)):
        for column in ("image", "semantic_map"):
            _refuse_outside(folder, number, column, row[column])
    for row in iter_index(folder):
        image, semantic_map = read_image(folder / row["image"]), read_labels(folder / row["semantic_map"])
        if image.shape != (*semantic_map.shape, 3):
            raise ImageError(
                f"{folder / row['image']}: image {image.shape} and map {semantic_map.shape} differ in size; weave the "
                "folder again"
            )
        yield row, image, semantic_map


def read_provenance(image: Path | str) -> Provenance:
    """The provenance in a woven PNG; raises ImageError where there is none."""
    try:
        with opened_picture(Path(image)) as opened:
            values = json.loads(opened.info[PROVENANCE_KEY])
        crops = tuple(CropUse(**crop) for crop in values.pop("crops"))
        interval = tuple(values.pop("guidance_interval", (0.0, 1.0)))
        return Provenance(crops=crops, guidance_interval=interval, **values)
    except (ImageError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ImageError(
            f"{image}: has no readable provenance ({error!r}); it was not woven by Histoloom, or was saved again"
        ) from None


def _holds_crops(schema: pa.Schema) -> bool:
    """Whether the column of crops is one that this version or an older one, without `texture`, writes."""
    kind = schema.field("crops").type if "crops" in schema.names else pa.null()
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields, known = set(kind.value_type.names), set(_CROP.names)
    return known - {"texture"} <= fields <= known


def _refuse_outside(folder: Path, number: int, column: str, name: str) -> None:
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name with a zero byte
        path = None
    if path is None or Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder / 'index.parquet'}, row {number}: {column} {name!r} leads out of the folder; copy the file into "
            "it and name it by a relative path, or weave the folder again"
        )


def _check(patch: AnnotatedPatch, table: TissueTable, number: int) -> None:
    where = f"patch {number} ({patch.provenance.map_source})"
    if patch.image.shape != (*patch.semantic_map.shape, 3):
        raise ImageError(
            f"{where}: image {patch.image.shape} and map {patch.semantic_map.shape} differ in size; "
            "weave at the size of the map"
        )
    table.check(patch.semantic_map, where)


def _write_patch(aside: Path, number: int, patch: AnnotatedPatch, table: TissueTable) -> None:
    """Map first, image last: an image that exists has its map."""
    semantic_map = Image.fromarray(patch.semantic_map)
    semantic_map.putpalette(table.palette())  # gray becomes indexed; the pixels stay the ids
    mpp = patch.provenance.mpp
    files.write_bytes(_map(aside, number), _png(semantic_map, mpp))
    text = PngImagePlugin.PngInfo()
    text.add_text(
        PROVENANCE_KEY, json.dumps(asdict(patch.provenance), sort_keys=True, default=lambda scalar: scalar.item())
    )
    files.write_bytes(_image(aside, number), _png(Image.fromarray(patch.image), mpp, text))


def _write_index(aside: Path, numbers: list[int], table: TissueTable) -> None:
    """Rows come from the images themselves, so that an interrupted run and an undisturbed one write the same bytes."""
    schema = COLUMNS.with_metadata({"histoloom.tissue": json.dumps(table.to_rows())})
    # `datasets` opens the files that columns of these names point to.
    names = [f"{name}_file_name" if name in ("image", "semantic_map") else name for name in schema.names]
    renamed = pa.schema(
        [field.with_name(name) for name, field in zip(names, schema, strict=True)], metadata=schema.metadata
    )
    with (
        files.whole_file(aside / "index.parquet") as index,
        files.whole_file(aside / "metadata.parquet") as metadata,
        parquet_writer(index, schema, compression="zstd") as write_index,
        parquet_writer(metadata, renamed, compression="zstd") as write_metadata,
    ):
        for start in range(0, len(numbers), ROWS):
            rows = [_row(aside, number, table) for number in numbers[start : start + ROWS]]
            write_index.write_table(pa.Table.from_pylist(rows, schema))
            write_metadata.write_table(pa.Table.from_pylist(rows, schema).rename_columns(names))


def _row(aside: Path, number: int, table: TissueTable) -> dict:
    image, semantic_map = _image(aside, number), _map(aside, number)
    places = {"image": image.relative_to(aside).as_posix(), "semantic_map": semantic_map.relative_to(aside).as_posix()}
    labels = read_labels(semantic_map)
    shown = {"fractions": class_fractions(labels, table.num_ids).tolist(), "labeled": int((labels != UNLABELLED).sum())}
    return places | asdict(read_provenance(image)) | shown


def _image(folder: Path, number: int) -> Path:
    return folder / "images" / f"{number:05d}.png"


def _map(folder: Path, number: int) -> Path:
    return folder / "maps" / f"{number:05d}.png"


def _dropped(folder: Path, number: int) -> Path:
    return folder / "dropped" / f"{number:05d}.json"


def _png(image: Image.Image, mpp: float | None, text: PngImagePlugin.PngInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    density = {} if mpp is None else {"dpi": (25_400 / mpp,) * 2}  # becomes the chunk pHYs, in pixels per meter
    image.save(buffer, "PNG", pnginfo=text, **density)
    return buffer.getvalue()
