"""CSV files that others have written: lists of slides, manifests of images."""

import csv
import io
from pathlib import Path

from histoloom.disk import read_input
from histoloom.errors import InputError
from histoloom.text import canonical, decode_text, one_line, shorten, tidy

_MOST_BYTES = 256 << 20


def column_named(name: str, columns: list[str], path: Path) -> str:
    """The column of this name, however the file spells it; raises InputError listing the columns that there are."""
    for column in columns:
        if canonical(column) == canonical(name):
            return column
    known = ", ".join(shorten(column, 40) for column in columns if column)
    raise InputError(f"{path}: has no column {name!r}; known: {known or 'none'}")


def read_csv(path: Path, what: str) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Column names, and rows by the line that they end on, as tidy texts; the separator is `,`, `;` or a tab.

    `what` says what the file lists. Raises InputError where it is not readable, or a quote is never closed.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: is larger than {_MOST_BYTES >> 20} MB; give the file that lists the {what}")
        text = decode_text(read_input(path))
        separator = _separator(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        header = [tidy(name) for name in next(reader, [])]
        rows: dict[int, list[str]] = {}
        for row in reader:
            if any(row):
                rows[reader.line_num] = [tidy(value) for value in row]
    except InputError:
        raise
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = one_line(str(getattr(error, "strerror", None) or error), 200)
        raise InputError(f"{path}: cannot be read as CSV ({reason}); give the file that lists the {what}") from None
    for line, row in rows.items():
        if len(row) > len(header) and any(row[len(header) :]):
            raise InputError(f"{path} line {line}: has {len(row)} values for {len(header)} columns; quote the commas")
    return header, {line: dict(zip(header, row + [""] * len(header), strict=False)) for line, row in rows.items()}


def _separator(text: str) -> str:
    """The separator that the header uses most."""
    header = text.partition("\n")[0]
    return max((",", ";", "\t"), key=header.count)
