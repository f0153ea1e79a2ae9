"""Run a recipe from data to a saved model: import, autoencoder, decoder, denoiser, and a watcher.

    RUN/
      record.json            what must not change when the run is resumed
      recipe.toml            resolved copy
      tissue.toml            the types of the patches, as the run began
      dataset/               if the recipe names pictures or slides
      outlined/              if the recipe asks for lumens: the patches with lumens in their maps
      autoencoder/ decoder/ denoiser/  checkpoints; latents of the training views
      segmenter/             if the recipe watches with one: reads maps off images
      samples/000400.png     the same maps and crops, woven at each checkpoint
      tensorboard/           losses, rates, map fidelity
      copy-limit.json        how similar unrelated crops and patches are
      model/                 the finished pipeline with its card

Every stage resumes from its checkpoint, so the same command continues a run that was killed.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from diffusers.models.modeling_utils import ModelMixin

from histoloom.conditioning.kinds import CONDITIONINGS
from histoloom.conditioning.likeness import copy_limit
from histoloom.errors import ConfigError, OutputError
from histoloom.experiments.check import check_recipe
from histoloom.experiments.context import Run, record_of
from histoloom.experiments.curves import Curves
from histoloom.experiments.data import hidden_types, open_dataset, open_levels, open_split
from histoloom.experiments.model_card import model_card
from histoloom.experiments.recipe import Recipe, save_recipe
from histoloom.experiments.stages import (
    describe_decoding,
    open_autoencoder,
    open_guide,
    open_initial,
    reporter,
    save_model,
)
from histoloom.experiments.watch import SAMPLES, Watcher
from histoloom.files import run_folder, write_text
from histoloom.fitting.checkpoint import steps_done
from histoloom.fitting.processes import process_state
from histoloom.fitting.results import cached_result
from histoloom.fitting.stop import FINISH
from histoloom.models.denoiser import Denoiser
from histoloom.patches.store import SCALE_TOLERANCE, common_mpp, read_table
from histoloom.progress import Progress, silent
from histoloom.tissue import TissueTable
from histoloom.training.autoencoder import AutoencoderTraining
from histoloom.training.denoiser import train_denoiser, without_hidden
from histoloom.training.start import describe_match, match_types

TYPES = "tissue.toml"  # of a run


def run_recipe(
    recipe: Recipe,
    folder: Path | str,
    progress: Progress = silent,
    finish: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train what the recipe says in `folder`, and return the folder of the finished model.

    Call it again to resume. With `finish`, every stage ends with the weights of its last checkpoint, or after one
    step; without it, a run that was finished early continues. With several processes (`accelerate launch`), all of them
    call it; the main one writes and shows progress. `say` is given each line on what `initial_model` contributes.
    Raises ConfigError, InputError or ModelError for a recipe that cannot work, before any work, and OutputError where
    `folder` belongs to another run.
    """
    folder, state = Path(folder), process_state()
    if recipe.distillation is not None:
        raise ConfigError("the recipe has a table [distillation]; use `histoloom distill`, or leave the table out")
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(run_folder(folder, record_of(recipe, "train")))
            asked_to_finish(folder, finish)
            if not finish:
                _clear_overtaken(recipe, folder)
        run, dataset = open_run(recipe, folder, progress)
        if state.is_main_process:
            write_settings(run)
            _say_start(run, say)
            _say_absent(run, say)
        if run.curves is not None:
            stack.enter_context(run.curves)
        autoencoder = open_autoencoder(run)
        if state.is_main_process and (line := describe_decoding(recipe, autoencoder, run.patches)):
            say(line)
        watcher = Watcher(run, autoencoder) if state.is_main_process else None
        state.wait_for_everyone()
        denoiser = _train_denoiser(run, autoencoder, watcher)
        if state.is_main_process:
            limit = _copy_limit(run)
            card = model_card(run, denoiser, dataset, limit)
            mpp = common_mpp(run.patches.mpp)
            made = replace(record_of(recipe, "train"), inputs={"patches": run.patches.fingerprint()})
            save_model(denoiser, autoencoder, run.table, folder / "model", limit, card, mpp, made)
    return folder / "model"


def asked_to_finish(folder: Path, finish: bool) -> None:
    """Ask the stages of the run in `folder` to finish, or take that wish back."""
    if not finish:
        (folder / FINISH).unlink(missing_ok=True)
    elif not (folder / FINISH).exists():
        write_text(folder / FINISH, "")


def _clear_overtaken(recipe: Recipe, folder: Path) -> None:
    """Remove the one step that decoder and denoiser took when a run was finished while its autoencoder still learned.

    Raises OutputError where they learned more than that on an autoencoder that is to be trained further.
    """
    done, steps = steps_done(folder / "autoencoder"), recipe.autoencoder.loop.steps
    if not 0 < done < steps:
        return
    for stage in ("decoder", "denoiser"):
        if (later := steps_done(folder / stage)) > 1:
            raise OutputError(
                f"{folder}: its autoencoder has {done} of {steps} steps, and its {stage} learned {later} steps on it, "
                "which would be lost; name another folder"
            )
    for stage in ("decoder", "denoiser"):
        shutil.rmtree(folder / stage, ignore_errors=True)
    shutil.rmtree(folder / SAMPLES, ignore_errors=True)  # of that one step


def open_run(recipe: Recipe, folder: Path, progress: Progress) -> tuple[Run, Path]:
    """Check the recipe and open its data; returns the run and the folder of its dataset."""
    state, check = process_state(), _check_of(recipe)
    with state.main_process_first():
        dataset = open_dataset(recipe.data, folder, check, progress)
    table, patches = read_table(dataset), open_split(dataset, recipe.data.split)
    check(min(patches.images.shape[1:3]), table)
    _check_types(table, folder, dataset)
    run = Run(
        recipe=recipe,
        folder=folder,
        table=table,
        patches=patches,
        levels=open_levels(recipe.denoiser, dataset, table),
        hidden=hidden_types(recipe.denoiser, table),
        progress=progress,
        curves=Curves(folder / "tensorboard") if state.is_main_process else None,
    )
    return run, dataset


def write_settings(run: Run) -> None:
    """Write the resolved recipe into the folder of a run, and once, at its start, the tissue table."""
    save_recipe(run.recipe, run.folder)
    if not (run.folder / TYPES).is_file():
        write_text(run.folder / TYPES, run.table.to_toml())


def types_at_start(folder: Path) -> TissueTable | None:
    """The tissue table of the patches that the run in `folder` has begun with; None for a new run."""
    return TissueTable.load(folder / TYPES) if (folder / TYPES).is_file() else None


def _check_types(table: TissueTable, folder: Path, dataset: Path) -> None:
    """Raise OutputError where the run in `folder` has begun with another id for a type of the dataset."""
    began = types_at_start(folder)
    if began is not None and (moved := table.moved(zip(began.names, began.ids, strict=True))):
        name, id, here = moved
        raise OutputError(
            f"{folder}: has begun with id {id} for {name!r}, which is {here} in the tissue.toml of {dataset}; restore "
            "that file, or name another folder"
        )


def _check_of(recipe: Recipe) -> Callable[[int, TissueTable], None]:
    """The check of a recipe, with the models that it names."""
    return partial(check_recipe, recipe, initial=open_initial(recipe.initial_model), guide=open_guide(recipe.denoiser))


def _say_start(run: Run, say: Callable[[str], None]) -> None:
    """Say which tables have no effect, which types the initial model knows, and whether its scale is that of the
    patches."""
    name, initial = run.recipe.initial_model, open_initial(run.recipe.initial_model)
    given = run.recipe.pretrained_autoencoder or name
    if given and run.recipe.autoencoder != AutoencoderTraining():
        say(f"{given}: its autoencoder is used as it is; the table [autoencoder] has no effect")
    if initial is None:
        return
    say(f"{name}: tissue types {describe_match(run.table, initial.table)}")
    mine = common_mpp(run.patches.mpp)
    if initial.mpp is None:
        say(f"{name}: its scale is unknown; compare the size of nuclei in its patches and in yours")
    elif mine is None:
        say(f"{name}: was trained at {initial.mpp:.3g} um/px; the scale of these patches is unknown or mixed")
    elif abs(mine / initial.mpp - 1) > SCALE_TOLERANCE:
        say(f"{name}: was trained at {initial.mpp:.3g} um/px; these patches have {mine:.3g} um/px")


def _say_absent(run: Run, say: Callable[[str], None]) -> None:
    """Say which types no patch shows."""
    counts = [np.bincount(semantic_map.ravel(), minlength=256) for semantic_map in run.patches.semantic_maps]
    shown = np.sum(counts, axis=0)
    if absent := [tissue.name for tissue in run.table.types if not shown[tissue.id]]:
        say(f"no patch to train on shows {', '.join(absent)}: the model learns nothing about it")


def _train_denoiser(run: Run, autoencoder: ModelMixin, watcher: Watcher | None) -> Denoiser:
    config, initial = run.recipe.denoiser, open_initial(run.recipe.initial_model)
    guide = open_guide(config)
    with (
        run.progress("latents", len(run.patches), "patches") as caching,
        run.progress("denoiser", config.loop.steps * config.loop.batch_size, "patches") as bar,
    ):
        return train_denoiser(
            run.patches,
            run.table.num_ids,
            autoencoder,
            config,
            run.folder / "denoiser",
            caching=caching,
            on_step=reporter(bar, run.curves, "denoiser", config.loop.batch_size),
            on_checkpoint=watcher,
            initial=initial.denoiser if initial is not None else None,
            match=match_types(run.table, initial.table) if initial is not None else None,
            guide=(guide.denoiser, match_types(run.table, guide.table)) if guide is not None else None,
            levels=run.levels,
            hidden=run.hidden,
        )


def _copy_limit(run: Run) -> float | None:
    """How similar crops and what is woven from them may be; None for crops in place, which are copied on purpose."""
    recipe = run.recipe
    if not CONDITIONINGS[recipe.denoiser.conditioning].attends:
        return None

    def measure() -> dict:
        with run.progress("copy limit", recipe.copy_limit.pairs, "pairs") as bar:
            # Crops of lumens are white, and as alike as copies.
            patches = without_hidden(run.patches, run.hidden)
            return {"limit": copy_limit(patches, recipe.copy_limit, recipe.denoiser.crops, bar)}

    key = run.key("copy limit", str(recipe.copy_limit), str(recipe.denoiser.crops), run.hidden)
    return cached_result(run.folder / "copy-limit.json", key, measure)["limit"]
