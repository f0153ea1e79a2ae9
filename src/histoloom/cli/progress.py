"""One progress bar for all long work: rate and time left, on stderr, silent where stderr is not a terminal."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")
console = Console(stderr=True)
LOG_SECONDS = 30.0  # how often a run without a terminal writes a line


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} {self.unit}/s", style="progress.data.speed")


class Bar:
    """A running bar: `advance()` after each item, `note()` for figures worth watching, such as the loss."""

    def __init__(self, progress: Progress, label: str, total: int | None):
        self._progress, self._task = progress, progress.add_task(label, total=total, note="")
        self._label, self._logged = label, time.monotonic()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count `count` more items done, and show `note` at the end of the bar."""
        fields = {} if note is None else {"note": note}
        self._progress.update(self._task, advance=count, **fields)
        if not console.is_terminal and time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            task = self._progress.tasks[self._task]
            left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
            console.print(
                f"{self._label}: {task.completed:.0f}/{task.total or '?'}{left} {task.fields['note']}", highlight=False
            )


@contextmanager
def bar(label: str, total: int | None, unit: str = "it", done: int = 0) -> Iterator[Bar]:
    """A progress bar over `total` items, of which `done` are done already."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        running = Bar(progress, label, total)
        if done:
            progress.update(running._task, completed=done)
        yield running


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate over `items` under a progress bar."""
    with bar(label, total if total is not None else len(items), unit) as running:
        for item in items:
            yield item
            running.advance()
