"""`histoloom train` and `histoloom distill` make a model of a recipe, `histoloom reproduce` the paper's tables."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a name from `histoloom recipes`.")],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/NAME for the recipe NAME.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the data. Default: the recipe's root, else its own folder.")
    ] = None,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="End the run now with a usable model. The command without this option continues the run."
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Measure a few steps of each stage, print what the rest of the run costs, and train nothing."
        ),
    ] = False,
) -> None:
    """Train a model: the autoencoder, its decoder, then the denoiser, as the recipe says.

    Repeat the command to resume: the result is that of an uninterrupted run. For several GPUs or processes, use
    `accelerate launch -m histoloom train RECIPE`. To watch, run `tensorboard --logdir RUN/tensorboard`, or open
    RUN/samples.
    """
    if plan:
        if finish:
            from histoloom.errors import ConfigError

            raise ConfigError("give --plan or --finish, not both")
        _plan(recipe, out, data)
        return
    from histoloom.experiments.run import run_recipe

    _learn("train", partial(run_recipe, say=partial(typer.echo, err=True)), recipe, out, data, finish)


def _plan(recipe: str, out: Path | None, data: Path | None) -> None:
    """Print what training a recipe costs from here on."""
    from histoloom.cli.progress import bar
    from histoloom.experiments.plan import describe, plan_recipe
    from histoloom.experiments.recipe import read_recipe
    from histoloom.recipes import find_recipe

    path = find_recipe(recipe)
    with bar("measuring", None, "steps") as running:
        plan = plan_recipe(read_recipe(path, data), out or Path("runs") / path.stem, running)
    typer.echo(describe(plan))


def distill(
    recipe: Annotated[
        str, typer.Argument(help="A TOML file, or a name from `histoloom recipes`; initial_model is the teacher.")
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/ and the recipe's name.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the data. Default: the recipe's root, else its own folder.")
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the run now, with a usable model. Without it, the run continues.")
    ] = False,
) -> None:
    """Distill a trained model into one that weaves in 1 to 8 steps, with one prediction each.

    The recipe names the teacher as initial_model, and has a table [distillation]. Repeat the command to resume. For
    several GPUs or processes, use `accelerate launch -m histoloom distill RECIPE`. The finished model takes guidance
    within the range that it was distilled for.
    """
    from histoloom.experiments.distill import distill_recipe

    _learn("distill", distill_recipe, recipe, out, data, finish)


def _learn(
    command: str, run: Callable[..., Path], recipe: str, out: Path | None, data: Path | None, finish: bool
) -> None:
    """Run a recipe, and say where its model is."""
    from accelerate import PartialState

    from histoloom.cli.progress import bar
    from histoloom.experiments.recipe import read_recipe
    from histoloom.fitting.processes import decided_by_main
    from histoloom.recipes import find_recipe

    path = find_recipe(recipe)
    folder, read = out or Path("runs") / path.stem, read_recipe(path, data)
    if finish and decided_by_main(lambda: _asks_running(folder, command)):
        return
    model = run(read, folder, bar, finish)
    if PartialState().is_main_process:
        _say_left_out(folder)
        typer.echo(f"wrote {model}; weave with: histoloom generate {model} --layouts 16 --out woven")


def _asks_running(folder: Path, command: str) -> bool:
    """Ask the process that writes a run folder to finish; False where there is none.

    Raises LockedError where that process runs another command than `command`.
    """
    from histoloom.errors import LockedError
    from histoloom.files import check_writable, read_record, write_text
    from histoloom.fitting.stop import FINISH

    try:
        check_writable(folder)
        return False
    except LockedError:
        if (read_record(folder) or {}).get("command", command) != command:
            raise
        write_text(folder / FINISH, "")
        typer.echo(f"asked the running process to finish; it writes {folder / 'model'} after its next step")
        return True


def _say_left_out(folder: Path) -> None:
    """Print the notes of the dataset that a run made, and what it skipped."""
    from histoloom.cli.notes import echo_notes
    from histoloom.experiments.data import OUTLINED
    from histoloom.patches.dataset import read_description

    made = read_description(folder / OUTLINED) or read_description(folder / "dataset") or {}
    echo_notes([*made.get("notes", ()), *(f"skipped: {failure}" for failure in made.get("failures", ()))])


def reproduce(
    recipe: Annotated[
        str, typer.Argument(help="A TOML file, or a name from `histoloom recipes`; its [reproduce] sets the budget.")
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/NAME-tables for the recipe NAME.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the data. Default: the recipe's root, else its own folder.")
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Encoders instead of the recipe's; repeatable. See `histoloom evaluate`.")
    ] = None,
) -> None:
    """Train every conditioning at one equal budget, weave equal sets, and print the paper's tables at this size.

    The tables show the distance per encoder and conditioning, downstream IoU per training set, precision and recall,
    copy rates and map fidelity, each with its floor of real against real. Repeat the command to resume. The contact
    sheet and the run folder contain real patches.
    """
    from dataclasses import replace

    from accelerate import PartialState

    from histoloom.cli.progress import bar
    from histoloom.experiments.recipe import read_recipe
    from histoloom.experiments.reproduce import reproduce as run
    from histoloom.recipes import find_recipe

    path = find_recipe(recipe)
    folder = out or Path("runs") / f"{path.stem}-tables"
    read = read_recipe(path, data)
    if encoder:
        read = replace(read, reproduce=replace(read.reproduce, encoders=tuple(encoder)))
    run(read, folder, bar)
    if PartialState().is_main_process:
        _say_left_out(folder)
        typer.echo((folder / "tables.md").read_text(encoding="utf-8"))
        typer.echo(f"wrote {folder / 'reproduce.json'}, {folder / 'tables.md'} and {folder / 'sheet.png'}")
