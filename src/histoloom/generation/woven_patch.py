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

`woven_writer` writes such a folder, `woven_reader` reads it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from histoloom.errors import ImageError
from histoloom.patches.preview import preview_html
from histoloom.pictures import opened_picture
from histoloom.text import counted

FORMAT = 2  # raised when the same settings and inputs give other bytes
ROWS = 1024  # of the index, in memory at a time
SOURCES = "sources.local.json"
PROVENANCE_KEY = "histoloom"  # of the PNG text chunk

CROP = pa.struct(
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
        pa.field("crops", pa.list_(CROP), nullable=False),
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
        return f"<AnnotatedPatch: {width} x {height} px, seed {made.seed}, {counted(len(made.crops), 'crop')}>"

    def _repr_html_(self) -> str:
        return preview_html(repr(self), self.image[None], self.semantic_map[None], [self.provenance.map_source])


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


def image_path(folder: Path, number: int) -> Path:
    """The image of a patch, which is written last."""
    return folder / "images" / f"{number:05d}.png"


def map_path(folder: Path, number: int) -> Path:
    """The map of a patch."""
    return folder / "maps" / f"{number:05d}.png"


def dropped_path(folder: Path, number: int) -> Path:
    """The report of a patch that was dropped."""
    return folder / "dropped" / f"{number:05d}.json"
