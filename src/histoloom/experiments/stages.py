"""The stages that training a model and reproducing a table share: autoencoder, decoder, segmenter, saved pipeline."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.modeling_utils import ModelMixin

from histoloom.errors import ModelError
from histoloom.evaluation.segmenter import (
    SEGMENTER,
    Segmenter,
    SegmenterConfig,
    fitted,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from histoloom.experiments.context import Run
from histoloom.experiments.curves import Curves
from histoloom.experiments.recipe import Recipe
from histoloom.files import move, recover, replaced_folder, write_record
from histoloom.fitting.loop import Step, show_on
from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.decoding import measure_decoding
from histoloom.models.denoiser import Denoiser
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler
from histoloom.patches.store import Patches, spread
from histoloom.progress import Bar, Progress
from histoloom.records import Record
from histoloom.tissue import TissueTable
from histoloom.training.autoencoder import train_autoencoder
from histoloom.training.decoder import train_decoder
from histoloom.training.denoiser import DenoiserTraining

MEASURED = 16  # patches on which decoding is measured


def open_autoencoder(run: Run) -> ModelMixin:
    """The autoencoder that the recipe names or trains, with its decoder trained further if the recipe says so."""
    autoencoder = _autoencoder(run)
    if run.recipe.decoder is None:
        return autoencoder
    loop = run.recipe.decoder.loop
    with run.progress("decoder", loop.steps * loop.batch_size, "crops") as bar:
        report = reporter(bar, run.curves, "decoder", loop.batch_size)
        return train_decoder(run.patches, autoencoder, run.recipe.decoder, run.folder / "decoder", report)


def describe_decoding(recipe: Recipe, autoencoder: ModelMixin, patches: Patches) -> str:
    """How the autoencoder that `recipe` names decodes `patches`, and what to do if it changes their stain.

    Empty where the recipe trains the autoencoder or its decoder.
    """
    name = recipe.pretrained_autoencoder or recipe.initial_model
    if not name or recipe.decoder is not None:
        return ""
    found = measure_decoding(autoencoder, patches.images[spread(len(patches), MEASURED)])
    cure = (
        ""
        if found.is_faithful
        else "; that changes their stain: add a table [decoder] to the recipe, which adapts the decoder"
    )
    return f"{name}: {found}{cure}"


def open_initial(name: str) -> HistoloomPipeline | None:
    """The model that a recipe's `initial_model` names, in float32; None for an empty name."""
    return HistoloomPipeline.load(name, torch.float32) if name else None


def open_guide(config: DenoiserTraining) -> HistoloomPipeline | None:
    """The weaker model that `config.guide` names, in float32; None without one."""
    return open_initial(config.guide.model) if config.guide is not None else None


def open_segmenter(
    folder: Path, patches: Patches, table: TissueTable, config: SegmenterConfig, progress: Progress
) -> Segmenter:
    """The segmenter in `folder`, which reads maps off images; trained on `patches` first if there is none of this
    config that learned from them. Its window shrinks to fit small patches."""
    config = fitted(config, min(patches.images.shape[1:3]))
    with suppress(ModelError):  # one that cannot be read, or of another version, is trained again
        if (folder / SEGMENTER).is_file():
            found = load_segmenter(folder)
            same = (found.config, found.num_types) == (config, table.num_ids)
            same &= found.table is None or (found.table.ids, found.table.names) == (table.ids, table.names)
            if same and found.has_learned(patches.images, patches.semantic_maps):
                return found
    with progress("segmenter", config.steps, "steps") as bar:
        trained = train_segmenter(patches.images, patches.semantic_maps, table.num_ids, config, bar, table)
    save_segmenter(trained, folder)
    return load_segmenter(folder)


def save_model(
    denoiser: Denoiser,
    autoencoder: ModelMixin,
    table: TissueTable,
    folder: Path,
    copy_limit: float | None = None,
    card: str = "",
    mpp: float | None = None,
    record: Record | None = None,
) -> None:
    """Save a pipeline in bf16 safetensors, as a whole; the parts in memory keep their precision.

    A folder that holds this very model stays as it is, with the bank of crops in it. The bank of a model with other
    weights, types, copy limit or scale moves to `crops-of-HASH` next to the folder. `card` is the text of README.md,
    `mpp` the scale of the patches in micrometers per pixel, `record` says how it was trained. Raises OutputError.
    """
    pipeline = _in_bf16(denoiser, autoencoder, table, copy_limit, mpp)
    recover(folder)
    if folder.is_dir():
        found = HistoloomPipeline.load(folder)
        if _identity(found) == _identity(pipeline):
            return
        if (folder / "crops").is_dir():
            move(folder / "crops", folder.with_name(f"crops-of-{found.fingerprint[:12]}"))
    with replaced_folder(folder) as aside:
        pipeline.save_pretrained(str(aside))
        if record:
            write_record(aside, record)
        if card:
            (aside / "README.md").write_text(card, encoding="utf-8")


def reporter(bar: Bar, curves: Curves | None, stage: str, batch_size: int) -> Callable[[Step], None]:
    """An `on_step` for `fit` that advances `bar` and draws the curves of `stage`, if any."""
    show = show_on(bar, batch_size)

    def report(step: Step) -> None:
        show(step)
        if curves and (step.step % 10 == 0 or step.step == step.steps):
            for name, value in step.losses.items():
                curves.add_scalar(f"{stage}/{name}", value, step.step)
            curves.add_scalar(f"{stage}/samples_per_second", step.samples_per_second, step.step)
            curves.add_scalar(f"{stage}/waiting_for_data", step.waiting, step.step)

    return report


def _autoencoder(run: Run) -> ModelMixin:
    recipe = run.recipe
    if recipe.pretrained_autoencoder:
        return load_autoencoder(recipe.pretrained_autoencoder)
    if (initial := open_initial(recipe.initial_model)) is not None:
        return initial.autoencoder
    config = recipe.autoencoder
    with run.progress("autoencoder", config.loop.steps * config.loop.batch_size, "crops") as bar:
        report = reporter(bar, run.curves, "autoencoder", config.loop.batch_size)
        return train_autoencoder(run.patches, config, run.folder / "autoencoder", report)


def _in_bf16(
    denoiser: Denoiser,
    autoencoder: ModelMixin,
    table: TissueTable,
    copy_limit: float | None,
    mpp: float | None,
) -> HistoloomPipeline:
    scheduler, _ = make_sampler(denoiser.samplers)
    return HistoloomPipeline(
        _copy_in_bf16(autoencoder), _copy_in_bf16(denoiser), scheduler, table.to_rows(), copy_limit, mpp
    )


def _identity(pipeline: HistoloomPipeline) -> tuple:
    """What makes a saved model this one: the same weights may get other names of their types."""
    return pipeline.fingerprint, pipeline.config["tissue"], pipeline.copy_limit, pipeline.mpp


def _copy_in_bf16(part: ModelMixin) -> Any:
    config = {key: value for key, value in cast(Any, part).config.items() if key != "_name_or_path"}  # of this machine
    copy = cast(Any, type(part)).from_config(config)
    copy.load_state_dict(part.state_dict())
    return copy.bfloat16()
