"""What became of an item of work: its result, or the error that explains why it has none."""

import errno
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, TypeVar

from histoloom.errors import HistoloomError, InputError
from histoloom.text import one_line

Item = TypeVar("Item")
Result = TypeVar("Result")
_NOT_ITS_FAULT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
logger = logging.getLogger("histoloom")


class UnexpectedError(InputError):
    """An error that was not foreseen and that one item has caused; `details` is its traceback."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """An item with its result, or with the error that explains why it has none."""

    item: Item
    result: Result | None
    error: InputError | None

    def failure(self) -> str:
        """The error in one line that names the item."""
        line = " ".join(str(self.error).split())
        return line if PurePath(str(self.item)).name in line else f"{self.item}: {line}"


def attempt(work: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    """The outcome of `work(item)`; raises only what is not the fault of the item."""
    try:
        return Outcome(item, work(item), None)
    except InputError as error:
        return Outcome(item, None, error)
    except HistoloomError:
        raise
    except Exception as error:
        if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno in _NOT_ITS_FAULT):
            raise
        reason = one_line(str(error), 300)
        message = (
            f"{one_line(str(item), 300)}: unexpected {type(error).__name__}{f' ({reason})' if reason else ''}; --debug "
            "shows where it came from"
        )
        return Outcome(item, None, UnexpectedError(message, traceback.format_exc()))


def logged(outcome: Outcome[Item, Result]) -> Outcome[Item, Result]:
    """The outcome; the traceback of an unexpected error goes to the log, which `--debug` shows."""
    if isinstance(outcome.error, UnexpectedError):
        logger.debug("%s\n%s", outcome.error, outcome.error.details)
    return outcome
