"""What training a model and reproducing a table share: an autoencoder, a saved pipeline, who tells of each step."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from diffusers import ModelMixin
from torch.utils.tensorboard import SummaryWriter

from histoloom.errors import OutputError
from histoloom.evaluation.segmenter import (
    SEGMENTER,
    Segmenter,
    SegmenterConfig,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from histoloom.experiments.recipe import Recipe
from histoloom.fitting.loop import Step
from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.store import Patches
from histoloom.tissue import TissueTable
from histoloom.training.autoencoder import train_autoencoder
from histoloom.training.decoder import train_decoder
from histoloom.weights import find_model


@runtime_checkable
class Bar(Protocol):
    """A progress bar."""

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count items done."""


MakeBar = Callable[..., AbstractContextManager[Bar]]


def open_autoencoder(
    recipe: Recipe, patches: Patches, folder: Path, make_bar: MakeBar, writer: SummaryWriter | None
) -> ModelMixin:
    """The autoencoder that a recipe names, or the one that it trains; its decoder trained further, where it says so."""
    autoencoder = _autoencoder(recipe, patches, folder, make_bar, writer)
    if recipe.decoder is None:
        return autoencoder
    loop = recipe.decoder.loop
    with make_bar("decoder", loop.steps * loop.batch_size, "crops") as bar:
        told = reporter(bar, writer, "decoder", loop.batch_size)
        return train_decoder(patches, autoencoder, recipe.decoder, folder / "decoder", told)


def open_segmenter(
    home: Path, patches: Patches, table: TissueTable, config: SegmenterConfig, make_bar: MakeBar
) -> Segmenter:
    """The segmenter of `home`, which reads maps off images; trained on `patches` first where there is none of this
    config."""
    if (home / SEGMENTER).is_file() and (kept := load_segmenter(home)).config == config:
        return kept
    with make_bar("segmenter", config.steps, "steps") as bar:
        trained = train_segmenter(
            patches.images,
            patches.semantic_maps,
            table.num_ids,
            config,
            lambda _, loss: bar.advance(1, f"loss {loss:.3f}"),
        )
    save_segmenter(trained, home)
    return load_segmenter(home)


def _autoencoder(
    recipe: Recipe, patches: Patches, folder: Path, make_bar: MakeBar, writer: SummaryWriter | None
) -> ModelMixin:
    if recipe.pretrained_autoencoder:
        return load_autoencoder(recipe.pretrained_autoencoder)
    if recipe.initial_model:
        return HistoloomPipeline.load(find_model(recipe.initial_model), torch.float32).autoencoder
    config = recipe.autoencoder
    with make_bar("autoencoder", config.loop.steps * config.loop.batch_size, "crops") as bar:
        told = reporter(bar, writer, "autoencoder", config.loop.batch_size)
        return train_autoencoder(patches, config, folder / "autoencoder", told)


def save_model(
    denoiser: Denoiser, autoencoder: ModelMixin, table: TissueTable, folder: Path, copy_limit: float | None = None
) -> None:
    """Save a pipeline in bf16 safetensors, written aside and renamed; the parts in memory stay as they are.

    A bank of crops that lies in the folder of these very weights stays there.
    """
    aside = folder.with_name(folder.name + ".partial")
    parts = [Denoiser.from_config(denoiser.config), type(autoencoder).from_config(autoencoder.config)]
    for copy, original in zip(parts, (denoiser, autoencoder), strict=True):
        copy.load_state_dict(original.state_dict())
        copy.bfloat16()
    scheduler, _ = make_sampler(denoiser.config.objective)
    pipeline = HistoloomPipeline(parts[1], parts[0], scheduler, table.to_rows(), copy_limit)
    bank = folder / "crops"
    try:
        pipeline.save_pretrained(str(aside))
        if bank.is_dir() and HistoloomPipeline.load(folder).fingerprint == pipeline.fingerprint:
            shutil.copytree(bank, aside / "crops", dirs_exist_ok=True)
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


def reporter(bar: Bar, writer: SummaryWriter | None, stage: str, batch_size: int) -> Callable[[Step], None]:
    """What tells a bar and TensorBoard, if any, of each step."""
    seen = [0]

    def report(progress: Step) -> None:
        bar.advance((progress.step - seen[0]) * batch_size, f"loss {progress.losses['loss']:.4f}")
        seen[0] = progress.step
        if writer and (progress.step % 10 == 0 or progress.step == progress.steps):
            for name, value in progress.losses.items():
                writer.add_scalar(f"{stage}/{name}", value, progress.step)
            writer.add_scalar(f"{stage}/samples_per_second", progress.samples_per_second, progress.step)
            writer.add_scalar(f"{stage}/waiting_for_data", progress.waiting, progress.step)

    return report
