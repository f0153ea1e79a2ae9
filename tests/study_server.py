"""A served study, and a client that asks it as a browser would."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RATINGS = {"detail": 3, "stain": 4, "architecture": 2, "quality": 5}


@dataclass
class Served:
    """A server in a process of its own, and what it printed."""

    folder: Path
    process: subprocess.Popen
    port: int
    tokens: dict[str, str] = field(default_factory=dict)


@contextmanager
def served(folder: Path, *options: str, port: int = 0) -> Iterator[Served]:
    """Serve a study until the block ends, which kills the server."""
    words = (sys.executable, "-m", "histoloom", "study", "serve", str(folder), "--port", str(port), *options)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tokens = {}
    try:
        for line in process.stdout:
            if line.startswith("serving"):
                yield Served(folder, process, int(line.split(":")[2].split("/")[0]), tokens)
                return
            name, found, token = line.strip().partition(": ")
            if found and name.startswith("reader-"):
                tokens[name] = token
        raise AssertionError(process.stderr.read())
    finally:
        process.kill()
        process.communicate()


@dataclass
class Browser:
    """Cookies and requests of one browser."""

    port: int
    cookie: str = ""

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict, dict]:
        """Status, JSON and headers; a `body` is posted, as it is if it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        sent = {"Cookie": self.cookie, "Content-Type": "application/json"} | headers
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, sent)
        response = connection.getresponse()
        found, got = response.read(), {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        if "set-cookie" in got:
            self.cookie = got["set-cookie"].split(";")[0]
        is_json = got.get("content-type", "").startswith("application/json")
        return response.status, json.loads(found) if is_json else {"bytes": found}, got

    def answer(self, item: str, step: int = 4) -> tuple[int, dict, dict]:
        """Answer an item, with RATINGS."""
        return self.ask("/api/answer", {"item": item, "answer": step, "ratings": RATINGS})
