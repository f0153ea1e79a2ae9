"""One request to weave: what has become of it, as events that a page reads, and reads again after it was cut off."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from histoloom.web.tokens import new_token

PASSING = {"place", "step"}  # events of which only the last counts
LAST = {"failed", "canceled"}  # events after which nothing comes
QUIET_SECONDS = 10  # between two signs of life of a silent stream
Event = tuple[int, str, dict]  # number, name, data


class Job:
    """`variations` pictures for one owner. The thread that weaves posts events; any number of streams read them."""

    def __init__(self, owner: Any, task: Any, variations: int):
        self.name, self.owner, self.task, self.variations = new_token(), owner, task, variations
        self.begun = 0  # variations that are woven, or being woven
        self.closed = False
        self._events: list[Event] = []
        self._posted, self._lock = 0, threading.Lock()
        self._streams: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._left = time.monotonic()

    def post(self, name: str, data: dict) -> None:
        """Tell all streams; passing events give way to what comes after them. Nothing comes after the last event."""
        with self._lock:
            if self.closed:
                return
            self._posted += 1
            kept = [event for event in self._events if event[1] not in PASSING]
            self._events = [*kept, (self._posted, name, data)]
            results = sum(event[1] == "result" for event in self._events)
            self.closed = name in LAST or results == self.variations
            streams = list(self._streams)
        for loop, changed in streams:
            loop.call_soon_threadsafe(changed.set)

    def cancel(self) -> None:
        """Weave no more of it."""
        self.post("canceled", {})

    @property
    def is_left(self) -> float:
        """Seconds for which no stream has read it; 0 while one does."""
        with self._lock:
            return 0.0 if self._streams else time.monotonic() - self._left

    async def stream(self, leave: Callable[[], object]) -> AsyncIterator[bytes]:
        """Server-sent events: the present state, then what comes; `leave` is called where the reader goes earlier."""
        mine, seen = (asyncio.get_running_loop(), asyncio.Event()), 0
        with self._lock:
            self._streams.add(mine)
        try:
            while True:
                mine[1].clear()
                with self._lock:
                    events, closed = [event for event in self._events if event[0] > seen], self.closed
                for seen, name, data in events:
                    yield f"id: {seen}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
                if closed:
                    return
                try:
                    await asyncio.wait_for(mine[1].wait(), QUIET_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            with self._lock:
                self._streams.discard(mine)
                self._left = time.monotonic()
            if not self.closed:
                leave()
