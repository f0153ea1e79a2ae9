"""Run one callable over many items: in this process, in several, or on a Ray cluster; it knows no stage.

Results come in the order of the items, whatever finishes first, so that what is made of them does not depend on the
number of workers. An item that is broken (InputError) is handed back with its error, and the run goes on.
"""

import multiprocessing
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from histoloom.errors import ConfigError, HistoloomError, InputError, MissingExtraError

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
    work: Callable[[Item], Result], items: Iterable[Item], workers: int = 1, ray: str = ""
) -> Iterator[Outcome[Item, Result]]:
    """`work(item)` for each item; with more than one worker, `work` and the items must pickle.

    `ray` is the address of a Ray cluster ("auto", "ray://host:10001"; "local" starts one here), whose processors are
    then the workers. Raises ConfigError for a number of workers below 1 or an address where nothing answers, and
    HistoloomError when a worker dies (out of memory).
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers; give at least 1")
    if ray:
        yield from _on_ray(work, items, ray)
    elif workers == 1:
        for item in items:
            yield _attempt(work, item)
    else:
        yield from _in_processes(work, items, workers)


def _in_processes(work: Callable, items: Iterable, workers: int) -> Iterator[Outcome]:
    # Spawned, not forked: handles and threads of C libraries do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from _in_order(lambda item: pool.submit(_attempt, work, item), Future.result, items, AHEAD * workers)
        except BrokenProcessPool:
            raise HistoloomError("a worker died, most likely out of memory; run again with fewer --workers") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(work: Callable, items: Iterable, address: str) -> Iterator[Outcome]:
    """One task per item. Ray repeats a task whose machine was lost, so `work` must bear to be done twice."""
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    joined = ray.is_initialized()
    try:
        if not joined:
            _check_reachable(address)
            ray.init(address, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray has no class of its own for this, and raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one with `ray start --head` and give `auto`, "
            "or give `local`"
        ) from None
    try:
        task, shared = ray.remote(_attempt), ray.put(work)
        ahead = AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        yield from _in_order(lambda item: task.remote(shared, item), ray.get, items, ahead)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # what went wrong in the task, as if it had run here
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise HistoloomError(f"a Ray worker died ({reason}); look at `ray status`, then run again") from None
    finally:
        if not joined:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError at once where nothing listens; Ray itself tries for minutes."""
    if address not in ("local", "auto"):
        place = urlsplit(address if "://" in address else f"ray://{address}")
        if not place.hostname or not place.port:
            raise ValueError("an address is auto, local, host:port or ray://host:port")
        socket.create_connection((place.hostname, place.port), timeout=10).close()


def _in_order(submit: Callable, result: Callable, items: Iterable, ahead: int) -> Iterator[Outcome]:
    waiting: deque = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) >= ahead:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _attempt(work: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    try:
        return Outcome(item, work(item), None)
    except InputError as error:
        return Outcome(item, None, error)
