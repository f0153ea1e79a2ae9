"""A served studio, and a client that asks it as a page does."""

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np
from PIL import Image
from study_server import Browser

from histoloom.studio.catalog import Model
from histoloom.studio.serving import studio_app
from histoloom.studio.settings import StudioConfig
from histoloom.web.names import LOOPBACK
from histoloom.web.server import listening, make_server


@contextmanager
def studio(*models: Model, token: str | None = None, hosts=LOOPBACK, **limits: int) -> Iterator[int]:
    """Serve models in a thread until the block ends; yields the port."""
    with (
        studio_app(list(models), StudioConfig(**limits), token, hosts) as (app, end),
        listening("127.0.0.1", 0) as listener,
    ):
        server = make_server(app, end)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


class Page(Browser):
    """A browser that has opened the page."""

    def __init__(self, port: int):
        super().__init__(port)
        self.state = self.ask("/api/state")[1]

    def picture(self, url: str) -> np.ndarray:
        """The pixels of a picture of the server."""
        return np.asarray(Image.open(io.BytesIO(self.ask(url)[1]["bytes"])))

    def example(self, number: int = 0) -> dict:
        """The body that weaves an example."""
        start = self.ask(f"/api/examples/{quote(self.state['examples'][number]['name'])}")[1]
        return self.body(start)

    def body(self, start: dict, **changed: object) -> dict:
        """The body that weaves what an example or a reopened file says."""
        ids = self.picture(start["map"])
        crops = [{name: crop[name] for name in ("crop", "tissue")} for crop in start["crops"]]
        return map_body(ids) | {"crops": crops} | start["settings"] | changed

    def events(self, job: str, most: int | None = None) -> list[tuple[str, dict]]:
        """The events of a job, to the end or the first `most`; then the connection is closed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        connection.request("GET", f"/api/jobs/{job}/events", headers={"Cookie": self.cookie})
        response, name, found = connection.getresponse(), "", []
        assert response.status == 200, response.read()
        for raw in iter(response.readline, b""):
            line = raw.decode().strip()
            if line.startswith("event: "):
                name = line[7:]
            if line.startswith("data: "):
                found.append((name, json.loads(line[6:])))
            if len(found) == most:
                break
        response.close()
        connection.close()
        return found

    def weave(self, body: dict) -> list[dict]:
        """The results of a body."""
        status, job, _ = self.ask("/api/weave", body)
        assert status == 200, job
        return [data for name, data in self.events(job["job"]) if name == "result"]


def map_body(ids: np.ndarray) -> dict:
    """A map as the page sends it."""
    sent = base64.b64encode(np.ascontiguousarray(ids).tobytes()).decode()
    return {"ids": sent, "width": ids.shape[1], "height": ids.shape[0]}


def file_of(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def until(holds, seconds: float = 90) -> None:
    """Wait until a condition holds; fails where it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
