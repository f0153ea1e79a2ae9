"""What callers pass to the pipeline, in the shapes that it works with: checked here, once, before any work."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError
from histoloom.models.sampling import MOST_EDGE
from histoloom.pictures import coding_of, rgb_pixels
from histoloom.text import shorten
from histoloom.tissue import TissueTable

SemanticMap = np.ndarray | torch.Tensor | Image.Image
CropsByType = dict[int | str, np.ndarray | Image.Image | list[np.ndarray | Image.Image]]
MOST_CHANNELS = 4  # a last axis this short holds channels: a map of four columns shows nothing
_MAP_MODES = ("1", "L", "P", "I", "I;16")  # of Pillow: one whole number per pixel
_OURS = {
    "num_inference_steps": "steps",
    "generator": "seed",
    "guidance_scale": "map_guidance and crop_guidance",
    "image": "semantic_map",
    "num_images_per_prompt": "one map per patch",
    "height": "maps of that height",
    "width": "maps of that width",
    "callback": "callback_on_step_end",
}  # argument names of diffusers and our own


def refuse_unknown(arguments: dict) -> None:
    """Raise InputError for an argument that diffusers knows by another name, TypeError for any other."""
    for name in arguments:
        if name in _OURS:
            raise InputError(f"HistoloomPipeline takes no {name!r}; give {_OURS[name]}")
        raise TypeError(f"HistoloomPipeline got an unexpected keyword argument {name!r}")


def as_count(name: str, value: object) -> int:
    """A whole number of 1 or more; raises InputError."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}; give a whole number of 1 or more")
    return int(value)


def as_seeds(seed: object, count: int) -> list[int]:
    """One seed per map: those given, or `seed` + i for map i; raises InputError."""
    given = [seed] if isinstance(seed, Integral) else list(seed) if isinstance(seed, Sequence) else []
    if not given or not all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 0 for s in given):
        raise InputError(f"seed is {shorten(repr(seed), 60)}; give one whole number of 0 or more, or one per map")
    if isinstance(seed, Integral):
        return [int(seed) + i for i in range(count)]
    if len(given) != count:
        raise InputError(f"got {len(given)} seeds for {count} maps; give one, or one per map")
    return [int(s) for s in given]


def as_maps(semantic_map: object, table: TissueTable) -> list[UInt8[np.ndarray, "h w"]]:
    """Maps as uint8 `h w`, all of one size.

    Taken are one map or several: bool or integer arrays or tensors of two axes, or pictures of one channel. An array of
    three axes is a batch of maps `n h w`. Raises InputError for other shapes and kinds, TissueError for unknown ids.
    """
    maps = [_as_map(one, f"semantic map {index}") for index, one in enumerate(_several(semantic_map))]
    if not maps:
        raise InputError("got no semantic map; give one or more")
    for index, one in enumerate(maps):
        table.check(one, f"semantic map {index}")
    if len({one.shape for one in maps}) != 1:
        raise InputError(
            f"semantic maps differ in size ({sorted({one.shape for one in maps})[:3]}); weave one size per call"
        )
    return maps


def as_crops(crops: object, maps: list[np.ndarray], table: TissueTable) -> list[list[Crop]]:
    """One list of crops per map; raises InputError for crops that do not fit the maps."""
    if crops is None:
        return [[] for _ in maps]
    if not isinstance(crops, dict | list | tuple):
        raise InputError(
            f"crops is a {type(crops).__name__}; give a list of Crop, a dict from tissue to pictures, or one of these "
            "per map"
        )
    shared = isinstance(crops, dict) or all(isinstance(crop, Crop) for crop in crops)
    if not shared and (wrong := [one for one in crops if not isinstance(one, dict | list | tuple)]):
        raise InputError(
            f"crops hold a {type(wrong[0]).__name__} next to what is meant for a whole map; give each map a list "
            "or a dict, empty for none"
        )
    if not shared and len(crops) != len(maps):
        raise InputError(f"got crops for {len(crops)} of {len(maps)} maps; give one list of crops, or one per map")
    given = [crops] if shared else crops
    known = [_from_dict(mine, table) if isinstance(mine, dict) else list(mine) for mine in given]
    for mine, shown in zip(known, [maps] if shared else [[m] for m in maps], strict=True):
        _check_crops(mine, shown, table)
    return known * len(maps) if shared else known


def _several(semantic_map: object) -> list:
    """One map or many, as a list."""
    if isinstance(semantic_map, Image.Image):
        return [semantic_map]
    if not isinstance(semantic_map, np.ndarray | torch.Tensor):
        if not isinstance(semantic_map, Sequence) or isinstance(semantic_map, str | bytes):
            raise InputError(f"semantic_map is a {type(semantic_map).__name__}; give an array, a picture, or several")
        return list(semantic_map)
    if semantic_map.ndim != 3:
        return [semantic_map]
    if semantic_map.shape[-1] <= MOST_CHANNELS or str(semantic_map.dtype).endswith("bool"):
        raise InputError(
            f"semantic_map has shape {tuple(semantic_map.shape)} and type {semantic_map.dtype}, so it seems to hold "
            "colors or one mask per type; give one tissue id per pixel, `h w`, or a list of such maps"
        )
    return list(semantic_map)


def _as_map(one: object, where: str) -> UInt8[np.ndarray, "h w"]:
    if isinstance(one, Image.Image) and one.mode not in _MAP_MODES:
        raise InputError(
            f"{where}: is a picture of mode {one.mode!r}, which holds colors; give one tissue id per pixel, mode 'L' "
            "or 'P'"
        )
    values = one.detach().cpu().numpy() if isinstance(one, torch.Tensor) else np.asarray(one)
    if values.ndim != 2 or not values.size:
        raise InputError(f"{where}: has shape {values.shape}; give one tissue id per pixel, `h w`")
    if values.dtype != bool and not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"{where}: holds {values.dtype}; give whole numbers, such as map.astype(np.uint8)")
    if max(values.shape) > MOST_EDGE:
        raise InputError(f"{where}: is {values.shape[1]} x {values.shape[0]} px; at most {MOST_EDGE} px each way fit")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise InputError(f"{where}: holds {low if low < 0 else high}; tissue ids are 0 to 253, and 255 is unlabeled")
    return values.astype(np.uint8)


def _check_crops(crops: list[Crop], maps: list[np.ndarray], table: TissueTable) -> None:
    names = {tissue.id: tissue.name for tissue in table.types}
    for crop in crops:
        if not isinstance(crop, Crop):
            raise InputError(
                f"crops hold a {type(crop).__name__}; give each as a Crop, or a dict from tissue to picture"
            )
        if crop.tissue not in names:
            raise InputError(f"{crop.source or 'crop'}: is of tissue {crop.tissue}; the model knows {table.ids}")
        if not any((m == crop.tissue).any() for m in maps):
            raise InputError(
                f"{crop.source or 'crop'}: is of {names[crop.tissue]!r}, which is not on the semantic map; "
                "leave the crop out, or draw its tissue"
            )


def _from_dict(crops: CropsByType, table: TissueTable) -> list[Crop]:
    made = []
    for key, pictures in crops.items():
        if not isinstance(key, str | Integral) or isinstance(key, bool):
            raise InputError(f"crops are given for {key!r}; give the id or the name of a tissue type")
        tissue = table.find(key).id if isinstance(key, str) else int(key)
        given = pictures if isinstance(pictures, list | tuple) else [pictures]
        made += [Crop(_crop_pixels(picture, f"crop of {key!r}"), tissue, f"crop of {key}") for picture in given]
    return made


def _crop_pixels(picture: object, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a crop that is given as a picture or as an array; raises InputError."""
    if isinstance(picture, Image.Image):
        if fault := coding_of(picture).image_fault():
            raise InputError(f"{where}: {fault}")
        return rgb_pixels(picture)
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"{where}: holds {pixels.dtype} of shape {pixels.shape}; give uint8 `h w 3`")
    return pixels
