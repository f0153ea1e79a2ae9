"""The command line: parse, call, print. Every command imports what it needs when it runs, so that help is instant."""

import errno
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from histoloom.cli import (
    bank,
    canvas,
    discover,
    discover_maps,
    evaluate,
    export,
    patches,
    recipes,
    slides,
    studio,
    study,
    train,
    weave,
)
from histoloom.errors import HistoloomError, Interrupted, MissingExtraError
from histoloom.version import VERSION

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
EXTRAS = {
    "train": {"accelerate", "tensorboard"},
    "slides": {"defusedxml", "openslide", "scipy", "shapely", "tifffile"},
    "evaluate": {"matplotlib", "segmentation_models_pytorch", "sklearn", "timm"},
    "discover": {"faiss"},
    "studio": {"krippendorff", "starlette", "statsmodels", "uvicorn"},
}  # packages that are loaded only where they are needed

HELP = {"help_option_names": ["-h", "--help"]}
EPILOG = "`--debug`, anywhere on the line, shows the traceback of an error."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings=HELP,
    epilog="Exit codes: 0 done; 1 error, explained in one line; 2 wrong usage; 3 done, but some items were skipped; "
    "130 or 143 stopped by Ctrl-C or SIGTERM: the same command resumes.",
)
discovery = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Discover tissue types in slides without annotations, step by step.",
    epilog=EPILOG,
)
studies = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Let readers judge blind whether they can tell synthetic images from real ones.",
    epilog=EPILOG,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"histoloom {VERSION}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; allowed anywhere on the line.")
    ] = False,
) -> None:
    """Weave annotated synthetic H&E tissue."""


class _Stopped(BaseException):
    """A signal, which nothing on the way up takes for an error of its own (typer turns KeyboardInterrupt into one)."""

    def __init__(self, number: int):
        self.number = number


def run() -> None:
    """Run a command. A HistoloomError prints one line and exits with 1; `--debug` shows its traceback instead.

    Ctrl-C and SIGTERM print one line, too, and exit with 130 and 143.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if debug:  # also the tracebacks of items that were skipped
        logging.getLogger("histoloom").addHandler(logging.StreamHandler())
        logging.getLogger("histoloom").setLevel(logging.DEBUG)
    _on_signals(_stop)
    try:
        return _call(arguments)
    except _Stopped as stopped:
        name = "Ctrl-C" if stopped.number == signal.SIGINT else signal.Signals(stopped.number).name
        reason, code = f"stopped by {name}; the same command resumes", 128 + stopped.number
    except Interrupted as stopped:
        reason, code = str(stopped), stopped.code
    except HistoloomError as error:
        if debug:
            raise
        reason, code = str(error), 1
    except OSError as error:
        if debug or error.errno not in FULL:
            raise
        reason = f"{error.filename or 'output'}: {error.strerror}; free some space and give the same command again"
        code = 1
    finally:
        _on_signals(signal.SIG_DFL)  # nothing below would turn one more into a line
    # Not above: while an error is handled, it keeps alive all that it went through, such as workers.
    typer.echo(f"histoloom: {' '.join(reason.split())}", err=True)
    raise SystemExit(code)


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def _call(arguments: list[str]) -> None:
    try:
        app(arguments)
    except ModuleNotFoundError as error:
        package = error.name or ""
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        raise MissingExtraError(package, extra) from error


COMMANDS = {
    app: {
        "demo": weave.demo,
        "import": patches.import_folder,
        "patches": slides.patches,
        "lumens": patches.lumens,
        "overlay": slides.overlay,
        "recipes": recipes.recipes,
        "train": train.train,
        "distill": train.distill,
        "generate": weave.generate,
        "bank": bank.bank,
        "export": export.export,
        "canvas": canvas.canvas,
        "inpaint": canvas.inpaint,
        "pairs": canvas.pairs,
        "studio": studio.studio,
        "evaluate": evaluate.evaluate,
        "reproduce": train.reproduce,
        "downstream": evaluate.downstream,
        "train-encoder": evaluate.train_encoder,
        "train-judge": evaluate.train_judge,
    },
    discovery: {
        "embed": discover.embed,
        "choose": discover.choose,
        "cluster": discover.cluster,
        "classify": discover_maps.classify,
        "maps": discover_maps.maps,
        "look": discover_maps.look,
        "plan": discover.plan,
    },
    studies: {
        "size": study.size,
        "create": study.create,
        "serve": study.serve,
        "report": study.report,
    },
}
for group, commands in COMMANDS.items():
    for name, function in commands.items():
        group.command(name, epilog=EPILOG)(function)
app.add_typer(discovery, name="discover")
app.add_typer(studies, name="study")

if __name__ == "__main__":
    run()
