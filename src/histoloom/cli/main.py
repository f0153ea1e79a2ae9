"""The command line: parse, call, print. Every command imports what it needs when it runs, so that help is instant."""

import errno
import sys
from typing import NoReturn

import typer

from histoloom.cli import discover, discover_maps, evaluate, patches, slides, train, weave
from histoloom.errors import HistoloomError, MissingExtraError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
EXTRAS = {
    "slides": {"defusedxml", "openslide", "scipy", "shapely", "tifffile"},
    "evaluate": {"matplotlib", "segmentation_models_pytorch", "sklearn", "timm"},
    "discover": {"faiss"},
}  # packages that are loaded only where they are needed

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
found = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Find tissue types in slides without annotations, in steps.",
)


def run() -> None:
    """Run a command; an error we raise on purpose is one line and exit code 1, `--debug` shows where it came from."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _call(arguments)
    except HistoloomError as error:
        if debug:
            raise
        _give_up(str(error))
    except OSError as error:
        if debug or error.errno not in FULL:
            raise
        _give_up(f"{error.filename or 'output'}: {error.strerror}; free some space and give the same command again")


def _give_up(reason: str) -> NoReturn:
    typer.echo(f"histoloom: {' '.join(reason.split())}", err=True)
    raise SystemExit(1)


def _call(arguments: list[str]) -> None:
    try:
        app(arguments)
    except ModuleNotFoundError as error:
        extra = next((extra for extra, packages in EXTRAS.items() if error.name in packages), None)
        if extra is None:
            raise
        raise MissingExtraError(error.name, extra) from error


app.command("demo")(weave.demo)
app.command("import")(patches.import_folder)
app.command("patches")(slides.patches)
app.command("overlay")(slides.overlay)
app.command("train")(train.train)
app.command("generate")(weave.generate)
app.command("bank")(weave.bank)
app.command("evaluate")(evaluate.evaluate)
app.command("reproduce")(train.reproduce)
app.command("downstream")(evaluate.downstream)
app.command("train-encoder")(evaluate.train_encoder)
app.add_typer(found, name="discover")
found.command("embed")(discover.embed)
found.command("choose")(discover.choose)
found.command("cluster")(discover.cluster)
found.command("classify")(discover_maps.classify)
found.command("maps")(discover_maps.maps)
found.command("look")(discover_maps.look)
found.command("plan")(discover.plan)

if __name__ == "__main__":
    run()
