"""The server of the studio: from click to picture, and ten users for some minutes.

    python benchmarks/studio.py [--clicks 20] [--users 10] [--minutes 5]

Starts `histoloom studio` with the bundled model in a process of its own. A click posts an example as the page does,
each with another seed, and ends when the picture has arrived. Then each user asks again and again for one to three
variations, and leaves, cancels or downloads now and then. Fair: a picture comes after at most as many pictures of
others as there are users, and one. Memory is the resident set of the server, each second.
"""

import argparse
import http.client
import io
import json
import random
import resource
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from studio_process import served_studio
from studio_server import Page

PAGE = resource.getpagesize()


def click(page: Page, body: dict) -> float:
    """Seconds from the click to the picture."""
    began = time.monotonic()
    result = page.weave(body)[0]
    Image.open(io.BytesIO(page.ask(result["url_image"])[1]["bytes"])).load()
    return time.monotonic() - began


def resident(process: int) -> float:
    """MB of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE / 1e6


class User(threading.Thread):
    """Asks until time is up, and keeps what went wrong, what it got, and how many came before it."""

    def __init__(self, port: int, number: int, end: float, woven: list):
        super().__init__()
        self.page, self.rng, self.end, self.woven = Page(port), random.Random(number), end, woven
        self.body = self.page.example(number % len(self.page.state["examples"]))
        self.faults, self.waits, self.canceled = [], [], 0

    def run(self) -> None:
        """Ask until time is up."""
        try:
            while time.monotonic() < self.end:
                self.ask_once()
        except Exception as error:  # a fault of the server, which the benchmark counts
            self.faults.append(repr(error))

    def ask_once(self) -> None:
        """One request; one of ten is canceled."""
        variations = self.rng.randint(1, 3)
        body = self.body | {"seed": self.rng.randrange(10**6), "variations": variations}
        status, job, _ = self.page.ask("/api/weave", body)
        if status != 200:
            self.faults.append(str(job))
            return
        if self.rng.random() < 0.1:
            self.page.ask(f"/api/jobs/{job['job']}/cancel", {})
            self.canceled += 1
            return
        for result in self.follow(job["job"]):
            if self.rng.random() < 0.3 and self.page.ask(f"/api/results/{result['result']}/zip")[0] != 200:
                self.faults.append("no zip")

    def follow(self, job: str) -> list[dict]:
        """The results of a job; counts how many pictures of others were woven before each."""
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=300)
        connection.request("GET", f"/api/jobs/{job}/events", headers={"Cookie": self.page.cookie})
        response, results, name, seen = connection.getresponse(), [], "", len(self.woven)
        for raw in iter(response.readline, b""):
            line = raw.decode().strip()
            if line.startswith("event: "):
                name = line[7:]
            if line.startswith("data: ") and name == "failed":
                self.faults.append(line)
            if line.startswith("data: ") and name == "result":
                results.append(json.loads(line[6:]))
                self.waits.append(len(self.woven) - seen)
                self.woven.append(None)
                seen = len(self.woven)
        connection.close()
        return results


def main() -> None:
    """Measure and print the rows of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=5)
    asked = parser.parse_args()
    with served_studio("--users", "64") as port:
        page = Page(port)
        body = page.example()
        click(page, body)  # the first one waits for the server to warm up
        seconds = [click(page, body | {"seed": seed}) for seed in range(1, asked.clicks + 1)]
        print(f"| click to picture, n = {asked.clicks} | {statistics.median(seconds):.2f} s | {max(seconds):.2f} s |")
        server = server_of(port)
        woven: list = []
        end = time.monotonic() + 60 * asked.minutes
        users = [User(port, number, end, woven) for number in range(asked.users)]
        for user in users:
            user.start()
        memory = []
        while time.monotonic() < end:
            memory.append(resident(server))
            time.sleep(1)
        for user in users:
            user.join()
        counts, waits = [len(user.waits) for user in users], [wait for user in users for wait in user.waits]
        quarter = max(len(memory) // 4, 1)
        faults, canceled = [fault for user in users for fault in user.faults], sum(user.canceled for user in users)
        print(
            f"pictures {len(woven)}, of each user {min(counts)} to {max(counts)}; canceled {canceled}; faults {faults}"
        )
        print(f"pictures of others before one's next: median {np.median(waits):.0f}, most {max(waits)}")
        print(f"memory: {np.mean(memory[quarter:2 * quarter]):.0f} MB in the second quarter, "
              f"{np.mean(memory[-quarter:]):.0f} MB in the last, most {max(memory):.0f} MB")  # fmt: skip


def server_of(port: int) -> int:
    """The process that listens at a port."""
    wanted = f":{port:04X} "
    lines = Path("/proc/net/tcp").read_text().splitlines()
    inode = next(line.split()[9] for line in lines if wanted in line and line.split()[3] == "0A")
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if handle.readlink().name == f"socket:[{inode}]":
                return int(handle.parts[2])
        except OSError:
            continue
    raise SystemExit(f"no process listens at {port}")


if __name__ == "__main__":
    main()
