"""Apply one callable to many items: in this process, in several processes, or on a Ray cluster.

Results arrive in the order of the items, whichever finishes first, so that the output does not depend on the number
of workers. An item that fails is returned with its error, and the run continues: one broken slide must not cost the
others. Only what is not the fault of an item (a wrong option, a full disk, a missing package) ends the run.
"""

import errno
import importlib
import logging
import multiprocessing
import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, HistoloomError, InputError, MissingExtraError
from histoloom.text import one_line

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items submitted per worker: no worker is idle, and memory does not grow with the number of items
TRIES = 3  # workers that one item may kill on Ray: the first may be chance, the third is the item
_NOT_ITS_FAULT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
BLOCKS = 4096  # maximum blocks of items on Ray: each costs about 10 ms, and results arrive block by block


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
logger = logging.getLogger("histoloom")


class UnexpectedError(InputError):
    """An error that was not foreseen and that one item has caused; `details` is its traceback."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details

    def __reduce__(self) -> tuple:
        return UnexpectedError, (str(self), self.details)


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


def run_items(
    work: Callable[[Item], Result], items: Iterable[Item], workers: Workers = ALONE
) -> Iterator[Outcome[Item, Result]]:
    """`work(item)` for each item, in order; with more than one worker, `work` and the items must pickle.

    An item whose worker dies (out of memory, or a crash in a native library) is returned with an error. Raises
    ConfigError for an address where no cluster answers, and HistoloomError on Ray when one item has killed three
    workers. An item may be processed twice.
    """
    if workers.ray:
        return _on_ray(partial(_as_it_is, work), items, workers.ray)
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
        yield from _on_ray(make, items, workers.ray, "GPU" if gpu else "CPU")
    elif workers.count == 1:
        work = make()
        for item in items:
            yield _logged(_attempt(work, item))
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
        # Spawned, not forked: handles and threads of C libraries do not survive a fork.
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
            try:
                for item in left:
                    waiting.append(_Submitted(item))
                    waiting[-1].future = pool.submit(_made_once, make, item)
                    if len(waiting) >= AHEAD * count:
                        yield _first(waiting)
                while waiting:
                    yield _first(waiting)
                is_over = True
            except BrokenProcessPool:
                pass
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        for one in waiting:  # each in a process of its own: one of them has ended the process of the others
            yield _logged(one.outcome() if one.is_done() else _alone(make, one.item))


def _first(waiting: deque[_Submitted]) -> Outcome:
    """The outcome of the item that has waited longest, which is then taken off."""
    outcome = waiting[0].outcome()
    waiting.popleft()
    return _logged(outcome)


def _alone(make: Callable, item: Any) -> Outcome:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_made_once, make, item).result()
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
    return _attempt(_made[0], item)


def _on_ray(make: Callable, items: Iterable, address: str, device: str = "") -> Iterator[Outcome]:
    """A Ray Data pipeline: blocks of items go through tasks or, with a `device`, through one actor per device.

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
                        raise error  # as if the item had been processed here
                    yield _logged(Outcome(items[index], result, error))
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise HistoloomError(f"Ray gave up ({reason}); look at `ray status`, then run again") from None


def _actors(ray: Any, device: str, most: int) -> dict:
    """Options of a pool with one actor per `device` of the cluster; one per processor where it has no GPU."""
    resources = ray.cluster_resources()
    device = device if resources.get(device, 0) >= 1 else "CPU"
    pool = ray.data.ActorPoolStrategy(
        size=min(max(int(resources.get(device, 1)), 1), most),
        max_tasks_in_flight_per_actor=1,  # no slide queues behind another while a worker is idle
    )
    return {"compute": pool, "num_gpus": 1} if device == "GPU" else {"compute": pool, "num_cpus": 1}


class _Losses:
    """Counts, for the whole cluster, how often each item was started: Ray itself would retry it forever."""

    def __init__(self):
        self.begun: dict[int, int] = {}

    def begin(self, index: int) -> int:
        self.begun[index] = self.begun.get(index, 0) + 1
        return self.begun[index]


class _RayWorker:
    """A callable for Ray Data: items in, pickled answers (result, error) out. Ray itself pickles all that it sends."""

    def __init__(self, make: Callable, losses: Any):
        self._losses, self._failed = losses, None
        try:
            self._work = make()
        except Exception as error:
            self._failed = error

    def __call__(self, batch: dict) -> dict:
        return {"index": batch["index"], "answer": [self._answer(*row) for row in zip(*batch.values(), strict=True)]}

    def _answer(self, index: int, item: bytes) -> bytes:
        ray: Any = importlib.import_module("ray")
        tries = ray.get(self._losses.begin.remote(int(index)))
        try:
            if self._failed is not None:
                raise self._failed
            if tries > TRIES:
                raise HistoloomError(
                    f"a worker died {TRIES} times over {ray.cloudpickle.loads(item)!s:.200}, most likely out of "
                    "memory; look at `ray status`, then run again with more memory per worker"
                )
            outcome = _attempt(self._work, ray.cloudpickle.loads(item))
            return ray.cloudpickle.dumps((outcome.result, outcome.error))
        except Exception as error:
            return ray.cloudpickle.dumps((None, _portable(error)))


def _portable(error: Exception) -> Exception:
    """An error that survives pickling, without the frames that hold arrays."""
    ray: Any = importlib.import_module("ray")
    try:
        return ray.cloudpickle.loads(ray.cloudpickle.dumps(error.with_traceback(None)))
    except Exception:
        return HistoloomError(str(error))


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address`; disconnected again unless it was connected before."""
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    connected = ray.is_initialized()
    try:
        if not connected:
            _check_reachable(address)
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it warns of how Ray Data restarts actors
            _connect(ray, address)
    except Exception as error:  # Ray has no class of its own for this, and raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one with `ray start --head` and give `auto`, "
            "or give `local`"
        ) from None
    try:
        yield ray
    finally:
        if not connected:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster. One that is started here listens on 127.0.0.1 only: whoever reaches its ports runs code.

    Ray binds to the loopback interface by itself on Windows and macOS, and reads this constant to decide.
    """
    if address != "local":
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        return
    constants: Any = importlib.import_module("ray._private.ray_constants")
    several_machines, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        constants.ENABLE_RAY_CLUSTER = several_machines
    if not all(node["NodeManagerAddress"].startswith("127.") for node in ray.nodes()):
        ray.shutdown()
        raise OSError("this version of Ray does not stay on the loopback interface")


@contextmanager
def _quiet_in_order(ray: Any) -> Iterator[None]:
    """Have Ray Data keep the order of its input and leave the terminal to our progress bar."""
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


def _attempt(work: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
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


def _logged(outcome: Outcome[Item, Result]) -> Outcome[Item, Result]:
    """The outcome; the traceback of an unexpected error goes to the log, which `--debug` shows."""
    if isinstance(outcome.error, UnexpectedError):
        logger.debug("%s\n%s", outcome.error, outcome.error.details)
    return outcome
