"""Annotated patches to order: maps and crops in, images with provenance out.

Each image is searched for parts of its own crops, and woven again where one reappears: with another seed, at last from
no more than the colours of that crop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, InputError
from histoloom.generation.export import AnnotatedPatch, CropUse, Provenance
from histoloom.metrics.copy_score import best_match
from histoloom.models.guidance import Guidance
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.maps import MapReader
from histoloom.tissue import TissueTable
from histoloom.version import VERSION


@dataclass(frozen=True)
class WeaveConfig:
    """How patches are woven."""

    steps: int | None = None  # of the sampler; None takes its usual number
    sampler: str | None = None  # None takes the objective's default
    map_guidance: float = 1.5  # 1 as learned, more exaggerates, 0 leaves the map out
    crop_guidance: float = 3.0
    guidance_interval: tuple[float, float] = (0.4, 0.9)  # shares of noise between which more than 1 acts
    seed: int = 0  # patch i has seed + i, and a later try one that follows from it
    batch_size: int = 8
    copy_limit: float | None = None  # likeness to a crop above which a patch is woven again; None: the model's; 1: none
    tries: int = 6  # times that a patch is woven with its crops, at most; as often with the colours of those it is like

    def __post_init__(self):
        if min(self.batch_size, self.tries) < 1 or (self.steps is not None and self.steps < 1):
            raise ConfigError("batch_size, tries and steps must be 1 or more")
        Guidance(self.map_guidance, self.crop_guidance, self.guidance_interval)  # raises where it makes no sense
        if not 0 <= self.seed < 2**62:
            raise ConfigError(f"seed {self.seed} must be 0 or more and less than 2^62")  # seed + i is kept as int64
        if self.copy_limit is not None and not 0 < self.copy_limit <= 1:
            raise ConfigError(f"copy_limit {self.copy_limit} must lie above 0 and at 1 at most, where it lets all pass")


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

    What is more like one of its crops than the copy limit is woven again: up to `config.tries` times in all with
    another seed, which follows from the first, and as often with no more than the colours of the crops that it stays
    like. The one least like the crops of its order is kept, and its provenance says what it was woven from.

    Batches begin at multiples of `batch_size` whatever `first` is: on some processors the last bit of a patch depends
    on how many are woven at once, and a run that goes on must end with the bytes of one that never stopped.
    """
    objective = pipeline.denoiser.config.objective
    scheduler, usual = make_sampler(objective, config.sampler)
    limit = copy_limit_of(pipeline, config)
    shared = {
        "conditioning": pipeline.denoiser.config.conditioning,
        "map_guidance": config.map_guidance,
        "crop_guidance": config.crop_guidance,
        "guidance_interval": config.guidance_interval,
        "steps": config.steps or usual,
        "scheduler": type(scheduler).__name__,
        "model_hash": pipeline.fingerprint,
        "version": VERSION,
        "copy_limit": limit,
    }
    for start in range(first - first % config.batch_size, len(orders), config.batch_size):
        part = orders[start : start + config.batch_size]
        seeds = [config.seed + start + i for i in range(len(part))]
        found = _weave_unlike(pipeline, part, seeds, config, limit)
        known = max(0, first - start)
        if callback:
            callback(len(part) - known)
        for order, one in list(zip(part, found, strict=True))[known:]:
            used = tuple(CropUse(c.source, c.tissue, c.x, c.y, *c.pixels.shape[1::-1], c.texture) for c in one.shown)
            made = Provenance(one.seed, order.map_source, used, copy_score=one.score, tries=one.tries, **shared)
            yield AnnotatedPatch(one.image, order.semantic_map, made)


def copy_limit_of(pipeline: HistoloomPipeline, config: WeaveConfig) -> float | None:
    """The likeness above which `config` weaves again: its own limit, else the model's; None where neither has one."""
    return pipeline.config.copy_limit if config.copy_limit is None else config.copy_limit


@dataclass(frozen=True)
class _Try:
    """An image, its seed, the crops as they were shown, its likeness to each (nan: flat; empty: not searched for), and
    how often it was woven."""

    image: UInt8[np.ndarray, "h w 3"]
    seed: int
    shown: list[Crop]
    likeness: Float[np.ndarray, " n"]
    tries: int = 1

    @property
    def score(self) -> float | None:
        """The highest likeness; None where there is none."""
        known = self.likeness[~np.isnan(self.likeness)]
        return float(known.max()) if known.size else None


def _weave_unlike(
    pipeline: HistoloomPipeline, orders: Sequence[Order], seeds: list[int], config: WeaveConfig, limit: float | None
) -> list[_Try]:
    """One image per order, woven again while it is more like a crop than `limit`: first with other seeds, then with the
    colours alone of those that it stays like. The least alike is kept."""
    kept = _weave_once(pipeline, orders, [order.crops for order in orders], seeds, config, limit)
    for number in range(1, 2 * config.tries):
        again = [i for i, one in enumerate(kept) if one.score is not None and one.score > limit]
        if not again:
            break
        others = [_another_seed(seeds[i], number) for i in again]
        shown = [kept[i].shown for i in again]
        if number >= config.tries:
            shown = [_without_texture(kept[i], limit) for i in again]
        found = _weave_once(pipeline, [orders[i] for i in again], shown, others, config, limit)
        for i, new in zip(again, found, strict=True):
            better = new if new.score is None or new.score < kept[i].score else kept[i]  # None: flat, like nothing
            kept[i] = replace(better, tries=number + 1)
    return kept


def _without_texture(one: _Try, limit: float) -> list[Crop]:
    """The crops that were shown, but no more than the colours of those of which a part is in the image."""
    return [
        replace(crop, texture=False) if likeness > limit else crop  # nan is harmless
        for crop, likeness in zip(one.shown, one.likeness, strict=True)
    ]


def _weave_once(
    pipeline: HistoloomPipeline,
    orders: Sequence[Order],
    shown: list[list[Crop]],
    seeds: list[int],
    config: WeaveConfig,
    limit: float | None,
) -> list[_Try]:
    images = pipeline(
        [order.semantic_map for order in orders],
        shown,
        steps=config.steps,
        sampler=config.sampler,
        map_guidance=config.map_guidance,
        crop_guidance=config.crop_guidance,
        guidance_interval=config.guidance_interval,
        seed=seeds,
        batch_size=len(orders),
    )
    is_searched = limit is not None and limit < 1
    found = []
    for order, crops, image, seed in zip(orders, shown, images, seeds, strict=True):
        searched = [best_match(crop.pixels, image, device=pipeline.device) for crop in order.crops if is_searched]
        found.append(_Try(image, seed, crops, np.array(searched)))
    return found


def _another_seed(seed: int, number: int) -> int:
    """A seed for try `number`, far from those of other patches, which count on from one another."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)  # fits int64


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
