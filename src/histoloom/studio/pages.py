"""What the pages of the studio may ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from histoloom.conditioning.inputs import SMALLEST_CROP
from histoloom.errors import HistoloomError, RequestError
from histoloom.studio.archive import reopen
from histoloom.studio.catalog import Catalog, Model
from histoloom.studio.examples import Examples
from histoloom.studio.job import Job
from histoloom.studio.sessions import Session, Sessions
from histoloom.studio.settings import StudioConfig
from histoloom.studio.shelf import Picture, Result, ShownCrop, Upload, url_of
from histoloom.studio.task import LARGEST_CROP, LEAST_EDGE, MOST_CROPS, read_task, tissue_id, whole
from histoloom.studio.turns import Turns
from histoloom.studio.uploads import read_map, read_upload, stain_warning
from histoloom.studio.wording import for_page
from histoloom.tissue import UNLABELLED
from histoloom.web.app import read_object

DECODED_AT_ONCE = 2  # uploads: each may take 0.2 GB while it is decoded
Handler = Callable[[Request, Session], Awaitable[Response]]
T = TypeVar("T")


class StudioPages:
    """The routes of a studio. Requests of a browser without a session are refused before their body is read."""

    def __init__(self, catalog: Catalog, examples: Examples, sessions: Sessions, turns: Turns, config: StudioConfig):
        self._catalog, self._sessions, self._turns, self._config = catalog, sessions, turns, config
        self._decoding = asyncio.Semaphore(DECODED_AT_ONCE)
        self._examples = examples

    def routes(self) -> list[BaseRoute]:
        """For `make_app`."""
        asked: list[tuple[str, str, Handler]] = [
            ("GET", "/api/examples/{name}", self.example),
            ("GET", "/api/layout", self.layout),
            ("GET", "/api/images/{name}.png", self.image),
            ("GET", "/api/jobs/{job}/events", self.events),
            ("GET", "/api/results/{result}/zip", self.zip),
            ("POST", "/api/maps", self.map),
            ("POST", "/api/images", self.upload),
            ("POST", "/api/crops", self.crop),
            ("POST", "/api/weave", self.weave),
            ("POST", "/api/jobs/{job}/cancel", self.cancel),
            ("POST", "/api/reopen", self.reopen),
        ]
        return [
            Route("/api/state", self.state),
            Route("/api/login", self.log_in, methods=["POST"]),
            *(Route(path, self._for_user(handler), methods=[method]) for method, path, handler in asked),
        ]

    @property
    def body_limits(self) -> dict[str, int]:
        """Most bytes of the requests that are larger than others."""
        uploads = self._config.upload_bytes
        weave = 2**16 + 4 * self._config.most_edge**2  # base64 of ids and mask
        return dict.fromkeys(("/api/maps", "/api/images", "/api/reopen"), uploads) | {"/api/weave": weave}

    async def state(self, request: Request) -> Response:
        """Models, banks, examples and limits; a new session where no token is needed."""
        session, cookie = self._session(request), None
        if session is None and self._sessions.needs_token:
            raise RequestError("log in with the token of this studio", 401)
        if session is None:
            cookie = self._sessions.begin()
        config = self._config
        found = {
            "models": [await run_in_threadpool(model.state, config) for model in self._catalog.models],
            "bank": [row for model in self._catalog.models for row in model.rows],
            "examples": self._examples.rows(),
            "limits": {
                "upload_bytes": config.upload_bytes,
                "upload_pixels": config.upload_pixels,
                "variations": config.variations,
                "queue": config.queue,
                "crops": MOST_CROPS,
                "crop_edge": {"least": SMALLEST_CROP, "most": LARGEST_CROP},
            },
            "needs_token": self._sessions.needs_token,
        }
        response = JSONResponse(found)
        if cookie is not None:
            _set_cookie(request, response, cookie)
        return response

    async def log_in(self, request: Request) -> Response:
        """Trade the token for a session, which a cookie holds that scripts and other sites cannot use."""
        token = (await read_object(request)).get("token")
        if not isinstance(token, str):
            raise RequestError("the request holds no token", 400)
        response = JSONResponse({})
        _set_cookie(request, response, self._sessions.log_in(token.strip()))
        return response

    async def example(self, request: Request, session: Session) -> Response:
        """A map and crops that work at once."""
        return JSONResponse(self._examples.start(request.path_params["name"]))

    async def layout(self, request: Request, session: Session) -> Response:
        """A map that a procedure draws."""
        model, (width, height) = self._asked(request)
        asked = request.query_params
        seed = _number(asked.get("seed", "0"), "seed", 0, 2**53 - 1)
        types = [_number(one, "types", 0, 255) for one in asked["types"].split(",")] if asked.get("types") else None
        drawn = await self._off(model.layout, width, height, seed, types)
        return JSONResponse({"url": url_of(session.shelf.put(Picture(drawn))), "width": width, "height": height})

    async def image(self, request: Request, session: Session) -> Response:
        """A picture that belongs to the user, or to all."""
        name = request.path_params["name"]
        shared = self._catalog.crops.get(name) or self._examples.shelf.find(name, Picture)
        item = shared or session.shelf.find(name, Picture)
        if item is None:
            raise RequestError("this picture is not held here", 404)
        return Response(await run_in_threadpool(item.png), media_type="image/png")

    async def map(self, request: Request, session: Session) -> Response:
        """Read the map in a file."""
        model, size = self._asked(request)
        data = await request.body()
        semantic_map, notes = await self._off(read_map, data, model.table, size, self._config.most_edge)
        height, width = semantic_map.shape
        unlabeled = float((semantic_map == UNLABELLED).mean())
        url = url_of(session.shelf.put(Picture(semantic_map)))
        found = {"url": url, "width": width, "height": height, "unlabeled": unlabeled, "notes": notes}
        return JSONResponse(found)

    async def upload(self, request: Request, session: Session) -> Response:
        """Read a picture or a small slide."""
        data, mpp = await request.body(), self._catalog.models[0].pipeline.mpp
        pixels = await self._off(read_upload, data, self._config, mpp)
        warning = await self._off(stain_warning, pixels)
        name = session.shelf.put(Upload(pixels))
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        return JSONResponse({"image": name, "url": url_of(name), **size, "warning": warning})

    async def crop(self, request: Request, session: Session) -> Response:
        """Cut a crop from a picture that was uploaded."""
        found = await read_object(request)
        image = session.shelf.get(found.get("image"), Upload, "the picture").pixels
        height, width = image.shape[:2]
        edges = (("width", width), ("height", height))
        w, h = (whole(found.get(name), name, SMALLEST_CROP, min(edge, LARGEST_CROP)) for name, edge in edges)
        x, y = whole(found.get("x"), "x", 0, width - w), whole(found.get("y"), "y", 0, height - h)
        if not any(_knows(model, found.get("tissue")) for model in self._catalog.models):
            tissue_id(self._catalog.models[0], found.get("tissue"))
        pixels = np.ascontiguousarray(image[y : y + h, x : x + w])
        name = session.shelf.put(ShownCrop(pixels, x, y))
        return JSONResponse({"crop": name, "url": url_of(name), "warning": stain_warning(pixels)})

    async def weave(self, request: Request, session: Session) -> Response:
        """Line up a job."""
        task = read_task(await read_object(request), self._catalog, session.shelf, self._config)
        job = Job(session, task, task.variations)
        place = self._turns.add(job)
        session.jobs = {name: old for name, old in session.jobs.items() if not old.closed} | {job.name: job}
        self._leave_later(job)
        return JSONResponse({"job": job.name, "place": place})

    async def events(self, request: Request, session: Session) -> Response:
        """The events of a job."""
        job = _job(request, session)
        return StreamingResponse(job.stream(lambda: self._leave_later(job)), media_type="text/event-stream")

    async def cancel(self, request: Request, session: Session) -> Response:
        """Weave no more of a job."""
        _job(request, session).cancel()
        self._turns.canceled()
        return JSONResponse({})

    async def zip(self, request: Request, session: Session) -> Response:
        """A result with all that explains it."""
        result = session.shelf.get(request.path_params["result"], Result, "the result")
        headers = {"content-disposition": 'attachment; filename="histoloom.zip"'}
        return Response(result.zip, media_type="application/zip", headers=headers)

    async def reopen(self, request: Request, session: Session) -> Response:
        """What weaves a result again."""
        found = await self._off(reopen, await request.body(), self._catalog, self._config)
        shelf, (height, width) = session.shelf, found.semantic_map.shape
        crops = []
        for crop, tissue in found.crops:
            name = crop if isinstance(crop, str) else shelf.put(crop)
            crops.append({"crop": name, "tissue": tissue, "url": url_of(name)})
        inpaint = None
        if found.redrawn is not None:
            name = shelf.put(Upload(found.redrawn.image))
            mask = shelf.put(Picture(np.where(found.redrawn.mask, 255, 0).astype(np.uint8)))
            image = {"image": name, "url": url_of(name), "width": width, "height": height, "warning": None}
            inpaint = {"image": image, "mask": url_of(mask)}
        start = {"map": url_of(shelf.put(Picture(found.semantic_map))), "width": width, "height": height}
        return JSONResponse(start | {"crops": crops, "settings": found.settings, "inpaint": inpaint})

    def _for_user(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            session = self._session(request)
            if session is None:
                raise RequestError("your session has ended; load the page again", 401)
            return await handler(request, session)

        return handle

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.cookies.get(_cookie(request), ""))

    def _asked(self, request: Request) -> tuple[Model, tuple[int, int]]:
        """Model, width and height of a query."""
        asked, most = request.query_params, self._config.most_edge
        size = [_number(asked.get(name, ""), name, LEAST_EDGE, most) for name in ("width", "height")]
        return self._catalog.find(asked.get("model")), (size[0], size[1])

    async def _off(self, work: Callable[..., T], *given: Any) -> T:
        """Do work that takes long in another thread, a few at a time; its errors become refusals."""
        async with self._decoding:
            try:
                return await run_in_threadpool(work, *given)
            except RequestError:
                raise
            except HistoloomError as error:
                raise RequestError(for_page(error), 400) from None

    def _leave_later(self, job: Job) -> None:
        """Cancel a job that nobody watches for some seconds from now on."""

        def leave() -> None:
            if not job.closed and job.is_left >= self._config.leave_seconds:
                job.cancel()
                self._turns.canceled()

        asyncio.get_running_loop().call_later(self._config.leave_seconds + 0.1, leave)


def _job(request: Request, session: Session) -> Job:
    job = session.jobs.get(request.path_params["job"])
    if job is None:
        raise RequestError("there is no such job", 404)
    return job


def _knows(model: Model, tissue: object) -> bool:
    return tissue in model.table.names


def _number(text: str, name: str, least: int, most: int) -> int:
    return whole(int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None, name, least, most)


def _cookie(request: Request) -> str:
    """The name of the cookie: browsers share cookies between the ports of a host, and each may serve a studio."""
    return f"histoloom-studio-{request.url.port or 0}"


def _set_cookie(request: Request, response: Response, cookie: str) -> None:
    is_https = request.url.scheme == "https"
    response.set_cookie(_cookie(request), cookie, httponly=True, samesite="strict", secure=is_https, path="/")
