"""What a page asks to weave, checked before it waits in line, and the weaving of it."""

import base64
import binascii
import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from histoloom.canvas.inpaint import inpaint
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.errors import HistoloomError, RequestError
from histoloom.generation.order import Order
from histoloom.generation.patches import weave
from histoloom.generation.settings import WeaveConfig
from histoloom.generation.woven_writer import explained_png, image_png
from histoloom.models.sampling import MOST_STEPS
from histoloom.models.step_end import StepEnd
from histoloom.studio.catalog import Catalog, Model
from histoloom.studio.settings import StudioConfig
from histoloom.studio.shelf import Shelf, ShownCrop, Upload
from histoloom.studio.wording import for_page
from histoloom.tissue import UNLABELLED
from histoloom.version import VERSION

LEAST_EDGE = 32  # px of a map
MOST_CROPS = 24
LARGEST_CROP = 256  # px; models learn from smaller ones, and time grows with the area
MOST_SEED = 2**53 - 1  # what a page can write exactly


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A real image, and where it is redrawn."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class Woven:
    """One variation: its pixels, its PNG, what is recorded of it, and its highest similarity to a crop."""

    image: UInt8[np.ndarray, "h w 3"]
    png: bytes
    made: dict
    copy_score: float | None


@dataclass(frozen=True, eq=False)
class Task:
    """A map, crops and settings; variation i has seed + i."""

    model: Model
    semantic_map: UInt8[np.ndarray, "h w"]
    crops: list[Crop]
    config: WeaveConfig
    variations: int = 1
    redrawn: Redrawn | None = None

    def weave(self, number: int, step_end: StepEnd) -> Woven:
        """Variation `number`, from 0 on; the same bytes whatever else is woven."""
        config = replace(self.config, seed=self.config.seed + number, batch_size=1)
        pipeline = self.model.pipeline
        if self.redrawn is None:
            order = Order(self.semantic_map, content_id(self.semantic_map), self.crops)
            patch = next(iter(weave(pipeline, [order], config, callback_on_step_end=step_end)))
            return Woven(patch.image, image_png(patch), asdict(patch.provenance), patch.provenance.copy_score)
        _, resolved = pipeline.resolve(config)
        image, mask = self.redrawn.image, self.redrawn.mask
        made = inpaint(
            pipeline, image, self.semantic_map, mask, self.crops, resolved, config.seed, callback_on_step_end=step_end
        )
        said = {
            "command": "inpaint",
            "seed": config.seed,
            "steps": resolved.steps,
            "map_guidance": resolved.map_guidance,
            "crop_guidance": resolved.crop_guidance,
            "model_hash": pipeline.fingerprint,
            "image": content_id(image),
            "mask": content_id(mask),
            "map": content_id(self.semantic_map),
            "crops": [{"tissue_id": crop.tissue, "source": crop.source} for crop in self.crops],
            "version": VERSION,
        }
        return Woven(made, explained_png(made, said, pipeline.mpp), said, None)


def read_task(found: dict, catalog: Catalog, shelf: Shelf, config: StudioConfig) -> Task:
    """The task that a page asks for; raises RequestError naming what does not fit."""
    model = catalog.find(found.get("model"))
    width, height = (whole(found.get(name), name, LEAST_EDGE, config.most_edge) for name in ("width", "height"))
    semantic_map = _pixels(found.get("ids"), "the map", width, height)
    try:
        model.table.check(semantic_map, "the map")
    except HistoloomError as error:
        raise RequestError(for_page(error), 400) from None
    if (semantic_map == UNLABELLED).all():
        raise RequestError("the map is empty; paint some tissue first", 400)
    seed = whole(found.get("seed", 0), "seed", 0, MOST_SEED)
    variations = whole(found.get("variations", 1), "variations", 1, config.variations)
    if seed + variations - 1 > MOST_SEED:
        raise RequestError(
            f"seed {seed} is too large for {variations} variations; give {MOST_SEED - variations + 1} or less", 400
        )
    weaving = _sampling(found, seed, model)
    crops = _crops(found.get("crops", []), model, catalog, shelf, semantic_map)
    return Task(model, semantic_map, crops, weaving, variations, _redrawn(found, shelf, width, height))


def ids_hash(semantic_map: UInt8[np.ndarray, "h w"]) -> str:
    """SHA-256 of the ids, row by row: what `window.loom.ids()` gives."""
    return hashlib.sha256(np.ascontiguousarray(semantic_map).data).hexdigest()


def whole(value: object, name: str, least: int, most: int) -> int:
    """A whole number within bounds; raises RequestError."""
    if type(value) is not int or not least <= value <= most:
        raise RequestError(f"{name} must be a whole number from {least} to {most}", 400)
    return value


def _sampling(found: dict, seed: int, model: Model) -> WeaveConfig:
    """Steps and guidances that a page asks for; those of the model where it asks for none."""
    asked: dict[str, Any] = {}
    for name in ("map_guidance", "crop_guidance"):
        if found.get(name) is not None:
            asked[name] = _real(found[name], name)
    if found.get("steps") is not None:
        asked["steps"] = whole(found["steps"], "steps", 1, MOST_STEPS)
    try:
        weaving = WeaveConfig(seed=seed, **asked)
        model.pipeline.resolve(weaving)
    except HistoloomError as error:
        raise RequestError(for_page(error), 400) from None
    return weaving


def _real(value: object, name: str) -> float:
    """A number, which a page writes as 3 where it means 3.0; raises RequestError."""
    if type(value) not in (int, float):
        raise RequestError(f"{name} must be a number", 400)
    try:
        return float(value)  # pyright: ignore[reportArgumentType] (int or float)
    except OverflowError:
        raise RequestError(f"{name} is too large", 400) from None


def _pixels(text: object, what: str, width: int, height: int) -> UInt8[np.ndarray, "h w"]:
    """Base64 of one byte per pixel."""
    if not isinstance(text, str):
        raise RequestError(f"{what} is missing", 400)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{what} is not base64", 400) from None
    if len(data) != width * height:
        raise RequestError(f"{what} has {len(data)} pixels, and {width} x {height} px are {width * height}", 400)
    return np.frombuffer(data, np.uint8).reshape(height, width).copy()


def _crops(
    found: object, model: Model, catalog: Catalog, shelf: Shelf, semantic_map: UInt8[np.ndarray, "h w"]
) -> list[Crop]:
    if not isinstance(found, list) or len(found) > MOST_CROPS or not all(isinstance(row, dict) for row in found):
        raise RequestError(f"crops must be a list of at most {MOST_CROPS}", 400)
    crops, present = [], set(np.unique(semantic_map).tolist())
    for row in found:
        tissue = tissue_id(model, row.get("tissue"))
        number = sum(crop.tissue == tissue for crop in crops) + 1  # as the page counts them
        shown = _shown(row.get("crop"), f"crop {number} of {row['tissue']}", catalog, shelf)
        if tissue not in present:
            raise RequestError(
                f"a crop shows {row['tissue']!r}, which is not on the map; paint it, or leave it out", 400
            )
        crops.append(_crop(shown, tissue))
    if crops and not model.pipeline.denoiser.reads.crops:
        raise RequestError(f"{model.name} reads no crops; leave them out", 400)
    return crops


def tissue_id(model: Model, name: object) -> int:
    """The id of a tissue type of a model; raises RequestError."""
    found = next((tissue.id for tissue in model.table.types if tissue.name == name), None)
    if found is None:
        raise RequestError(f"{model.name} knows no tissue of this name; known: {', '.join(model.table.names)}", 400)
    return found


def _shown(name: object, what: str, catalog: Catalog, shelf: Shelf) -> ShownCrop:
    if isinstance(name, str) and name in catalog.crops:
        return catalog.crops[name]
    return shelf.get(name, ShownCrop, what)


def _crop(shown: ShownCrop, tissue: int) -> Crop:
    try:
        return shown.crop(tissue, content_id(shown.pixels))
    except HistoloomError as error:
        raise RequestError(for_page(error), 400) from None


def _redrawn(found: dict, shelf: Shelf, width: int, height: int) -> Redrawn | None:
    if found.get("image") is None:
        return None
    image = shelf.get(found["image"], Upload, "the picture").pixels
    if image.shape[:2] != (height, width):
        raise RequestError(
            f"the map is {width} x {height} px, and the picture {image.shape[1]} x {image.shape[0]}; they must agree",
            400,
        )
    mask = _pixels(found.get("mask"), "the mask", width, height) != 0
    if mask.all() or not mask.any():
        raise RequestError(f"the mask marks {'everything' if mask.all() else 'nothing'}; mark what to redraw", 400)
    return Redrawn(image, mask)
