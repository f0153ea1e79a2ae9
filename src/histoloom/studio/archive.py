"""A result as a zip, and the way back: what was woven, from what, and how.

image.png           the result; a text chunk says how it was made
map.png             indexed PNG, pixel = tissue id, 255 = unlabeled
outlines.geojson    the same as polygons, for QuPath
crops/00.png        the crops, in their order
original.png, mask.png
                    of a redrawn image: what it was, and where it was redrawn (255)
provenance.json     all settings, the map, and fingerprints of the rest; alone it reopens what used crops of a bank
README.txt          what this is
"""

import base64
import io
import json
import zipfile
import zlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from histoloom.conditioning.inputs import content_id
from histoloom.discovery.map_files import regions_text
from histoloom.errors import HistoloomError, RequestError
from histoloom.generation.settings import WeaveConfig
from histoloom.generation.woven_writer import indexed_png
from histoloom.pictures import opened_picture, read_image, read_labels
from histoloom.studio.catalog import Catalog, Model
from histoloom.studio.settings import StudioConfig
from histoloom.studio.shelf import ShownCrop, as_png
from histoloom.studio.task import LARGEST_CROP, MOST_CROPS, Redrawn, Task, Woven, ids_hash, tissue_id
from histoloom.studio.wording import for_page
from histoloom.text import one_line
from histoloom.version import VERSION

FORMAT = 1
PROVENANCE = "provenance.json"
MOST_JSON = 8 * 2**20
# What reading a foreign file may raise; zlib for a stream, ArithmeticError for a number such as Infinity.
_DAMAGED = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, zipfile.BadZipFile, zlib.error)
DATED = (1980, 1, 1, 0, 0, 0)  # of all files, so that the same result is the same zip


@dataclass(frozen=True, eq=False)
class Reopened:
    """What weaves a result again: model, map, crops with their tissue (by name in a bank, or as they are), settings."""

    model: Model
    semantic_map: UInt8[np.ndarray, "h w"]
    crops: list[tuple[str | ShownCrop, str]]
    settings: dict
    redrawn: Redrawn | None


def write_zip(task: Task, number: int, woven: Woven) -> bytes:
    """The zip of variation `number` of a task."""
    table, mpp = task.model.table, task.model.pipeline.mpp
    names = {tissue.id: tissue.name for tissue in table.types}
    config = replace(task.config, seed=task.config.seed + number)
    _, resolved = task.model.pipeline.resolve(config)
    drawn = indexed_png(task.semantic_map, table, mpp)
    said = {
        "format": FORMAT,
        "made_by": f"Histoloom {VERSION}",
        "model": {"name": task.model.name, "hash": task.model.hash},
        "width": task.semantic_map.shape[1],
        "height": task.semantic_map.shape[0],
        "ids_sha256": ids_hash(task.semantic_map),
        "map_png": base64.b64encode(drawn).decode(),
        "settings": {
            "steps": resolved.steps,
            "sampler": resolved.sampler,
            "map_guidance": resolved.map_guidance,
            "crop_guidance": resolved.crop_guidance,
            "guidance_interval": resolved.guidance_interval,
            "seed": config.seed,
        },
        "crops": [{"tissue": names[c.tissue], "id": content_id(c.pixels), "x": c.x, "y": c.y} for c in task.crops],
        "redrawn": None,
        "woven": woven.made,
    }
    files = {"image.png": woven.png, "map.png": drawn, "outlines.geojson": _outlines(task)}
    files |= {_crop_file(i): as_png(Image.fromarray(crop.pixels)) for i, crop in enumerate(task.crops)}
    if task.redrawn is not None:
        said["redrawn"] = {"image": content_id(task.redrawn.image), "mask": content_id(task.redrawn.mask)}
        files["original.png"] = as_png(Image.fromarray(task.redrawn.image))
        files["mask.png"] = as_png(Image.fromarray(np.where(task.redrawn.mask, 255, 0).astype(np.uint8)))
    files[PROVENANCE] = json.dumps(said, indent=1, default=lambda scalar: scalar.item()).encode()
    files["README.txt"] = _readme(task).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # what is in it is compressed already, but for the text
        for name, data in files.items():
            how = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, DATED), data, how)
    return buffer.getvalue()


def reopen(data: bytes, catalog: Catalog, config: StudioConfig) -> Reopened:
    """Read a zip of `write_zip`, or its provenance.json; raises RequestError for any other file, and another model."""
    try:
        files = _Files(data, config)
        said = json.loads(files.read(PROVENANCE, MOST_JSON))
        if said["format"] != FORMAT:
            raise RequestError(f"this was written in format {said['format']}, and this studio reads {FORMAT}", 400)
        model = catalog.of_hash(said["model"]["hash"], str(said["model"]["name"])[:80])
        semantic_map = _map(said, model, config)
        settings = {name: said["settings"][name] for name in ("steps", "map_guidance", "crop_guidance", "seed")}
        model.pipeline.resolve(WeaveConfig(**settings))
        rows = said["crops"]
        if not isinstance(rows, list) or len(rows) > MOST_CROPS:
            raise RequestError(f"this names more than {MOST_CROPS} crops", 400)
        crops = [(_crop(files, i, row, catalog), row["tissue"]) for i, row in enumerate(rows)]
        for _, tissue in crops:
            tissue_id(model, tissue)
        redrawn = None if said["redrawn"] is None else _redrawn(files, said["redrawn"], semantic_map.shape)
    except RequestError:
        raise
    except HistoloomError as error:
        said = one_line(for_page(error), 120)
        raise RequestError(f"this is not a result of the studio, or it is damaged ({said})", 400) from None
    except _DAMAGED:  # what these say is about Python
        raise RequestError(
            "this is not a result of the studio, or it is damaged; choose the zip of a result, or its provenance.json",
            400,
        ) from None
    return Reopened(model, semantic_map, crops, settings | {"model": model.name}, redrawn)


class _Files:
    """The files of an upload: those of a zip, or provenance.json alone. Names are ours, and sizes are bounded."""

    def __init__(self, data: bytes, config: StudioConfig):
        self._data, self._most = data, config.upload_bytes
        self._zip = zipfile.ZipFile(io.BytesIO(data)) if data[:2] == b"PK" else None

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of a file; raises RequestError for one that is missing or too large."""
        if self._zip is None:
            if name != PROVENANCE:
                raise RequestError("this uses crops or pictures that are in no bank; reopen the zip instead", 400)
            return self._data
        most = most or self._most
        try:
            with self._zip.open(name) as file:
                data = file.read(most + 1)  # whatever the directory of the zip says of its size
        except (EOFError, KeyError, NotImplementedError, RuntimeError, OSError, zlib.error):
            raise RequestError(
                f"this is not a result of the studio, or it is damaged (no readable {name})", 400
            ) from None
        if len(data) > most:
            raise RequestError(f"{name} is larger than {most} bytes", 413)
        return data

    def picture(self, name: str, pixels: int) -> UInt8[np.ndarray, "h w 3"]:
        """An image; its header is checked before it is decoded."""
        data = self.read(name)
        with opened_picture(data, name, pixels):
            return read_image(data, name)


def _map(said: dict, model: Model, config: StudioConfig) -> UInt8[np.ndarray, "h w"]:
    data = base64.b64decode(said["map_png"], validate=True)
    with opened_picture(data, "map", config.most_edge**2):
        semantic_map = read_labels(data, "map")
    model.table.check(semantic_map, "map")
    if ids_hash(semantic_map) != said["ids_sha256"] or semantic_map.shape != (said["height"], said["width"]):
        raise RequestError("the map of this result was changed; its hash differs from what is recorded", 400)
    return semantic_map


def _crop(files: _Files, number: int, row: dict, catalog: Catalog) -> str | ShownCrop:
    """The name of a crop of a bank, or the crop of the zip; raises RequestError for one that was changed."""
    if row["id"] in catalog.crops:
        return row["id"]
    pixels = files.picture(_crop_file(number), 4 * LARGEST_CROP**2)
    if content_id(pixels) != row["id"]:
        raise RequestError(f"crop {number} of this result was changed; it differs from what is recorded", 400)
    return ShownCrop(pixels, int(row["x"]), int(row["y"]))


def _redrawn(files: _Files, said: dict, shape: tuple[int, ...]) -> Redrawn:
    image = files.picture("original.png", shape[0] * shape[1])
    data = files.read("mask.png")
    with opened_picture(data, "mask", shape[0] * shape[1]):
        mask = read_labels(data, "mask") != 0
    if image.shape[:2] != shape or content_id(image) != said["image"] or content_id(mask) != said["mask"]:
        raise RequestError("the picture or the mask of this result was changed; it differs from what is recorded", 400)
    return Redrawn(image, mask)


def _crop_file(number: int) -> str:
    return f"crops/{number:02d}.png"


def _outlines(task: Task) -> bytes:
    return "".join(regions_text(task.semantic_map, 1, task.model.table, {"origin": [0, 0]}, 0.0)).encode()


def _readme(task: Task) -> str:
    real = ""
    if task.redrawn is not None:
        real = (
            "IMAGE AND ORIGINAL CONTAIN PIXELS OF A PATIENT. Treat them as you must treat the picture they come from.\n"
        )
    return (
        f"{real}Synthetic tissue, woven by Histoloom {VERSION} from map.png and crops/ with the model "
        f"{task.model.name}.\n"
        "Not for diagnosis. Crops that you uploaded are in crops/ as they are: they may show a patient.\n"
        "Reopen this zip in `histoloom studio` to weave it again: the same model and machine give the same bytes.\n"
    )
