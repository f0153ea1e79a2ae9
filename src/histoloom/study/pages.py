"""What the page of a study may ask: log in, the present item, its images, an answer. Nothing tells what an item is."""

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from histoloom.errors import RequestError
from histoloom.study.answers import BEST, RATINGS, STEPS, Answer, Answers
from histoloom.study.folder import IMAGES, Study
from histoloom.web.app import read_object


class StudyPages:
    """The routes of one study. Requests run one after the other, in the thread that has opened the answers."""

    def __init__(self, study: Study, answers: Answers):
        self._study, self._answers = study, answers

    def routes(self) -> list[BaseRoute]:
        """For `make_app`."""
        return [
            Route("/api/login", self.log_in, methods=["POST"]),
            Route("/api/logout", self.log_out, methods=["POST"]),
            Route("/api/state", self.state),
            Route("/api/image/{name}", self.image),
            Route("/api/answer", self.answer, methods=["POST"]),
        ]

    async def log_in(self, request: Request) -> Response:
        """Trade a token for a session, which a cookie holds that scripts and other sites cannot use."""
        token = (await read_object(request)).get("token")
        if not isinstance(token, str):
            raise RequestError("the request holds no token", 400)
        session = self._answers.log_in(token.strip())
        response = JSONResponse(self._state(self._answers.reader_of(session)))
        is_https = request.url.scheme == "https"
        response.set_cookie(_cookie(request), session, httponly=True, samesite="strict", secure=is_https, path="/")
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session; the next login goes on at the same item."""
        self._answers.log_out(self._reader(request))
        response = JSONResponse({})
        response.delete_cookie(_cookie(request), path="/")
        return response

    async def state(self, request: Request) -> Response:
        """How far the reader is, and the present item."""
        return JSONResponse(self._state(self._reader(request)))

    async def image(self, request: Request) -> Response:
        """An image of the present item, and no other."""
        item = self._present(self._reader(request))
        name = request.path_params["name"]
        if item is None or name not in self._study.images(item):
            raise RequestError("this is not an image of your present item", 404)
        return FileResponse(self._study.folder / IMAGES / name)

    async def answer(self, request: Request) -> Response:
        """Write the answer to the present item, then show the next."""
        reader, found = self._reader(request), await read_object(request)
        item = found.get("item")
        if not isinstance(item, str) or item not in self._study.orders[reader]:
            raise RequestError("this item is not one of yours", 400)
        answer = Answer(reader, item, _step(found.get("answer"), STEPS, "answer"), self._ratings(found))
        if item not in {self._present(reader), *self._answers.answered(reader)}:
            raise RequestError("another item is next", 409)
        self._answers.add(answer)
        return JSONResponse(self._state(reader))

    def _reader(self, request: Request) -> str:
        reader = self._answers.reader_of(request.cookies.get(_cookie(request), ""))
        if reader not in self._study.orders:
            raise RequestError("this study has no such reader", 403)
        return reader

    def _present(self, reader: str) -> str | None:
        """The first item of a reader without an answer; None at the end."""
        answered = self._answers.answered(reader)
        return next((item for item in self._study.orders[reader] if item not in answered), None)

    def _state(self, reader: str) -> dict:
        item, order = self._present(reader), self._study.orders[reader]
        return {
            "reader": reader,
            "pairs": self._study.is_pairs,
            "answered": order.index(item) if item is not None else len(order),
            "total": len(order),
            "practice": item in self._study.practice,
            "item": item,
            "images": [] if item is None else self._study.images(item),
            "size": [self._study.width, self._study.height],
        }

    def _ratings(self, found: dict) -> dict[str, int]:
        ratings = found.get("ratings")
        if self._study.is_pairs:
            return {}
        if not isinstance(ratings, dict):
            raise RequestError(f"ratings of {', '.join(RATINGS)} are missing", 400)
        return {name: _step(ratings.get(name), BEST, name) for name in RATINGS}


def _cookie(request: Request) -> str:
    """The name of the cookie: browsers share cookies between the ports of a host, and each may serve a study."""
    return f"histoloom-study-{request.url.port or 0}"


def _step(value: object, most: int, name: str) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise RequestError(f"{name} must be 1 to {most}", 400)
    return value
