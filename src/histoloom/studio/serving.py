"""Serve a studio until it is stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from histoloom.studio.catalog import Catalog, Model
from histoloom.studio.examples import Examples
from histoloom.studio.pages import StudioPages
from histoloom.studio.sessions import Sessions
from histoloom.studio.settings import StudioConfig
from histoloom.studio.turns import Turns
from histoloom.studio.weaver import Weaver
from histoloom.web.app import STATIC, make_app
from histoloom.web.names import LOOPBACK, is_loopback, names_of
from histoloom.web.server import address, listening, serve
from histoloom.web.tokens import new_token


@contextmanager
def studio_app(
    models: list[Model], config: StudioConfig, token: str | None = None, hosts: frozenset[str] | None = LOOPBACK
) -> Iterator[tuple[Starlette, Callable[[], None]]]:
    """The app of a studio, whose models weave while the block runs, and what ends that work and the streams that show
    it. `token`: see `Sessions`; `hosts`: `make_app`."""
    catalog, turns = Catalog(models), Turns(config.queue)
    examples = Examples(catalog)
    pages = StudioPages(catalog, examples, Sessions(config, token), turns, config)

    async def compare(request: Request) -> FileResponse:
        return FileResponse(STATIC / "compare.html")

    with Weaver(turns, examples):
        routes = [Route("/compare", compare), *pages.routes()]
        yield make_app("studio", routes, hosts, pages.body_limits), turns.end


def serve_studio(
    models: list[Model], config: StudioConfig, host: str, port: int, say: Callable[[str], None], name: str = ""
) -> None:
    """Serve a studio until a signal stops the process; `say` gets lines for whoever started it.

    Who comes over the network needs a token, which is made and shown here once: at any address but those of this
    machine, and by `name`, under which a proxy passes requests on. Raises ConfigError for an address or a name that
    cannot be used.
    """
    hosts, is_local = names_of(host, name), is_loopback(host)
    token = None if is_local and not name else new_token()
    with listening(host, port) as listener, studio_app(models, config, token, hosts) as (app, end):
        for note in dict.fromkeys(note for model in models for note in model.bank.notes):
            say(note)
        if token is not None:
            say(f"token: {token}")
            say("users log in with this token, which is not shown again")
        if not is_local:
            say("anyone on the network can reach this page, and pictures travel unencrypted: put a TLS proxy before it")
        say(f"serving {', '.join(model.name for model in models)} at {address(host, listener)}; stop with Ctrl-C")
        serve(app, listener, end)
