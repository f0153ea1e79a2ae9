"""Redraw one region of a real image, and keep every other pixel to the bit.

Latents outside the region are steered to those of the image at each step, so the network sees the real surroundings of
what it draws. Decoded pixels differ from the real ones by a little; that difference is carried a few px into the region
so that its border does not show, and the real pixels are put back outside.

    OUT/image.png      the image with its redrawn region; a text chunk says how it was made
    OUT/map.png        the map that it follows
    OUT/real.png       255 where pixels are those of the image that was given, 0 where they were woven
    OUT/README.md      what this is: it contains pixels of a patient
    OUT/record.json    settings, and fingerprints of model, image, map, mask and crops
"""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import gaussian_filter, maximum_filter
from torch import Tensor

from histoloom import files
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.errors import InputError
from histoloom.generation.woven_folder import config_hash
from histoloom.models.autoencoder import encode
from histoloom.models.card import license_of
from histoloom.models.field import Field, MapGround
from histoloom.models.guided import normalized
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.models.step_end import StepEnd
from histoloom.pictures import open_picture, write_picture
from histoloom.progress import SILENT, Bar
from histoloom.records import Record
from histoloom.shown import marked
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

FORMAT = 2  # raised when the same settings and inputs give other bytes
CONTEXT = 128  # px around the region that the network sees
CARRY = 1.5  # px: how far the difference of decoded and real pixels is carried into the region


@dataclass(frozen=True, eq=False)
class Kept:
    """Latents of an image, and how far each place keeps them: 1 outside the region, 0.5 on its border, 0 inside."""

    latents: Float[Tensor, "1 c h w"]
    kept: Float[Tensor, "1 1 h w"]

    def read(self, top: int, bottom: int) -> tuple[Float[Tensor, "1 c r w"], Float[Tensor, "1 1 r w"]]:
        """Rows `top` to `bottom` of both."""
        return self.latents[:, :, top:bottom], self.kept[:, :, top:bottom]


def read_mask(path: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Where to redraw: pixels that are neither black nor transparent.

    Raises InputError for another size than that of the image, and for a mask of nothing or of everything.
    """
    picture, coding = open_picture(path)
    if fault := coding.label_fault():
        raise InputError(f"{path}: its mask {fault}")
    mask = marked(picture)
    if mask.shape != tuple(shape[:2]):
        raise InputError(
            f"{path}: is {mask.shape[1]} x {mask.shape[0]} px, and the image {shape[1]} x {shape[0]}; give one pixel "
            "per pixel of the image"
        )
    if mask.all() or not mask.any():
        raise InputError(f"{path}: marks {'everything' if mask.all() else 'nothing'}; mark the region to redraw")
    return mask


@torch.no_grad()
def inpaint(
    pipeline: HistoloomPipeline,
    image: UInt8[np.ndarray, "h w 3"],
    semantic_map: UInt8[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    crops: list[Crop],
    sampling: Sampling | None = None,
    seed: int = 0,
    bar: Bar = SILENT,
    context: int = CONTEXT,
    callback_on_step_end: StepEnd | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """`image` with the region `mask` redrawn after map and crops; all other pixels are the same.

    The network sees `context` px around the region. `bar` counts windows, and `callback_on_step_end` is called after
    each (see `histoloom.models.step_end`) with its place in the image. Raises ConfigError for a sampler or guidance
    that does not fit the model.
    """
    box = _around(mask, context)
    part, inside = image[box], mask[box]
    scheduler, resolved = pipeline.resolve(sampling or Sampling())
    ground = MapGround(semantic_map[box], crops)
    known = _kept(pipeline, part, inside)
    watch = None if callback_on_step_end is None else partial(_watched, callback_on_step_end, pipeline, box)
    field = Field(pipeline.denoiser, pipeline.autoencoder, scheduler, resolved, ground, seed, known=known, watch=watch)
    woven = np.concatenate(list(field.pixels(bar=bar)))
    made = image.copy()
    made[box] = np.where(inside[..., None], _matched(woven, part, inside), part)
    return made


def write_inpainted(
    pipeline: HistoloomPipeline,
    image: UInt8[np.ndarray, "h w 3"],
    semantic_map: UInt8[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    crops: list[Crop],
    sampling: Sampling,
    seed: int,
    out: Path,
    bar: Bar = SILENT,
) -> None:
    """Write what `inpaint` returns into the folder `out`, with its map and which pixels are real.

    A finished folder of the same inputs stays as it is. Raises OutputError where `out` holds anything else.
    """
    _, resolved = pipeline.resolve(sampling)
    inputs = {"model": pipeline.fingerprint, "model_config": config_hash(pipeline)}
    inputs |= {"image": content_id(image), "map": content_id(semantic_map), "mask": content_id(mask)}
    inputs |= {"crops": " ".join(f"{crop.tissue}:{content_id(crop.pixels)}" for crop in crops)}
    settings = asdict(resolved) | {"seed": seed, "computed_in": pipeline.computed_in}
    record = Record(command="inpaint", format=FORMAT, settings=settings, inputs=inputs)
    if files.is_finished(out, record):
        return
    with files.whole_folder(out) as aside:
        made = inpaint(pipeline, image, semantic_map, mask, crops, resolved, seed, bar)
        said = record.to_json() | {"made_by": f"Histoloom {VERSION}", "real_pixels": "255 in real.png"}
        text = PngInfo()
        text.add_text("histoloom", json.dumps(said, sort_keys=True))
        write_picture(aside / "image.png", Image.fromarray(made), pnginfo=text)
        save_map(semantic_map, pipeline.table, aside / "map.png")
        write_picture(aside / "real.png", Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
        files.write_text(aside / "README.md", _card(pipeline, float(mask.mean())))
        files.write_record(aside, record)


def _watched(
    step_end: StepEnd, pipeline: HistoloomPipeline, box: tuple[slice, slice], step: int, time: Tensor, given: dict
) -> dict:
    """Call `step_end` with places of the image, not of its box."""
    return step_end(pipeline, step, time, given | {"y": given["y"] + box[0].start, "x": given["x"] + box[1].start})


def _around(mask: Bool[np.ndarray, "h w"], context: int) -> tuple[slice, slice]:
    """The box of the region and its context."""
    boxes = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis))
        boxes.append(slice(max(0, int(places[0]) - context), int(places[-1]) + 1 + context))
    return boxes[0], boxes[1]


def _kept(pipeline: HistoloomPipeline, image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> Kept:
    """The latents of an image on the grid of its field, and how far each place keeps them."""
    denoiser, autoencoder = pipeline.denoiser, pipeline.autoencoder
    margins, factor = denoiser.margins(mask.shape), denoiser.latent_factor
    padded = np.pad(image, (*margins, (0, 0)), mode="edge")
    pixels = torch.from_numpy(padded).to(denoiser.device).movedim(-1, 0)[None].float() / 127.5 - 1
    latents = normalized(denoiser, encode(autoencoder, pixels.to(autoencoder.dtype)).float())
    redrawn = np.pad(mask, margins, mode="edge")
    share = redrawn.reshape(len(redrawn) // factor, factor, -1, factor).mean((1, 3))
    kept = np.where(share == 0, 1.0, np.where(share < 1, 0.5, 0.0)).astype(np.float32)
    return Kept(latents, torch.from_numpy(kept).to(denoiser.device)[None, None])


def _matched(
    woven: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Woven pixels, moved near the border of the region by what decoded and real pixels differ next to it."""
    outside = (~mask).astype(np.float32)
    weight = gaussian_filter(outside, CARRY)
    near = outside * maximum_filter(mask, 2 * int(3 * CARRY) + 1)
    difference = (image.astype(np.float32) - woven) * near[..., None]
    carried = gaussian_filter(difference, (CARRY, CARRY, 0)) / np.maximum(weight, 1e-3)[..., None]
    moved = woven + carried * np.minimum(2 * weight, 1)[..., None]
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def save_map(semantic_map: UInt8[np.ndarray, "h w"], table: TissueTable, path: Path) -> None:
    """Write a map as an indexed PNG in the colors of `table`."""
    picture = Image.fromarray(semantic_map, "P")
    picture.putpalette(table.palette())
    write_picture(path, picture)


def _card(pipeline: HistoloomPipeline, share: float) -> str:
    return (
        f"# A redrawn image\n\n**This image contains pixels of a patient.** {100 * share:.1f} % of it was woven by "
        f"Histoloom {VERSION}; all other pixels are those of the image that was given. `real.png` says which: 255 is "
        "real. Treat it as you must treat the image that it was made from.\n\n"
        f"The license of the model holds for the woven part: {license_of(pipeline).sentence}\n\n"
        "That of the image holds for the whole.\n"
    )
