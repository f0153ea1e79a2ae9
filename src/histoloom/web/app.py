"""The app around a page: its file, its scripts and styles, its routes, and one line of JSON for each refusal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from histoloom.errors import RequestError
from histoloom.text import printable
from histoloom.web.names import LOOPBACK
from histoloom.web.security import HEADERS, Guard

STATIC = Path(__file__).parent / "static"


def make_app(
    page: str,
    routes: Sequence[BaseRoute],
    hosts: frozenset[str] | None = LOOPBACK,
    body_limits: Mapping[str, int] | None = None,
) -> Starlette:
    """The app that serves `static/PAGE.html` at /, the static files, and `routes`; nothing else of the disk.

    `hosts` are the names of the server (None: any), `body_limits` most bytes of requests to paths that take more than
    others. A RequestError becomes JSON with its status and message, and any other error a line that refers to the log.
    """

    async def index(request: Request) -> FileResponse:
        return FileResponse(STATIC / f"{page}.html")

    return Starlette(
        routes=[Route("/", index), Mount("/static", StaticFiles(directory=STATIC)), *routes],
        middleware=[Middleware(Guard, hosts=hosts, body_limits=body_limits)],
        exception_handlers={RequestError: _refused, ClientDisconnect: _left, Exception: _failed},
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"error": printable(str(error))}, error.status)  # text of files may be no UTF-8


async def _left(request: Request, error: Exception) -> Response:
    """Who left in the middle of an upload gets no answer, and the log no traceback."""
    return Response(status_code=400)


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of ours, which starlette raises again for the log; this answer does not pass the Guard."""
    return JSONResponse({"error": "the server failed at this; its log says why"}, 500, HEADERS)


async def read_object(request: Request) -> dict:
    """The JSON object that a request holds; raises RequestError."""
    try:
        found = await request.json()
    except (ValueError, RecursionError):
        raise RequestError("the request holds no JSON", 400) from None
    if not isinstance(found, dict):
        raise RequestError("the request holds no JSON object", 400)
    return found
