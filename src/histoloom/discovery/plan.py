"""Estimate the cost of a discovery before it starts: patches, hours of GPUs and processors, storage, per encoder.

Two ways are priced. The encoder sees *every patch*, as in the paper. Or the small encoder sees every patch, which is
enough to choose a thousand different patches per slide; the large encoder sees only those, and a classifier that is
distilled from their types draws the maps of all slides.
"""

import math
import time
from dataclasses import dataclass

import numpy as np

from histoloom.config import check_numbers
from histoloom.discovery.classifier import Window
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.parts import Part
from histoloom.discovery.pseudo_maps import MapConfig
from histoloom.discovery.row_parts import DamagedShard, RowsPart
from histoloom.discovery.slide_parts import tissue_places
from histoloom.distributed import ALONE, Workers, run_items
from histoloom.encoders.encoder import KNOWN, SMALL, open_encoder
from histoloom.errors import ConfigError, InputError
from histoloom.progress import SILENT, Bar
from histoloom.slides.reader import open_slide
from histoloom.slides.tissue import find_tissue
from histoloom.text import byte_size, counted

# 10^9 operations per patch, counted by benchmarks/encoder_cost.py
COSTS = {
    "lunit-bt": 8.2,
    "timm:vit_large_patch14_dinov2.lvd142m": 1013.6,  # at its own 518 px
    "uni": 123.1,
    "uni2": 370.9,
    "virchow2": 340.1,
    "gigapath": 456.2,
    "h-optimus-1": 608.3,
    "phikonv2": 123.1,
    SMALL: 0.6,
}
CLASSIFIER = 0.375  # the default of `histoloom discover classify`
MAP_WINDOWS = (256 / MapConfig().cell(Window(256))) ** 2  # classified per area of a patch, for any edge
PLACE_BYTES = 2  # of a row without its vector: 1.7 measured on a slide of 54,000 places on a grid
HALF = 2  # bytes of a stored number


@dataclass(frozen=True)
class PlanConfig:
    """Assumptions of the estimate."""

    encoders: tuple[str, ...] = tuple(COSTS)
    per_slide: int = 1000  # patches chosen per slide
    tflops: float = 100.0  # sustained 10^12 operations per second of a GPU: a third of the peak of an A100
    rate: float | None = None  # patches per second of one worker, in place of tflops
    read_rate: float = 450.0  # patches per second read by one processor; benchmarks/patch_extraction.py

    def __post_init__(self):
        check_numbers(self)
        for name in ("tflops", "read_rate", "per_slide", "rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} {value} must be a finite number above 0")
        known = {name for name, _, _ in KNOWN}
        unknown = [name for name in self.encoders if name not in known]
        if unknown and self.rate is None:
            raise ConfigError(
                f"encoder {unknown[0]}: its cost is unknown; give its --rate in patches per second, or --measure it; "
                f"known: {', '.join(COSTS)}"
            )
        if self.rate is not None and len(self.encoders) != 1:
            raise ConfigError("a rate belongs to one encoder; give exactly one --encoder with it")


@dataclass(frozen=True)
class Price:
    """Hours of one worker (a GPU) and bytes of vectors with one encoder, for every patch and for the chosen ones."""

    encoder: str
    rate: float  # patches per second
    hours: float
    bytes: int
    chosen_hours: float
    chosen_bytes: int


@dataclass(frozen=True)
class Plan:
    """The cost of a run; the second way adds `small_hours` and `map_hours` to those of the chosen patches."""

    slides: int
    patches: int
    chosen: int
    read_rate: float
    read_hours: float
    index_bytes: int
    small_hours: float
    map_hours: float  # of the classifier at the default stride
    prices: tuple[Price, ...]


def make_plan(slides: int, patches: int, config: PlanConfig, dimensions: int | None = None) -> Plan:
    """Estimate the cost of `patches` of `slides`; `dimensions` are those of an encoder that is not in KNOWN."""
    if slides < 1 or patches < 1:
        raise ConfigError(
            f"{patches} patches of {slides} slides: need at least 1 of each; give a folder or both numbers"
        )
    chosen = min(patches, slides * config.per_slide)
    widths = {name: width for name, width, _ in KNOWN}

    def hours(count: int, cost: float) -> float:
        return count * cost / (config.tflops * 1e3) / 3600

    prices = []
    for name in config.encoders:
        rate = config.rate or config.tflops * 1e3 / COSTS[name]
        row = (widths.get(name) or dimensions or 0) * HALF + PLACE_BYTES
        prices.append(Price(name, rate, patches / rate / 3600, patches * row, chosen / rate / 3600, chosen * row))
    return Plan(
        slides,
        patches,
        chosen,
        config.read_rate,
        patches / config.read_rate / 3600,
        patches * PLACE_BYTES,
        hours(patches, COSTS[SMALL]),
        hours(patches, CLASSIFIER) * MAP_WINDOWS,
        tuple(prices),
    )


def count_patches(
    parts: list[Part],
    cutting: Cutting,
    workers: Workers = ALONE,
    bar: Bar = SILENT,
) -> tuple[int, int, list[str]]:
    """The numbers of slides with tissue and of their patches, and one line for each slide without tissue or damaged.

    Counts on thumbnails; patches out of focus are included.
    """
    slides, patches, failures = 0, 0, []
    for outcome in run_items(_Counter(cutting), parts, workers):
        if outcome.error is not None:
            failures.append(outcome.failure())
        else:
            slides, patches = slides + 1, patches + (outcome.result or 0)
        bar.advance(1, counted(patches, "patch"))
    if not patches:
        reason = failures[0] if failures else "there are no slides"
        raise InputError(f"no patch in {counted(len(parts), 'slide')}: {reason}")
    return slides, patches, failures


def measure_rate(
    encoder: str, size: int, seconds: float = 5.0, batch_size: int = 32, allow_remote_code: bool = False
) -> tuple[float, int]:
    """Patches per second of an encoder on this machine, and the dimension of its vectors."""
    opened = open_encoder(encoder, allow_remote_code=allow_remote_code)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3)).astype(np.uint8)
    dimensions = opened(images).shape[1]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        opened(images)
        count += batch_size
    return count / (time.perf_counter() - start), dimensions


def describe(plan: Plan) -> str:
    """The plan as text, with a Markdown table of encoders."""
    shared = plan.small_hours + plan.map_hours
    of_slides = f"{counted(plan.patches, 'patch')} of {counted(plan.slides, 'slide')}"
    lines = [
        f"{of_slides}; {plan.chosen:,} of them chosen for clustering",
        f"reading all patches once: {plan.read_hours:,.0f} hours of one processor",
        f"index without pixels or vectors: {byte_size(plan.index_bytes)}",
        f"small encoder, every patch: {plan.small_hours:,.1f} h",
        f"maps by the classifier, {MAP_WINDOWS:.0f} windows per area of a patch: {plan.map_hours:,.1f} h",
        "hours are for one GPU; it waits where fewer processors read than the third column says",
        "",
        "| encoder | patches/s | readers | every patch, h | vectors | chosen only, h | vectors | second way, h |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.encoder} | {p.rate:,.0f} | {math.ceil(p.rate / plan.read_rate)} "
        f"| {p.hours:,.1f} | {byte_size(p.bytes)} | {p.chosen_hours:,.1f} | {byte_size(p.chosen_bytes)} "
        f"| {p.chosen_hours + shared:,.1f} |"
        for p in plan.prices
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Counter:
    """Counts the patches of a part; pickles for workers."""

    cutting: Cutting

    def __call__(self, part: Part) -> int:
        if isinstance(part, RowsPart):
            return part.stop - part.start
        if isinstance(part, DamagedShard):
            raise InputError(part.reason)
        with open_slide(part.slide, self.cutting.slide_mpp) as slide:
            return len(tissue_places(slide, find_tissue(slide), self.cutting))
