"""Serve an app from this process until it is stopped."""

import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from histoloom.disk import reason
from histoloom.errors import ConfigError, Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at an address; raises ConfigError for one that cannot be used. Port 0 takes a free one."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = "the port is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else reason(error)
        raise ConfigError(f"{host}:{port}: cannot be served ({why}); choose another --port") from None
    with listener:
        yield listener


def address(host: str, listener: socket.socket) -> str:
    """What to type into a browser."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Calls `stopping` before it waits for the answers that it has begun: those that never end by themselves would be
    cut off, each with a traceback."""

    def __init__(self, settings: uvicorn.Config, stopping: Callable[[], object]):
        super().__init__(settings)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)


def make_server(app: ASGIApp, stopping: Callable[[], object] = lambda: None) -> uvicorn.Server:
    """A server of an app, which calls `stopping` when it begins to stop. Nothing is logged but errors: no address, no
    token."""
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3
    )
    return _Server(settings, stopping)


def serve(app: ASGIApp, listener: socket.socket, stopping: Callable[[], object] = lambda: None) -> None:
    """Answer requests until a signal stops the process; raises Interrupted then. `stopping` is called first, and ends
    what would not end by itself."""
    stopped: list[int] = []
    server = make_server(app, stopping)

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        server.should_exit = True  # for a signal that comes before the server takes them

    # The server takes signals while it runs, and raises them once more for these handlers when it has ended.
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        name = "Ctrl-C" if stopped[0] == signal.SIGINT else signal.Signals(stopped[0]).name
        raise Interrupted(f"stopped by {name}; the same command serves again", 128 + stopped[0])
