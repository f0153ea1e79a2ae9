"""How long work reports what is done: two protocols, and what ignores both.

A function with one stage takes a `Bar`; a function with several stages takes a `Progress`, which opens a bar for each.
The command line draws them; from Python, leave them out, or pass your own.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


@runtime_checkable
class Bar(Protocol):
    """Counts the items of one stage."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as done; `note` is a figure worth watching, such as the loss."""
        ...


@runtime_checkable
class Progress(Protocol):
    """Opens bars."""

    def __call__(self, label: str, total: int | None, unit: str = "items") -> AbstractContextManager[Bar]:
        """A bar for a stage of `total` items (None: unknown), open while the block runs."""
        ...


class _Silent:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


SILENT: Bar = _Silent()


def silent(label: str, total: int | None, unit: str = "items") -> AbstractContextManager[Bar]:
    """A `Progress` that shows nothing."""
    return nullcontext(SILENT)
