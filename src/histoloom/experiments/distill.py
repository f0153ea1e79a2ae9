"""Distill a trained model into one that weaves in a few steps.

    RUN/
      record.json            what must not change when the run is resumed
      recipe.toml            resolved copy
      tissue.toml            the types of the patches, as the run began
      dataset/               if the recipe names pictures or slides
      outlined/              if the recipe asks for lumens: the patches with lumens in their maps
      student/               checkpoints; latents of the training views
      samples/000400.png     the same maps and crops, woven at each checkpoint
      tensorboard/           losses, rates, map fidelity
      model/                 the finished pipeline with its card and the teacher's crop bank

The recipe is one of `histoloom train` with `initial_model`, the teacher, and a table `[distillation]`.
"""

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from histoloom.errors import ConfigError
from histoloom.experiments.context import record_of
from histoloom.experiments.model_card import model_card
from histoloom.experiments.recipe import Recipe
from histoloom.experiments.run import asked_to_finish, open_run, write_settings
from histoloom.experiments.stages import open_initial, reporter, save_model
from histoloom.experiments.watch import Watcher
from histoloom.files import run_folder, whole_folder
from histoloom.fitting.processes import process_state
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.progress import Progress, silent
from histoloom.training.distillation import Distillation, train_student, windows_of
from histoloom.training.teacher import check_teacher

BANK = "crops"  # folder of the crop bank in a model


def distill_recipe(recipe: Recipe, folder: Path | str, progress: Progress = silent, finish: bool = False) -> Path:
    """Train the student that the recipe asks for in `folder`, and return the folder of the finished model.

    Call it again to resume; `finish` ends the run with the weights of its last checkpoint. With several processes
    (`accelerate launch`), all of them call it. Raises ConfigError, InputError or ModelError for a recipe that cannot
    work, before any work, and OutputError where `folder` belongs to another run.
    """
    folder, state = Path(folder), process_state()
    teacher, config = _teacher(recipe)
    recipe = replace(recipe, denoiser=windows_of(recipe.denoiser, teacher.denoiser))
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(run_folder(folder, record_of(recipe, "distill")))
            asked_to_finish(folder, finish)
        run, dataset = open_run(recipe, folder, progress)
        if state.is_main_process:
            write_settings(run)
        if run.curves is not None:
            stack.enter_context(run.curves)
        watcher = Watcher(run, teacher.autoencoder) if state.is_main_process else None
        state.wait_for_everyone()
        loop = config.loop
        with (
            progress("latents", len(run.patches), "patches") as caching,
            progress("student", loop.steps * loop.batch_size, "patches") as bar,
        ):
            student = train_student(
                run.patches,
                teacher.denoiser,
                teacher.autoencoder,
                config,
                recipe.denoiser,
                folder / "student",
                caching=caching,
                on_step=reporter(bar, run.curves, "student", loop.batch_size),
                on_checkpoint=watcher,
                hidden=run.hidden,
            )
        if state.is_main_process:
            card = model_card(run, student, dataset, teacher.copy_limit)
            model, autoencoder = folder / "model", teacher.autoencoder
            save_model(student, autoencoder, teacher.table, model, teacher.copy_limit, card, teacher.mpp)
            _lend_bank(Path(teacher.name_or_path), model)
    return folder / "model"


def _teacher(recipe: Recipe) -> tuple[HistoloomPipeline, Distillation]:
    teacher = open_initial(recipe.initial_model)
    if recipe.distillation is None:
        raise ConfigError("the recipe has no table [distillation]; add one, or use `histoloom train`")
    if teacher is None:
        raise ConfigError("a distillation needs a teacher; name a trained model as initial_model")
    for name in ("guide", "curriculum"):
        if getattr(recipe.denoiser, name) is not None:
            raise ConfigError(
                f"denoiser {name} has no effect in a distillation; train the teacher with it, and leave it out"
            )
    check_teacher(teacher.denoiser, recipe.distillation)
    recipe.distillation.resolve(Sampling(steps=recipe.watch.steps))  # the watcher weaves with the student
    return teacher, recipe.distillation


def _lend_bank(teacher: Path, model: Path) -> None:
    """Copy the crop bank of the teacher, if it has one, into a model that has none."""
    if (teacher / BANK).is_dir() and not (model / BANK).is_dir():
        with whole_folder(model / BANK) as aside:
            shutil.copytree(teacher / BANK, aside, dirs_exist_ok=True)
