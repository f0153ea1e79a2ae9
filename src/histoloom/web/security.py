"""What every answer of the server says to the browser, and which requests it refuses before they reach a page.

Scripts and styles come from the server's own files only, nothing is loaded from elsewhere, no other site may frame a
page, send it a form, or read an answer; nothing is cached.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from histoloom.web.names import LOOPBACK

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
MOST_BYTES = 2**16  # of a request


class Guard:
    """Middleware around an app; requests that name the server by none of `hosts` are refused, unless that is None.

    Otherwise another site could make its own name mean this machine, and read what a browser gets from it. What a page
    of another site asks of /api/ is refused, even where it could not read the answer: asking alone may begin a session.
    Requests have at most MOST_BYTES; those to the paths in `body_limits` may have more.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None = LOOPBACK,
        body_limits: Mapping[str, int] | None = None,
    ):
        self._app, self._hosts, self._limits = app, hosts, body_limits or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        fault = self._fault(scope["method"], scope["path"], Headers(scope=scope))
        answer = self._app if fault is None else JSONResponse({"error": fault[1]}, fault[0])
        await answer(scope, receive, send_guarded)

    def _fault(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason where a request is refused: another site has sent it, or it is too large."""
        host = headers.get("host", "")
        if self._hosts is not None and _split(f"//{host}").hostname not in self._hosts:
            return 400, "open this page by the address that the server printed"
        if path.startswith("/api/") and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "the request comes from another site"
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != host:
            return 403, "the request comes from another site"
        size, most = headers.get("content-length", ""), self._limits.get(path, MOST_BYTES)
        if not size.isdecimal() or int(size) > most:
            return 413, f"the request must say its size, of at most {most} bytes"
        return None


def _split(address: str) -> SplitResult:
    """The parts of an address; all empty where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
