"""Notes of a command: lines for the user to read, apart from what the command gives."""

from collections.abc import Iterable

import typer

from histoloom.text import printable


def echo_notes(notes: Iterable[str]) -> None:
    """Write each line to stderr, once."""
    for note in dict.fromkeys(notes):
        typer.echo(printable(note), err=True)
