"""One queue with fair turns: users take turns, one picture each, whatever they have asked for."""

import threading
from collections import OrderedDict, deque

from histoloom.errors import RequestError
from histoloom.studio.job import Job


class Turns:
    """The jobs that wait, by owner, in the order of the owners' next turns. At most `most` per owner."""

    def __init__(self, most: int):
        self._most, self._waiting = most, OrderedDict[int, deque[Job]]()
        self._running: Job | None = None
        self._changed, self.is_over = threading.Condition(), False

    def add(self, job: Job) -> int:
        """Line up a job, and return its place; raises RequestError where its owner has too many."""
        with self._changed:
            mine = self._waiting.get(id(job.owner), deque())
            running = self._wanted
            count = len(mine) + (running is not None and running.owner is job.owner and running not in mine)
            if count >= self._most:
                raise RequestError(f"{count} of your requests are in line; wait for one, or cancel it", 429)
            self._waiting.setdefault(id(job.owner), deque()).append(job)
            place = self.place(job)
            job.post("place", {"place": place})
            self._changed.notify()
        return place

    def take(self, wait: bool = True) -> Job | None:
        """The job whose turn it is: one of its variations is to be woven. None at the end, and, without `wait`, where
        nothing is in line."""
        with self._changed:
            self._pass_on()
            self._tidy()
            while wait and not self._waiting and not self.is_over:
                self._changed.wait()
                self._tidy()
            if self.is_over or not self._waiting:
                return None
            mine = next(iter(self._waiting.values()))
            self._running = job = mine[0]
            job.begun += 1
            if job.begun == job.variations:
                mine.popleft()
            self._tidy()
            self._tell()
            return job

    def canceled(self) -> None:
        """Let those behind move up after a job was canceled."""
        with self._changed:
            self._tidy()
            self._tell()

    def end(self) -> None:
        """Cancel all jobs; `take` returns None."""
        with self._changed:
            self.is_over = True
            for job in [*(one for line in self._waiting.values() for one in line), *filter(None, [self._running])]:
                job.cancel()
            self._changed.notify_all()

    def place(self, job: Job) -> int:
        """How many pictures are woven before the first or next one of this job, the running one included."""
        with self._changed:
            running = self._wanted
            before = int(running is not None)
            owners = sorted(self._waiting, key=lambda owner: running is not None and owner == id(running.owner))
            mine = self._waiting[id(job.owner)]
            ahead = sum(one.variations - one.begun for one in list(mine)[: mine.index(job)])
            here = owners.index(id(job.owner))
            for number, owner in enumerate(owners):
                wanted = sum(one.variations - one.begun for one in self._waiting[owner])
                before += ahead if number == here else min(wanted, ahead + (number < here))
            return before

    def _pass_on(self) -> None:
        """Put the owner of what was woven behind all others, those that came meanwhile included."""
        owner = None if self._running is None else id(self._running.owner)
        if owner in self._waiting:
            self._waiting.move_to_end(owner)
        self._running = None

    @property
    def _wanted(self) -> Job | None:
        """The job whose picture is being woven, unless nobody wants it any more."""
        return None if self._running is None or self._running.closed else self._running

    def _tell(self) -> None:
        """Tell all that wait where they are."""
        for job in (one for line in self._waiting.values() for one in line if one is not self._running):
            job.post("place", {"place": self.place(job)})

    def _tidy(self) -> None:
        """Remove jobs that are closed, and owners without jobs."""
        for owner, mine in list(self._waiting.items()):
            kept = deque(job for job in mine if not job.closed)
            if kept:
                self._waiting[owner] = kept
            else:
                del self._waiting[owner]
