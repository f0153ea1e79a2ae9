"""Serve an app from this process until it is stopped."""

import errno
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

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


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server of an app. Nothing is logged but errors: no address, no token."""
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3
    )
    return uvicorn.Server(settings)


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer requests until a signal stops the process; raises Interrupted then."""
    stopped: list[int] = []
    # The server takes signals while it runs, and raises them once more for these handlers when it has ended.
    before = {number: signal.signal(number, lambda found, _: stopped.append(found)) for number in _SIGNALS}
    try:
        make_server(app).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        name = "Ctrl-C" if stopped[0] == signal.SIGINT else signal.Signals(stopped[0]).name
        raise Interrupted(f"stopped by {name}; the same command serves again", 128 + stopped[0])
