"""Annotated patches to order: maps and crops in, images with provenance out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, InputError
from histoloom.generation.export import AnnotatedPatch, CropUse, Provenance
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.maps import MapReader
from histoloom.tissue import TissueTable


@dataclass(frozen=True)
class WeaveConfig:
    """How patches are woven."""

    steps: int | None = None  # of the sampler; None takes its usual number
    sampler: str | None = None  # None takes the objective's default
    map_guidance: float = 1.5  # 1 as learned, more exaggerates, 0 leaves the map out
    crop_guidance: float = 3.0
    seed: int = 0  # patch i has seed + i
    batch_size: int = 8

    def __post_init__(self):
        if self.batch_size < 1 or (self.steps is not None and self.steps < 1) or self.seed < 0:
            raise ConfigError("batch_size and steps must be 1 or more, seed 0 or more")


@dataclass(frozen=True)
class Order:
    """One patch to weave: its map, where that came from, and its crops."""

    semantic_map: UInt8[np.ndarray, "h w"]
    map_source: str
    crops: list[Crop]


def weave(
    pipeline: HistoloomPipeline,
    orders: Sequence[Order],
    config: WeaveConfig,
    first: int = 0,
    callback: Callable[[int], None] | None = None,
) -> Iterator[AnnotatedPatch]:
    """Weave the orders from number `first` on, each with seed + its number; `callback(count)` after each batch.

    Batches begin at multiples of `batch_size` whatever `first` is: on some processors the last bit of a patch depends
    on how many are woven at once, and a run that goes on must end with the bytes of one that never stopped.
    """
    objective = pipeline.denoiser.config.objective
    scheduler, usual = make_sampler(objective, config.sampler)
    shared = {
        "conditioning": pipeline.denoiser.config.conditioning,
        "map_guidance": config.map_guidance,
        "crop_guidance": config.crop_guidance,
        "steps": config.steps or usual,
        "scheduler": type(scheduler).__name__,
        "model_hash": pipeline.fingerprint,
        "version": version("histoloom"),
    }
    for start in range(first - first % config.batch_size, len(orders), config.batch_size):
        part = orders[start : start + config.batch_size]
        seeds = [config.seed + start + i for i in range(len(part))]
        images = pipeline(
            [order.semantic_map for order in part],
            [order.crops for order in part],
            steps=config.steps,
            sampler=config.sampler,
            map_guidance=config.map_guidance,
            crop_guidance=config.crop_guidance,
            seed=seeds,
            batch_size=len(part),
        )
        known = max(0, first - start)
        if callback:
            callback(len(part) - known)
        for order, image, seed in list(zip(part, images, seeds, strict=True))[known:]:
            used = tuple(CropUse(c.source, c.tissue, c.x, c.y, *c.pixels.shape[1::-1]) for c in order.crops)
            yield AnnotatedPatch(image, order.semantic_map, Provenance(seed, order.map_source, used, **shared))


def read_maps(folder: Path | str, table: TissueTable) -> list[tuple[str, UInt8[np.ndarray, "h w"]]]:
    """All maps of a folder by file name, in order; values and colours as `tissue.toml` says. They must share one
    size."""
    folder = Path(folder)
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".png", ".tif", ".tiff", ".webp", ".bmp"))
    if not paths:
        raise InputError(f"{folder}: holds no maps (PNG, TIFF, WebP); give a folder of label images")
    reader = MapReader(table)
    maps = [(path.name, reader.read(path)) for path in paths]
    odd = [name for name, m in maps if m.shape != maps[0][1].shape]
    if odd:
        raise InputError(f"{folder / odd[0]}: differs in size from {maps[0][0]}; weave one size per folder")
    return maps
