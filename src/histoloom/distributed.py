"""Run one callable over many items, in this process or in several; it knows no stage.

Results come in the order of the items, whatever finishes first, so that what is made of them does not depend on the
number of workers. An item that is broken (InputError) is handed back with its error, and the run goes on.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from histoloom.errors import ConfigError, HistoloomError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items handed out per worker, so that none waits and memory does not grow with the number of items


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """An item with its result, or with the error that says why there is none."""

    item: Item
    result: Result | None
    error: InputError | None


def run_items(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Iterator[Outcome[Item, Result]]:
    """`work(item)` for each item; with more than one worker, `work` and the items must pickle.

    Raises ConfigError for a number of workers below 1, and HistoloomError when a worker dies (out of memory).
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers; give at least 1")
    if workers == 1:
        for item in items:
            yield _attempt(work, item)
        return
    # Spawned, not forked: handles and threads of C libraries do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from _in_order(pool, work, items, AHEAD * workers)
        except BrokenProcessPool:
            raise HistoloomError("a worker died, most likely out of memory; run again with fewer --workers") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, work: Callable, items: Iterable, ahead: int) -> Iterator[Outcome]:
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(_attempt, work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _attempt(work: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    try:
        return Outcome(item, work(item), None)
    except InputError as error:
        return Outcome(item, None, error)
