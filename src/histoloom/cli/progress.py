"""One progress bar for all long work: rate and time left on stderr, as lines if that is not a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True)
LOG_SECONDS = 30.0  # between two lines of a run without a terminal


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} {self.unit}/s", style="progress.data.speed")


class _Bar:
    """A `histoloom.progress.Bar` that rich draws."""

    def __init__(self, progress: Progress, label: str, total: int | None):
        self._progress, self._task = progress, progress.add_task(label, total=total, note="")
        self._label, self._logged = label, time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as done, and show `note`, if any, at the end of the bar."""
        self._progress.advance(self._task, count)
        if note:
            self._progress.update(self._task, note=note)
        if not console.is_terminal and time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            task = self._progress.tasks[self._task]
            left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
            console.print(
                f"{self._label}: {task.completed:.0f}/{task.total or '?'}{left} {task.fields['note']}", highlight=False
            )


@contextmanager
def bar(label: str, total: int | None, unit: str = "items") -> Iterator[_Bar]:
    """A `histoloom.progress.Progress`: a bar over `total` items of one stage."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Bar(progress, label, total)
