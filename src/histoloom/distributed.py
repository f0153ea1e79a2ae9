"""Run one callable over many items: in this process, in several, or on a Ray cluster; it knows no stage.

Results come in the order of the items, whatever finishes first, so that what is made of them does not depend on the
number of workers. An item that is broken (InputError) is handed back with its error, and the run goes on.
"""

import logging
import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from histoloom.errors import ConfigError, HistoloomError, InputError, MissingExtraError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items handed out per worker, so that none waits and memory does not grow with the number of items
TRIES = 3  # times that an item may lose its Ray worker: the first may be chance, the third is the item
BLOCKS = 4096  # most blocks of items on Ray: each costs about 10 ms, and results arrive block by block


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
    HistoloomError when a worker dies (out of memory); on Ray, when one item has lost three workers. Work that was
    begun may be done twice.
    """
    if ray:
        return _on_ray(partial(_as_it_is, work), items, ray)
    return run_made(partial(_as_it_is, work), items, workers)


def run_made(
    make: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    workers: int = 1,
    ray: str = "",
    gpu: bool = False,
) -> Iterator[Outcome[Item, Result]]:
    """As `run_items`, with what `make()` returns: called once in each worker, it is where a model is loaded.

    With `gpu`, a Ray cluster that has GPUs runs a worker on each of them instead of on each processor.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers; give at least 1")
    if ray:
        yield from _on_ray(make, items, ray, "GPU" if gpu else "CPU")
    elif workers == 1:
        work = make()
        for item in items:
            yield _attempt(work, item)
    else:
        yield from _in_processes(make, items, workers)


def _as_it_is(work: Callable) -> Callable:
    return work


def _in_processes(make: Callable, items: Iterable, workers: int) -> Iterator[Outcome]:
    # Spawned, not forked: handles and threads of C libraries do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from _in_order(
                lambda item: pool.submit(_made_once, make, item), Future.result, items, AHEAD * workers
            )
        except BrokenProcessPool:
            raise HistoloomError("a worker died, most likely out of memory; run again with fewer --workers") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_made: list[Callable] = []  # in a spawned worker: the one callable that it was started for


def _made_once(make: Callable, item: Any) -> Outcome:
    if not _made:
        _made.append(make())
    return _attempt(_made[0], item)


def _on_ray(make: Callable, items: Iterable, address: str, device: str = "") -> Iterator[Outcome]:
    """A Ray Data pipeline: blocks of items through tasks or, where a `device` is named, through an actor on each.

    An actor makes its callable once and keeps it; tasks start sooner.
    """
    items = list(items)
    if not items:
        return
    with _cluster(address) as ray, _quiet_in_order(ray):
        losses = ray.remote(_Losses).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        rows = [{"index": i, "item": ray.cloudpickle.dumps(item)} for i, item in enumerate(items)]
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
        if device:
            done = data.map_batches(
                _RayWorker, fn_constructor_args=(make, losses), batch_size=1, **_actors(ray, device, len(rows))
            )
        else:
            done = data.map_batches(_RayWorker(make, losses).__call__, batch_size=1, num_cpus=1)
        try:
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
                for index, answer in zip(batch["index"], batch["answer"], strict=True):
                    result, error = ray.cloudpickle.loads(answer)
                    if error is not None and not isinstance(error, InputError):
                        raise error  # what went wrong there, as if it had run here
                    yield Outcome(items[index], result, error)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise HistoloomError(f"Ray gave up ({reason}); look at `ray status`, then run again") from None


def _actors(ray: Any, device: str, most: int) -> dict:
    """Options of a pool with an actor for each `device` of the cluster; for each processor where it has no GPU."""
    resources = ray.cluster_resources()
    device = device if resources.get(device, 0) >= 1 else "CPU"
    pool = ray.data.ActorPoolStrategy(
        size=min(max(int(resources.get(device, 1)), 1), most),
        max_tasks_in_flight_per_actor=1,  # a slide must not queue behind another while a worker is idle
    )
    return {"compute": pool, "num_gpus": 1} if device == "GPU" else {"compute": pool, "num_cpus": 1}


class _Losses:
    """Counts, for the whole cluster, how often each item was begun: Ray itself would begin it for ever."""

    def __init__(self):
        self.begun: dict[int, int] = {}

    def begin(self, index: int) -> int:
        self.begun[index] = self.begun.get(index, 0) + 1
        return self.begun[index]


class _RayWorker:
    """A callable of Ray Data: items in, pickled answers (result, error) out; Ray itself sends nothing but pickles."""

    def __init__(self, make: Callable, losses: Any):
        self._losses, self._failed = losses, None
        try:
            self._work = make()
        except Exception as error:
            self._failed = error

    def __call__(self, batch: dict) -> dict:
        return {"index": batch["index"], "answer": [self._answer(*row) for row in zip(*batch.values(), strict=True)]}

    def _answer(self, index: int, item: bytes) -> bytes:
        import ray

        cloudpickle = _cloudpickle()
        tries: Any = ray.get(self._losses.begin.remote(int(index)))
        try:
            if self._failed is not None:
                raise self._failed
            if tries > TRIES:
                raise HistoloomError(
                    f"a worker died {TRIES} times over {cloudpickle.loads(item)!s:.200}, most likely out of "
                    "memory; look at `ray status`, then run again with more memory per worker"
                )
            return cloudpickle.dumps((self._work(cloudpickle.loads(item)), None))
        except Exception as error:
            return cloudpickle.dumps((None, _portable(error)))


def _cloudpickle() -> Any:
    """Ray's pickle, which also takes functions of a script."""
    from ray import cloudpickle

    return cloudpickle


def _portable(error: Exception) -> Exception:
    """An error that survives pickling, without the frames that hold arrays."""
    cloudpickle = _cloudpickle()
    try:
        return cloudpickle.loads(cloudpickle.dumps(error.with_traceback(None)))
    except Exception:
        return HistoloomError(str(error))


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """The module `ray`, joined to the cluster at `address`; left again, unless this process had joined before."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    joined = ray.is_initialized()
    try:
        if not joined:
            _check_reachable(address)
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it warns of how Ray Data restarts actors
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray has no class of its own for this, and raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one with `ray start --head` and give `auto`, "
            "or give `local`"
        ) from None
    try:
        yield ray
    finally:
        if not joined:
            ray.shutdown()


@contextmanager
def _quiet_in_order(ray: Any) -> Iterator[None]:
    """Ray Data that keeps the order of its input and leaves the terminal to our progress bar."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.execution_options.preserve_order, context.enable_progress_bars, logger.level
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars, level = before
        logger.setLevel(level)


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
