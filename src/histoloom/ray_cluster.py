"""Apply one callable to many items on a Ray cluster, as a pipeline of Ray Data.

Ray replaces workers that die; a run ends only when one item has killed three of them.
"""

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from histoloom.errors import ConfigError, HistoloomError, InputError, MissingExtraError
from histoloom.last_words import last_words
from histoloom.outcomes import Outcome, attempt, logged

TRIES = 3  # workers that one item may kill: the first may be chance, the third is the item
BLOCKS = 4096  # maximum blocks of items: each costs about 10 ms, and results arrive block by block


def run_on_ray(make: Callable, items: Iterable, address: str, device: str = "") -> Iterator[Outcome]:
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
                    yield logged(Outcome(items[index], result, error))
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
            outcome = attempt(self._work, ray.cloudpickle.loads(item))
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
        _check_reachable(address)
        if not connected:
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it warns of how Ray Data restarts actors
            with _own_end():
                _connect(ray, address)
    except Exception as error:  # Ray has no class of its own for this, and raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one with `ray start --head` and give `auto`, "
            "or give `local`"
        ) from None
    try:
        # Ray ends a process whose cluster is lost, within a minute and without a word.
        with nullcontext() if connected else last_words(f"histoloom: {_lost(address)}"):
            yield ray
    finally:
        if not connected:
            ray.shutdown()


def _lost(address: str) -> str:
    return (
        f"--ray {address}: Ray ended this command, as it does where its cluster is lost, or the command was killed; "
        "look at `ray status`, then run again"
    )


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
def _own_end() -> Iterator[None]:
    """Give this process its answer to SIGTERM back; Ray's, set while it connects, ends it without cleaning up.

    Ray sets handlers in Python and in C++: setting ours again takes the place of both.
    """
    mine = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(mine) and threading.current_thread() is threading.main_thread():  # others may set none
            signal.signal(signal.SIGTERM, mine)


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
