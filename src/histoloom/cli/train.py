"""`histoloom train`: a recipe becomes a model."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe in TOML; see recipes/.")],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/ and the recipe's name.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the slides' download. Default: what the recipe names as root.")
    ] = None,
) -> None:
    """Train the autoencoder, then the denoiser, as a recipe says.

    The same command goes on after a stop, with the same result as if there had been none. Several GPUs or processes:
    `accelerate launch -m histoloom.cli.main train RECIPE`. Watch with `tensorboard --logdir RUN/tensorboard`, or open
    RUN/samples.
    """
    from accelerate import PartialState

    from histoloom.cli.progress import bar
    from histoloom.experiments import read_recipe, run_recipe
    from histoloom.patches.dataset import read_record

    folder = out or Path("runs") / recipe.stem
    model = run_recipe(read_recipe(recipe, data), folder, bar)
    if PartialState().is_main_process:
        for failure in (read_record(folder / "dataset") or {}).get("failures", ()):
            typer.echo(f"skipped: {failure}", err=True)
        typer.echo(f"wrote {model}; weave with: histoloom generate {model} --layouts 16 --out woven")
