"""Estimate the cost of training a recipe before it starts, and what is left of a run that has begun.

Rates are measured: a few real steps of each stage run on this machine, on some of the recipe's own patches, in a
temporary folder. The run folder is only read.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from histoloom.errors import ConfigError
from histoloom.experiments.check import check_recipe, given_autoencoder
from histoloom.experiments.context import record_of
from histoloom.experiments.data import hidden_types, open_levels, open_split
from histoloom.experiments.recipe import DataSource, Recipe
from histoloom.experiments.stages import MEASURED, describe_decoding, open_guide, open_initial
from histoloom.files import read_record
from histoloom.fitting.checkpoint import CHECKPOINT, steps_done
from histoloom.fitting.loop import LoopConfig, Step
from histoloom.models.autoencoder import build_autoencoder
from histoloom.patches.folder import find_pictures
from histoloom.patches.importer import UnlabeledError, import_pictures
from histoloom.patches.lumens import with_lumens
from histoloom.patches.store import count_patches, read_table, spread
from histoloom.progress import SILENT, Bar
from histoloom.records import refuse_other_run
from histoloom.text import byte_size, counted
from histoloom.tissue import TissueTable
from histoloom.training.autoencoder import train_autoencoder
from histoloom.training.decoder import train_decoder
from histoloom.training.denoiser import train_denoiser
from histoloom.training.latents import cache_latents, num_encoded
from histoloom.training.start import match_types

STEPS = 5  # measured per stage; the first one warms up and does not count
PATCHES = MEASURED  # of the recipe, to measure on: those on which a training measures how they are decoded


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The cost of one stage on this machine."""

    stage: str
    steps: int | None  # None for latents, which have no steps
    seen: int  # patches or views over the whole stage
    left: int  # of them, to be done
    rate: float  # per second
    disk: int  # bytes in the run folder at the end

    @property
    def hours(self) -> float:
        """Hours that are left."""
        return self.left / self.rate / 3600


@dataclass(frozen=True)
class TrainingPlan:
    """What is left to do for a recipe, and what it costs on this machine."""

    stages: tuple[StageCost, ...]
    patches: int  # of the training split
    pixels: int  # bytes of their images and maps in memory
    peak: int | None  # bytes of memory while measuring; None where the system does not say
    unknown: tuple[str, ...]  # what was not measured
    decoding: str = ""  # how a given autoencoder decodes the patches


def plan_recipe(recipe: Recipe, folder: Path | str, bar: Bar = SILENT) -> TrainingPlan:
    """Measure what training `recipe` in `folder` costs from here on; `folder` is only read.

    `bar` counts measured steps. Raises what the training would raise for a recipe that cannot work, and ConfigError
    where the patches were not cut from their slides yet.
    """
    folder = Path(folder)
    if recipe.distillation is not None:
        raise ConfigError("only `histoloom train` can be planned; leave the table [distillation] out")
    if (found := read_record(folder)) is not None:
        refuse_other_run(folder, found, record_of(recipe, "train"))
    with tempfile.TemporaryDirectory(prefix="histoloom-plan-") as place:
        measuring = _Measuring(recipe, folder, Path(place), bar)
        return TrainingPlan(
            tuple(measuring.stages()),
            measuring.count,
            measuring.pixels,
            _peak_memory(),
            _not_measured(recipe, folder),
            measuring.decoding(),
        )


def describe(plan: TrainingPlan) -> str:
    """The plan as text, with a Markdown table of stages."""
    hours, disk = sum(stage.hours for stage in plan.stages), sum(stage.disk for stage in plan.stages)
    lines = [
        f"{counted(plan.patches, 'patch')} to train on; rates: means of {STEPS - 1} steps on this machine as it is now",
        "",
        "| stage | steps | patches seen | left | patches/s | hours left | disk |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {stage.stage} | {'' if stage.steps is None else f'{stage.steps:,}'} | {stage.seen:,} | {stage.left:,} "
        f"| {stage.rate:,.1f} | {stage.hours:,.2f} | {byte_size(stage.disk)} |"
        for stage in plan.stages
    ]
    peak = byte_size(plan.peak) if plan.peak else "an unknown amount"
    return "\n".join(
        [
            *lines,
            f"| all | | | | | {hours:,.2f} | {byte_size(disk)} |",
            "",
            f"memory: {peak} at the peak of measuring, and {byte_size(plan.pixels)} for all patches",
            f"not measured: {', '.join(plan.unknown)}",
            *([plan.decoding] if plan.decoding else []),
        ]
    )


class _Measuring:
    """Runs a few steps of each stage of a recipe in the folder `place`."""

    def __init__(self, recipe: Recipe, folder: Path, place: Path, bar: Bar):
        self.recipe, self.folder, self.place, self.bar = recipe, folder, place, bar
        self.initial, self.guide = open_initial(recipe.initial_model), open_guide(recipe.denoiser)
        check = partial(check_recipe, recipe, initial=self.initial, guide=self.guide)
        dataset, self.count = _some_patches(recipe.data, folder, place, check)
        self.table = with_lumens(read_table(dataset), recipe.data.lumens)
        self.patches = open_split(dataset, recipe.data.split, PATCHES)
        check(min(self.patches.images.shape[1:3]), self.table)
        self.levels = open_levels(recipe.denoiser, dataset, self.table)
        self.pixels = self.patches.images[0].nbytes * 4 // 3 * self.count

    def stages(self) -> list[StageCost]:
        """The cost of every stage that the recipe has, in the order of training."""
        config, costs = self.recipe, []
        autoencoder = given_autoencoder(config, self.initial)
        if autoencoder is None:
            costs.append(self._stage("autoencoder", config.autoencoder, partial(train_autoencoder, self.patches)))
            autoencoder = build_autoencoder(config.autoencoder.model).eval()
        if config.decoder is not None:
            costs.append(self._stage("decoder", config.decoder, partial(train_decoder, self.patches, autoencoder)))
        costs.append(self._latents(autoencoder))
        train = partial(
            train_denoiser,
            self.patches,
            self.table.num_ids,
            autoencoder,
            latents=self.place / "latents",
            initial=None if self.initial is None else self.initial.denoiser,
            match=None if self.initial is None else match_types(self.table, self.initial.table),
            guide=None if self.guide is None else (self.guide.denoiser, match_types(self.table, self.guide.table)),
            levels=self.levels,
            hidden=hidden_types(config.denoiser, self.table),
        )
        costs.append(self._stage("denoiser", config.denoiser, train))
        return costs

    def decoding(self) -> str:
        """How an autoencoder that the recipe names decodes the patches."""
        autoencoder = given_autoencoder(self.recipe, self.initial)
        return "" if autoencoder is None else describe_decoding(self.recipe, autoencoder, self.patches)

    def _stage(self, stage: str, config: Any, train: Callable[..., object]) -> StageCost:
        """The cost of a stage whose `config` has a loop; `train` takes a shorter config, a folder and `on_step`."""
        loop: LoopConfig = config.loop
        short = replace(loop, steps=STEPS, checkpoint_minutes=1e6)
        rates: list[float] = []

        def on_step(step: Step) -> None:
            rates.append(step.samples_per_second)
            self.bar.advance()

        train(replace(config, loop=short), self.place / stage, on_step=on_step)
        left = max(0, loop.steps - steps_done(self.folder / stage))
        return StageCost(
            stage=stage,
            steps=loop.steps,
            seen=loop.steps * loop.batch_size,
            left=left * loop.batch_size,
            rate=rates[-1],
            disk=(self.place / stage / CHECKPOINT).stat().st_size,
        )

    def _latents(self, autoencoder: ModelMixin) -> StageCost:
        config = self.recipe.denoiser
        start = time.perf_counter()
        cache = cache_latents(
            autoencoder, self.patches, config.views, config.loop.seed, config.stain, self.place / "latents", self.bar
        )
        elapsed, views = time.perf_counter() - start, self.count * config.views
        return StageCost(
            stage="latents",
            steps=None,
            seen=views,
            left=views - num_encoded(self.folder / "denoiser", self.count) * config.views,
            rate=len(self.patches) * config.views / elapsed,
            disk=cache.latents.nbytes // len(self.patches) * self.count,
        )


def _some_patches(
    data: DataSource, folder: Path, place: Path, check: Callable[[int, TissueTable], None]
) -> tuple[Path, int]:
    """A dataset with some of the patches of a recipe, and how many patches its split has in all."""
    dataset = Path(data.dataset) if data.dataset else folder / "dataset"
    if data.dataset or dataset.is_dir():
        return dataset, count_patches(dataset, data.split)
    if data.slides:
        raise ConfigError(
            f"{data.slides}: how many patches its slides give is unknown; start the training, which cuts them, stop it "
            "and plan again, or cut them with `histoloom patches`"
        )
    table = TissueTable.load(data.tissue)
    pictures = find_pictures(Path(data.source), Path(data.maps) if data.maps else None, data.pictures)
    check(pictures[0].size, with_lumens(table, data.lumens))
    mine = [picture for picture in pictures if picture.split == data.split and picture.places]
    if not mine:
        raise ConfigError(f"{data.source}: no picture is in split {data.split!r}; name another split")
    chosen = spread(len(mine), PATCHES).tolist()
    order = [mine[number] for number in dict.fromkeys([*chosen, *range(len(mine))])]
    for first in range(0, len(order), PATCHES):
        try:
            import_pictures(order[first : first + PATCHES], table, data.pictures, place / "dataset")
            break
        except UnlabeledError:
            if first + PATCHES >= len(order):
                raise
    return place / "dataset", sum(len(picture.places) for picture in mine)


def _not_measured(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    data = () if recipe.data.dataset or (folder / "dataset").is_dir() else ("the import of the pictures and its disk",)
    lumens = () if recipe.data.lumens is None else ("lumens and their dataset",)
    segmenter = ("the segmenter of [watch]",) if recipe.watch.map_fidelity else ()
    return *data, *lumens, *segmenter, "patches woven at each checkpoint", "the copy limit", "the finished model"


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
