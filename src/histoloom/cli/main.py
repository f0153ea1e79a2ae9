"""The command line: parse, call, print. Every command imports what it needs when it runs, so that help is instant."""

import sys

import typer

from histoloom.cli import patches, train, weave
from histoloom.errors import HistoloomError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


def run() -> None:
    """Run a command; an error we raise on purpose is one line and exit code 1, `--debug` shows where it came from."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except HistoloomError as error:
        if debug:
            raise
        typer.echo(f"histoloom: {' '.join(str(error).split())}", err=True)
        raise SystemExit(1) from None


app.command("demo")(weave.demo)
app.command("import")(patches.import_folder)
app.command("train")(train.train)
app.command("generate")(weave.generate)
app.command("bank")(weave.bank)

if __name__ == "__main__":
    run()
