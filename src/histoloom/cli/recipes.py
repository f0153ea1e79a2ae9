"""`histoloom recipes`: the recipes that come with the package."""

from pathlib import Path
from typing import Annotated

import typer


def recipes(
    copy: Annotated[str | None, typer.Option(help="Recipe to copy, with its tissue table.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the copy.")] = Path(),
) -> None:
    """List the recipes of the package, or copy one to edit.

    `histoloom train NAME --data DIR` uses a recipe as it is.
    """
    from histoloom.recipes import copy_recipe, describe, recipe_names

    if copy is None:
        width = max(map(len, recipe_names()))
        for name in recipe_names():
            typer.echo(f"{name:{width}}  {describe(name)}")
        return
    for path in copy_recipe(copy, out):
        typer.echo(f"wrote {path}")
