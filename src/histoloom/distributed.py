"""Apply one callable to many items: in this process, in several processes, or on a Ray cluster.

Results arrive in the order of the items, whichever finishes first, so that the output does not depend on the number
of workers. An item that fails is returned with its error, and the run continues: one broken slide must not cost the
others. Only what is not the fault of an item (a wrong option, a full disk, a missing package) ends the run.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, InputError
from histoloom.outcomes import Item, Outcome, Result, attempt, logged
from histoloom.ray_cluster import run_on_ray
from histoloom.text import one_line

AHEAD = 4  # items submitted per worker: no worker is idle, and memory does not grow with the number of items


@dataclass(frozen=True)
class Workers:
    """Where items are processed: in `count` processes of this machine, or on the Ray cluster at address `ray`.

    `ray` is "auto", "host:port", "ray://host:port", or "local", which starts a cluster on this machine. Its processors
    (or GPUs) are then the workers. Raises ConfigError for a count below 1.
    """

    count: int = 1
    ray: str = ""

    def __post_init__(self):
        check_numbers(self)
        if self.count < 1:
            raise ConfigError(f"{self.count} workers; give at least 1")

    @property
    def alone(self) -> bool:
        """True where this process does all the work."""
        return not self.ray and self.count == 1


ALONE = Workers()


def run_items(
    work: Callable[[Item], Result], items: Iterable[Item], workers: Workers = ALONE
) -> Iterator[Outcome[Item, Result]]:
    """`work(item)` for each item, in order; with more than one worker, `work` and the items must pickle.

    An item whose worker dies (out of memory, or a crash in a native library) is returned with an error. Raises
    ConfigError for an address where no cluster answers, and HistoloomError on Ray when one item has killed three
    workers. An item may be processed twice.
    """
    if workers.ray:
        return run_on_ray(partial(_as_it_is, work), items, workers.ray)
    return run_made(partial(_as_it_is, work), items, workers)


def run_made(
    make: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    workers: Workers = ALONE,
    gpu: bool = False,
) -> Iterator[Outcome[Item, Result]]:
    """As `run_items`, with the callable that `make()` returns: each worker calls `make` once, to load a model.

    With `gpu`, a Ray cluster that has GPUs runs one worker per GPU instead of one per processor.
    """
    if workers.ray:
        yield from run_on_ray(make, items, workers.ray, "GPU" if gpu else "CPU")
    elif workers.count == 1:
        work = make()
        for item in items:
            yield logged(attempt(work, item))
    else:
        yield from _in_processes(make, items, workers.count)


def _as_it_is(work: Callable) -> Callable:
    return work


@dataclass
class _Submitted:
    item: Any
    future: Future | None = None

    def is_done(self) -> bool:
        """True where the worker has finished the item, and has not died over it."""
        return self.future is not None and self.future.done() and not self.future.cancelled() and not self._error()

    def _error(self) -> BaseException | None:
        return self.future.exception() if self.future is not None else None

    def outcome(self) -> Outcome:
        assert self.future is not None
        return self.future.result()


def _in_processes(make: Callable, items: Iterable, count: int) -> Iterator[Outcome]:
    """Process the items in spawned processes; one that dies costs the item that it had, and not the run."""
    left = iter(items)
    is_over = False
    while not is_over:
        waiting: deque[_Submitted] = deque()
        with _pool(count) as pool:
            try:
                for item in left:
                    waiting.append(_Submitted(item))
                    waiting[-1].future = _submit(pool, make, item)
                    if len(waiting) >= AHEAD * count:
                        yield _first(waiting)
                while waiting:
                    yield _first(waiting)
                is_over = True
            except BrokenProcessPool:
                pass
        for one in waiting:  # each in a process of its own: one of them has ended the process of the others
            yield logged(one.outcome() if one.is_done() else _alone(make, one.item))


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes, which end with the block whatever they work on, and with this process however it ends."""
    # Spawned, not forked: handles and threads of C libraries do not survive a fork.
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    with watched, ProcessPoolExecutor(count, context, _end_with, (watched,)) as pool, held:
        yield pool


def _submit(pool: ProcessPoolExecutor, make: Callable, item: object) -> Future:
    """Hand an item to a worker, which may be started for it.

    A terminal sends Ctrl-C to the workers, too, and one that still imports would show a traceback: they are started
    with the signal blocked, which reaches this process a moment later.
    """
    if os.name == "nt":
        return pool.submit(_made_once, make, item)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_made_once, make, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(watched: Connection) -> None:
    """End this worker once the other end of `watched` is closed, by its holder or with it."""

    def wait() -> None:
        watched.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    Thread(target=wait, daemon=True).start()


def _first(waiting: deque[_Submitted]) -> Outcome:
    """The outcome of the item that has waited longest, which is then taken off."""
    outcome = waiting[0].outcome()
    waiting.popleft()
    return logged(outcome)


def _alone(make: Callable, item: Any) -> Outcome:
    with _pool(1) as pool:
        try:
            return _submit(pool, make, item).result()
        except BrokenProcessPool:
            reason = (
                f"{one_line(str(item), 300)}: a worker died over it (out of memory, or a library crashed); "
                "leave it out, or run again with fewer --workers"
            )
            return Outcome(item, None, InputError(reason))


_made: list[Callable] = []  # in a spawned worker: the one callable that it applies


def _made_once(make: Callable, item: object) -> Outcome:
    if not _made:
        _made.append(make())
    return attempt(_made[0], item)
