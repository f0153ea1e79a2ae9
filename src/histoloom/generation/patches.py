"""Annotated patches to order: maps and crops in, images with provenance out.

Each image is searched for parts of its own crops. Where one reappears, the patch is woven again with another seed, and
at last from only the colors of that crop.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from jaxtyping import Float, UInt8

from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError, ModelError
from histoloom.generation.order import Order, OrderList
from histoloom.generation.self_check import SelfCheck
from histoloom.generation.settings import WeaveConfig
from histoloom.generation.woven_patch import AnnotatedPatch, CropUse, Dropped, Provenance
from histoloom.metrics.copy_score import best_matches
from histoloom.models.arguments import as_crops, as_maps
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.models.step_end import StepEnd
from histoloom.progress import SILENT, Bar
from histoloom.version import VERSION

REPLACED = 2**21  # added to the number of an attempt whose patch replaces another; `tries` are fewer


def weave(
    pipeline: HistoloomPipeline,
    orders: OrderList,
    config: WeaveConfig | None = None,
    first: int = 0,
    bar: Bar = SILENT,
    mpp: float | None = None,
    callback_on_step_end: StepEnd | None = None,
) -> Iterator[AnnotatedPatch]:
    """Weave the orders from number `first` on, each with seed + its number; `bar` counts patches.

    `mpp` is the scale of the maps, in micrometers per pixel, for the record; None: the model's. `callback_on_step_end`
    is called after each step of each attempt; see `histoloom.models.step_end`.

    A patch that is more similar to one of its crops than the copy limit is woven again: up to `config.tries` times in
    all, each with a new seed that follows from the first, and then as often with only the colors of the crops that it
    copies. The attempt least similar to its crops is kept, and its provenance says what it was woven from.

    Batches begin at multiples of `batch_size` whatever `first` is: on some processors the last bit of a patch depends
    on how many are woven at once, and a resumed run must end with the bytes of an undisturbed one. Maps of different
    sizes may be mixed; those of one size are woven at once. Maps and crops of an order may be what the pipeline takes:
    those of the patch are uint8. Raises InputError for others, and ModelError, with the number of the patch, where the
    model yields pixels that are not finite.
    """
    if not isinstance(orders, OrderList):
        raise InputError(f"orders is a {type(orders).__name__}; give a list of Order")
    step_end = callback_on_step_end
    for patch in weave_checked(pipeline, orders, config or WeaveConfig(), first, bar, mpp, step_end=step_end):
        assert isinstance(patch, AnnotatedPatch)
        yield patch


def weave_checked(
    pipeline: HistoloomPipeline,
    orders: OrderList,
    config: WeaveConfig,
    first: int = 0,
    bar: Bar = SILENT,
    mpp: float | None = None,
    check: SelfCheck | None = None,
    step_end: StepEnd | None = None,
) -> Iterator[AnnotatedPatch | Dropped]:
    """As `weave`, with a check: a patch that is above the copy limit even at last, or whose tissue is not where the map
    says, is replaced, and where no replacement passes, `Dropped` stands in its place."""
    for start in batch_starts(first, len(orders), config):
        patches = weave_batch(pipeline, orders, config, start, mpp, check, step_end)
        new = patches[max(0, first - start) :]
        bar.advance(len(new))
        yield from new


def batch_starts(first: int, count: int, config: WeaveConfig) -> range:
    """The number of the first order of each batch that holds orders from `first` on."""
    return range(first - first % config.batch_size, count, config.batch_size)


def weave_batch(
    pipeline: HistoloomPipeline,
    orders: OrderList,
    config: WeaveConfig,
    start: int,
    mpp: float | None = None,
    check: SelfCheck | None = None,
    step_end: StepEnd | None = None,
) -> list[AnnotatedPatch | Dropped]:
    """Weave the batch that begins with order `start`, whatever else is woven; raises as `weave` does."""
    scheduler, sampling = pipeline.resolve(config)
    limit = copy_limit_of(pipeline, config)
    how = _How(pipeline, config, limit, step_end)
    shared = {
        "conditioning": pipeline.denoiser.config["conditioning"],
        "map_guidance": sampling.map_guidance,
        "crop_guidance": sampling.crop_guidance,
        "guidance_interval": sampling.guidance_interval,
        "steps": sampling.steps,
        "scheduler": type(scheduler).__name__,
        "model_hash": pipeline.fingerprint,
        "version": VERSION,
        "copy_limit": limit,
        "mpp": mpp or pipeline.mpp,
    }

    def woven(part: list[Order], seeds: list[int]) -> list[AnnotatedPatch]:
        attempts = _weave_unlike(how, part, seeds)
        return [
            AnnotatedPatch(attempt.image, order.semantic_map, _provenance(order, attempt, shared))
            for order, attempt in zip(part, attempts, strict=True)
        ]

    numbers = range(start, min(start + config.batch_size, len(orders)))
    seeds = [config.seed + number for number in numbers]
    try:
        patches = woven([_as_read(orders[number], number, pipeline) for number in numbers], seeds)
        if check is None:
            return list(patches)
        again = dict(zip(numbers, seeds, strict=True))
        return check.passed(
            dict(zip(numbers, patches, strict=True)),
            lambda which, turn: woven(
                [check.replacement(number, turn) for number in which],
                [_another_seed(again[number], REPLACED + turn) for number in which],
            ),
        )
    except ModelError as error:
        raise ModelError(f"patches {start} to {numbers[-1]}: {error}") from None


def _as_read(order: Order, number: int, pipeline: HistoloomPipeline) -> Order:
    """The order with its map as uint8, and its crops as a list; raises InputError with its number."""
    try:
        maps = as_maps([order.semantic_map], pipeline.table)
        crops = [] if order.crops is None else as_crops([order.crops], maps, pipeline.table)[0]
    except InputError as error:
        raise type(error)(f"patch {number}: {error}") from None
    return replace(order, semantic_map=maps[0], crops=crops)


def copy_limit_of(pipeline: HistoloomPipeline, config: WeaveConfig) -> float | None:
    """The similarity above which `config` weaves again: its own limit, else the model's; None where neither has one."""
    return pipeline.copy_limit if config.copy_limit is None else config.copy_limit


@dataclass(frozen=True, eq=False)
class _How:
    """What is the same for all attempts."""

    pipeline: HistoloomPipeline
    config: WeaveConfig
    limit: float | None
    step_end: StepEnd | None


@dataclass(frozen=True, eq=False)
class _Attempt:
    """An image, its seed, the crops as they were shown, its similarity to each, and the number of attempts so far.

    The similarity is nan where crop or image is flat; there is none where nothing was searched.
    """

    image: UInt8[np.ndarray, "h w 3"]
    seed: int
    shown: list[Crop]
    similarity: Float[np.ndarray, " n"]
    tries: int = 1

    @property
    def score(self) -> float | None:
        """The highest similarity; None where there is none."""
        known = self.similarity[~np.isnan(self.similarity)]
        return float(known.max()) if known.size else None

    def exceeds(self, limit: float) -> bool:
        """Whether a part of a crop is in the image."""
        return self.score is not None and self.score > limit


def _provenance(order: Order, attempt: _Attempt, shared: dict) -> Provenance:
    used = tuple(
        CropUse(c.source, c.tissue, c.x, c.y, c.pixels.shape[1], c.pixels.shape[0], c.texture) for c in attempt.shown
    )
    return Provenance(
        seed=attempt.seed,
        map_source=order.map_source,
        crops=used,
        copy_score=attempt.score,
        tries=attempt.tries,
        **shared,
    )


def _weave_unlike(how: _How, orders: Sequence[Order], seeds: list[int]) -> list[_Attempt]:
    """One image per order, woven again while it is more similar to a crop than the limit.

    First with other seeds, then with only the colors of the crops that it copies. The least similar is kept.
    """
    kept, limit = _weave_once(how, orders, [order.crops for order in orders], seeds), how.limit
    if limit is None:
        return kept
    for number in range(1, 2 * how.config.tries):
        again = [i for i, attempt in enumerate(kept) if attempt.exceeds(limit)]
        if not again:
            break
        others = [_another_seed(seeds[i], number) for i in again]
        shown = [kept[i].shown for i in again]
        if number >= how.config.tries:
            shown = [_without_texture(kept[i], limit) for i in again]
        new = _weave_once(how, [orders[i] for i in again], shown, others)
        for i, attempt in zip(again, new, strict=True):
            kept[i] = replace(_less_similar(attempt, kept[i]), tries=number + 1)
    return kept


def _less_similar(new: _Attempt, old: _Attempt) -> _Attempt:
    """The attempt that copies less; one without a score is flat, and copies nothing."""
    if new.score is None or old.score is None:
        return new
    return new if new.score < old.score else old


def _without_texture(attempt: _Attempt, limit: float) -> list[Crop]:
    """The crops that were shown, but only the colors of those of which a part is in the image."""
    return [
        replace(crop, texture=False) if similarity > limit else crop  # nan is harmless
        for crop, similarity in zip(attempt.shown, attempt.similarity, strict=True)
    ]


def _weave_once(how: _How, orders: Sequence[Order], shown: list[list[Crop]], seeds: list[int]) -> list[_Attempt]:
    images = _images(how, [order.semantic_map for order in orders], shown, seeds)
    is_searched = how.limit is not None and how.limit < 1
    attempts = []
    for order, crops, image, seed in zip(orders, shown, images, seeds, strict=True):
        searched = [crop.pixels for crop in order.crops] if is_searched else []
        similarity = best_matches(searched, image, device=how.pipeline.device)
        attempts.append(_Attempt(image, seed, crops, np.array(similarity)))
    return attempts


def _images(
    how: _How, maps: list[np.ndarray], shown: list[list[Crop]], seeds: list[int]
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """One image per map; maps of one size are woven at once."""
    images: dict[int, np.ndarray] = {}
    for shape in dict.fromkeys(semantic_map.shape for semantic_map in maps):
        mine = [i for i, semantic_map in enumerate(maps) if semantic_map.shape == shape]
        given = [maps[i] for i in mine], [shown[i] for i in mine]
        asked = _asked(how.config) | {"batch_size": len(mine), "callback_on_step_end": how.step_end}
        woven = how.pipeline(*given, seed=[seeds[i] for i in mine], **asked)
        images |= dict(zip(mine, woven, strict=True))
    return [images[i] for i in range(len(maps))]


def _asked(config: WeaveConfig) -> dict:
    """The settings of `config` that the pipeline takes."""
    names = {f.name for f in fields(Sampling)}
    return {name: value for name, value in asdict(config).items() if name in names}


def _another_seed(seed: int, number: int) -> int:
    """A seed for attempt `number`, far from those of other patches, which count up from one another."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)  # fits int64
