"""A recipe, run from data to a saved model: import, autoencoder, denoiser, and someone watching.

    RUN/
      recipe.toml            resolved copy
      dataset/               where the recipe names pictures or slides
      autoencoder/ denoiser/ checkpoints; latents of the training views
      samples/000400.png     the same maps and crops, woven at each checkpoint
      tensorboard/           losses, rates, map fidelity
      model/                 the finished pipeline

Every stage resumes from its checkpoint, so the same command goes on where a killed run stopped.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from diffusers import ModelMixin
from torch.utils.tensorboard import SummaryWriter

from histoloom.conditioning.crops import ReferenceCrops
from histoloom.conditioning.inputs import Conditioning, Crop
from histoloom.config import build, load_recipe, to_toml
from histoloom.discovery.levels import LEVELS, Levels, read_levels
from histoloom.errors import ConfigError, OutputError
from histoloom.evaluation.downstream import DownstreamConfig
from histoloom.evaluation.map_fidelity import confusion, iou, mean_over_present
from histoloom.evaluation.segmenter import Segmenter, SegmenterConfig, load_segmenter, save_segmenter, train_segmenter
from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.generation.patches import WeaveConfig
from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.patches.importer import import_pictures, is_made_from
from histoloom.patches.rules import SlideDataset
from histoloom.patches.slide_jobs import find_jobs
from histoloom.patches.store import Patches, has_pixels, load_patches, read_table
from histoloom.tissue import TissueTable
from histoloom.training.autoencoder import AutoencoderTraining, train_autoencoder
from histoloom.training.denoiser import DenoiserTraining, train_denoiser
from histoloom.training.loop import Progress, process_state
from histoloom.weights import find_model


@dataclass(frozen=True)
class DataSource:
    """Where patches come from: a patch dataset, pictures and maps to import, or slides to cut. Paths are relative to
    the recipe, those of slides to `root`."""

    dataset: str = ""  # folder made by `histoloom import` or `histoloom patches`
    source: str = ""  # or: image folder, or manifest.csv
    maps: str = ""  # folder of maps; not for a manifest
    tissue: str = ""  # tissue.toml of the pictures or slides
    split: str = "train"  # what to train on
    pictures: FolderImport = field(default_factory=FolderImport)
    root: str = ""  # folder of the slides' download, as in `histoloom train --data`
    slides: str = ""  # or: folder of slides
    annotations: str = ""  # folder of their annotations, if any
    listing: str = ""  # CSV file that names the slides to take, if any
    cut: SlideDataset = field(default_factory=SlideDataset)

    def __post_init__(self):
        if [bool(self.dataset), bool(self.source), bool(self.slides)].count(True) != 1:
            raise ConfigError("give either dataset (a folder of patches), source (pictures to import) or slides")
        if not (self.dataset or self.tissue):
            raise ConfigError("pictures and slides need tissue, the table that says what map values and classes mean")


@dataclass(frozen=True)
class Watch:
    """What is looked at while training: `patches` woven at each checkpoint, and read by a segmenter."""

    patches: int = 8
    steps: int = 12  # of the sampler
    segmenter: SegmenterConfig | None = None  # trained first, on the same patches; without it no map fidelity


@dataclass(frozen=True)
class Reproduction:
    """`histoloom reproduce`: every conditioning trained, woven from and measured at one equal budget.

    Networks are those of `[denoiser]`, always from random weights; one autoencoder serves all.
    """

    conditionings: tuple[Conditioning, ...] = (
        "unconditional",
        "map",
        "embedding",
        "crops-in-place",
        "crops-as-reference",
    )
    autoencoder_of: str = ""  # folder, hub name or bundled name of a model; empty: the recipe's autoencoder
    steps: int = 600  # of training, for each conditioning
    views: int = 4  # augmented views per patch in the shared cache of latents
    patches: int = 237  # woven for each conditioning, from maps and crops of the training split
    weave: WeaveConfig = field(default_factory=lambda: WeaveConfig(steps=12))
    encoders: tuple[str, ...] = ("histoloom-small",)
    pairs: int = 100  # images and crops searched for copied parts, 100 or more
    segmenter: SegmenterConfig = field(default_factory=lambda: SegmenterConfig(steps=400))  # reads maps off images
    downstream: DownstreamConfig = field(default_factory=lambda: DownstreamConfig(steps=100))
    shown: int = 6  # patches on the contact sheet
    seed: int = 0

    def __post_init__(self):
        if len(set(self.conditionings)) < max(len(self.conditionings), 2):
            raise ConfigError("name two conditionings at least, none of them twice")
        if min(self.steps, self.views, self.shown) < 1 or self.patches < 2 or self.pairs < 100 or not self.encoders:
            raise ConfigError("steps, views, shown must be 1 or more, patches 2, pairs 100; name one encoder at least")


@dataclass(frozen=True)
class Recipe:
    """One experiment."""

    data: DataSource
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    denoiser: DenoiserTraining = field(default_factory=DenoiserTraining)
    watch: Watch = field(default_factory=Watch)
    reproduce: Reproduction = field(default_factory=Reproduction)
    pretrained_autoencoder: str = ""  # folder or hub name of any diffusers autoencoder, instead of training one
    initial_model: str = ""  # folder, hub name or bundled name of a model whose denoiser is trained further


@runtime_checkable
class Bar(Protocol):
    """A progress bar."""

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count items done."""


MakeBar = Callable[..., AbstractContextManager[Bar]]


def read_recipe(path: Path | str, root: Path | str | None = None) -> Recipe:
    """The recipe of a TOML file, its paths made absolute; raises ConfigError naming table and key.

    A model or autoencoder is a folder beside the recipe where there is one of that name, else a hub or bundled name.
    `root` is the folder of the slides' download, instead of what the recipe says.
    """
    path = Path(path)
    values = load_recipe(path)
    data = values.get("data")
    data = data if isinstance(data, dict) else {}  # `build` refuses what is no table
    if root is not None and not data.get("slides"):
        raise ConfigError(f"{path}: names no slides, so there is nothing to look for in {root}; leave out --data")
    if root is not None:
        data["root"] = os.path.abspath(root)
    for key in ("root", "dataset", "source", "maps", "tissue", "slides", "annotations", "listing"):
        if isinstance(data.get(key), str) and data[key]:
            of_slides = key in ("slides", "annotations", "listing") and isinstance(data.get("root"), str)
            home = path.parent / data["root"] if of_slides else path.parent
            data[key] = os.path.abspath(home / os.path.expanduser(data[key]))
    for key in ("pretrained_autoencoder", "initial_model"):
        if isinstance(values.get(key), str) and values[key] and (path.parent / values[key]).is_dir():
            values[key] = os.path.abspath(path.parent / values[key])
    denoiser = values.get("denoiser")
    curriculum = denoiser.get("curriculum") if isinstance(denoiser, dict) else None
    if isinstance(curriculum, dict) and isinstance(curriculum.get("levels"), str) and curriculum["levels"]:
        curriculum["levels"] = os.path.abspath(path.parent / os.path.expanduser(curriculum["levels"]))
    return build(Recipe, values, str(path))


def run_recipe(recipe: Recipe, folder: Path, make_bar: MakeBar) -> Path:
    """Train what the recipe says, in `folder`, and return the folder of the finished model.

    `make_bar(label, total, unit, done)` opens a progress bar; only the main process draws it.
    """
    state = process_state()
    with state.main_process_first():
        if state.is_main_process:
            keep_recipe(recipe, folder)
        dataset = open_dataset(recipe.data, folder, make_bar)
    table, patches = read_table(dataset), open_split(dataset, recipe.data.split)
    writer = SummaryWriter(str(folder / "tensorboard")) if state.is_main_process else None
    autoencoder = open_autoencoder(recipe, patches, folder, make_bar, writer)
    watcher = _Watcher(recipe.watch, patches, table, autoencoder, folder, writer, make_bar) if writer else None
    state.wait_for_everyone()
    levels = _levels(recipe.denoiser, dataset, table)
    denoiser = _denoiser(recipe, patches, table, autoencoder, folder, make_bar, writer, watcher, levels)
    if state.is_main_process:
        save_model(denoiser, autoencoder, table, folder / "model")
    return folder / "model"


def save_model(denoiser: Denoiser, autoencoder: ModelMixin, table: TissueTable, folder: Path) -> None:
    """Save a pipeline in bf16 safetensors, written aside and renamed; the parts in memory stay as they are."""
    aside = folder.with_name(folder.name + ".partial")
    parts = [Denoiser.from_config(denoiser.config), type(autoencoder).from_config(autoencoder.config)]
    for copy, original in zip(parts, (denoiser, autoencoder), strict=True):
        copy.load_state_dict(original.state_dict())
        copy.bfloat16()
    scheduler, _ = make_sampler(denoiser.config.objective)
    try:
        HistoloomPipeline(parts[1], parts[0], scheduler, table.to_rows()).save_pretrained(str(aside))
        if folder.exists():
            old = folder.with_name(folder.name + ".old")
            shutil.rmtree(old, ignore_errors=True)  # a run killed between the next lines leaves it
            os.replace(folder, old)
            os.replace(aside, folder)
            shutil.rmtree(old)
        else:
            os.replace(aside, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot save the model ({error}); free some space and run again") from None


def open_autoencoder(
    recipe: Recipe, patches: Patches, folder: Path, make_bar: MakeBar, writer: SummaryWriter | None
) -> ModelMixin:
    """The autoencoder that a recipe names, or the one that it trains."""
    if recipe.pretrained_autoencoder:
        return load_autoencoder(recipe.pretrained_autoencoder)
    if recipe.initial_model:
        return HistoloomPipeline.load(find_model(recipe.initial_model), torch.float32).autoencoder
    config = recipe.autoencoder
    with make_bar("autoencoder", config.loop.steps * config.loop.batch_size, "crops") as bar:
        return train_autoencoder(
            patches, config, folder / "autoencoder", reporter(bar, writer, "autoencoder", config.loop.batch_size)
        )


def _denoiser(
    recipe: Recipe,
    patches: Patches,
    table: TissueTable,
    autoencoder: ModelMixin,
    folder: Path,
    make_bar: MakeBar,
    writer: SummaryWriter | None,
    watcher: "_Watcher | None",
    levels: Levels | None,
) -> Denoiser:
    config = recipe.denoiser
    with (
        make_bar("latents", len(patches), "patches") as caching,
        make_bar("denoiser", config.loop.steps * config.loop.batch_size, "patches") as bar,
    ):
        return train_denoiser(
            patches,
            table.num_ids,
            autoencoder,
            config,
            folder / "denoiser",
            lambda _: caching.advance(),
            reporter(bar, writer, "denoiser", config.loop.batch_size),
            watcher,
            HistoloomPipeline.load(find_model(recipe.initial_model), torch.float32).denoiser
            if recipe.initial_model
            else None,
            levels,
        )


def _levels(config: DenoiserTraining, dataset: Path, table: TissueTable) -> Levels | None:
    """How the types of the dataset are nested, where the recipe has a curriculum."""
    if config.curriculum is None:
        return None
    path = Path(config.curriculum.levels or dataset / LEVELS)
    levels = read_levels(path)
    if unknown := sorted(set(table.ids) - set(levels.of[-1].tolist())):
        raise ConfigError(f"{path}: knows no type {unknown[0]}, which {dataset} has; take the levels of these types")
    return levels


def reporter(bar: Bar, writer: SummaryWriter | None, stage: str, batch_size: int) -> Callable[[Progress], None]:
    """What tells a bar and TensorBoard, if any, of each step."""
    seen = [0]

    def report(progress: Progress) -> None:
        bar.advance((progress.step - seen[0]) * batch_size, f"loss {progress.losses['loss']:.4f}")
        seen[0] = progress.step
        if writer and (progress.step % 10 == 0 or progress.step == progress.steps):
            for name, value in progress.losses.items():
                writer.add_scalar(f"{stage}/{name}", value, progress.step)
            writer.add_scalar(f"{stage}/samples_per_second", progress.samples_per_second, progress.step)
            writer.add_scalar(f"{stage}/waiting_for_data", progress.waiting, progress.step)

    return report


class _Watcher:
    """Called at each checkpoint: weaves the same maps and crops again, and has them read."""

    def __init__(
        self,
        config: Watch,
        patches: Patches,
        table: TissueTable,
        autoencoder: ModelMixin,
        folder: Path,
        writer: SummaryWriter,
        make_bar: MakeBar,
    ):
        self.config, self.table, self.autoencoder, self.folder, self.writer = config, table, autoencoder, folder, writer
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(patches))[: config.patches]
        references = ReferenceCrops(
            patches.select(np.flatnonzero(np.isin(patches.cases, [patches.cases[i] for i in chosen])))
        )
        self.maps = [patches.semantic_maps[i] for i in chosen]
        self.crops: list[list[Crop]] = []
        for i in chosen:
            at = references.patches.sources.index(patches.sources[i])
            self.crops.append(
                references.draw(at, np.zeros(self.maps[0].shape, bool), patches.semantic_maps[i], None, rng)
            )
        self.segmenter = self._segmenter(patches, make_bar) if config.segmenter else None

    def __call__(self, step: int, denoiser: Denoiser) -> None:
        scheduler, _ = make_sampler(denoiser.config.objective)
        pipeline = HistoloomPipeline(self.autoencoder, denoiser, scheduler, self.table.to_rows())
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(self.maps, self.crops, steps=self.config.steps)
        shown = [[(c.tissue, c.pixels) for c in mine] for mine in self.crops]
        sheet = contact_sheet(
            [SheetRow(*row) for row in zip(self.maps, shown, images, strict=True)], self.table, title=f"step {step}"
        )
        path = self.folder / "samples" / f"{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        aside = path.with_suffix(".partial")
        sheet.save(aside, "PNG")
        os.replace(aside, path)
        self.writer.add_image("woven", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")
        if self.segmenter:
            counts = confusion(self.segmenter.predict(images), np.stack(self.maps), self.table.num_ids).sum(0)
            self.writer.add_scalar("denoiser/map_fidelity_iou", mean_over_present(iou(counts)), step)
        self.writer.flush()

    def _segmenter(self, patches: Patches, make_bar: MakeBar) -> Segmenter:
        home = self.folder / "segmenter"
        if not (home / "segmenter.safetensors").is_file():
            with make_bar("segmenter", self.config.segmenter.steps, "steps") as bar:
                trained = train_segmenter(
                    patches.images,
                    patches.semantic_maps,
                    self.table.num_ids,
                    self.config.segmenter,
                    lambda _, loss: bar.advance(1, f"loss {loss:.3f}"),
                )
            save_segmenter(trained, home)
        return load_segmenter(home)


def open_dataset(data: DataSource, folder: Path, make_bar: MakeBar) -> Path:
    """The folder of the recipe's patches, imported or cut first where they are not yet there."""
    if data.dataset:
        return Path(data.dataset)
    table, out = TissueTable.load(data.tissue), folder / "dataset"
    if data.slides:
        _cut(data, table, out, make_bar)
        return out
    pictures = find_pictures(Path(data.source), Path(data.maps) if data.maps else None, data.pictures)
    if not is_made_from(out, pictures, table, data.pictures):
        with make_bar("importing", len(pictures), "images") as bar:
            import_pictures(pictures, table, data.pictures, out, advance=bar.advance)
    return out


def _cut(data: DataSource, table: TissueTable, out: Path, make_bar: MakeBar) -> None:
    """Cut the slides on all processors, where that was not done yet."""
    from histoloom.patches.from_slides import extract_slides, made_from  # here: needs histoloom[slides]

    annotations, listing = (Path(name) if name else None for name in (data.annotations, data.listing))
    jobs, notes = find_jobs(Path(data.slides), annotations, data.cut, listing)
    if made_from(out, jobs, table, data.cut) is None:
        workers = min(os.cpu_count() or 1, len(jobs))
        with make_bar("slides", len(jobs), "slides") as bar:
            extract_slides(jobs, notes, table, data.cut, out, workers, advance=bar.advance)


def open_split(dataset: Path, split: str) -> Patches:
    """The patches of a dataset; the pixels of an index come from its slides."""
    if has_pixels(dataset, split):
        return load_patches(dataset, split)
    from histoloom.patches.places import PlaceReader  # here: needs histoloom[slides]

    return load_patches(dataset, split, PlaceReader(dataset).read)


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe into the run folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [f.name for f in fields(recipe)]
        tables = {name: getattr(recipe, name) for name in names if not isinstance(getattr(recipe, name), str)}
        head = "".join(f'{name} = "{getattr(recipe, name)}"\n' for name in names if name not in tables) + "\n"
        aside = folder / "recipe.toml.partial"
        aside.write_text(head + to_toml(tables), encoding="utf-8")
        os.replace(aside, folder / "recipe.toml")
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the run folder ({error}); choose another with --out") from None
