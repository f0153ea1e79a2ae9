"""Who uses the studio: one session per browser, each with a shelf of its own."""

from dataclasses import dataclass, field
from time import monotonic

from histoloom.errors import RequestError
from histoloom.studio.job import Job
from histoloom.studio.settings import StudioConfig
from histoloom.studio.shelf import Shelf
from histoloom.web.tokens import digest, new_token, owner

STALE = 300  # seconds after which a new user may take the place of one who does nothing


@dataclass(eq=False)
class Session:
    """One browser: what is held for it, its unfinished jobs by name, when it asked last, and whether it came back."""

    shelf: Shelf
    jobs: dict[str, Job] = field(default_factory=dict)
    asked: float = field(default_factory=lambda: monotonic())
    came_back: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether a job is not finished."""
        return any(not job.closed for job in self.jobs.values())


class Sessions:
    """The sessions by the digest of their cookie. `token` is what a user must know; None: every browser is welcome."""

    def __init__(self, config: StudioConfig, token: str | None = None):
        self._config = config
        self._sessions: dict[str, Session] = {}
        self._token = None if token is None else digest(token)

    @property
    def needs_token(self) -> bool:
        """Whether a user logs in."""
        return self._token is not None

    def log_in(self, token: str) -> str:
        """The cookie of a new session; raises RequestError for a wrong token."""
        if self._token is not None and owner(token, {"user": self._token}) is None:
            raise RequestError("this is not the token of this studio; check for missing letters", 401)
        return self.begin()

    def begin(self) -> str:
        """The cookie of a new session; raises RequestError where too many are open."""
        now = monotonic()
        for key in self._idle(now - self._config.idle_seconds):
            del self._sessions[key]
        if len(self._sessions) >= self._config.users:
            for key in self._unused()[:1] or self._idle(now - STALE)[:1]:
                del self._sessions[key]
        if len(self._sessions) >= self._config.users:
            raise RequestError(f"{len(self._sessions)} users are here already; try again in some minutes", 503)
        cookie = new_token()
        self._sessions[digest(cookie)] = Session(Shelf(self._config.held_bytes))
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, if there is one."""
        session = self._sessions.get(digest(cookie))
        if session is not None:
            session.asked, session.came_back = monotonic(), True
        return session

    def _idle(self, since: float) -> list[str]:
        """The sessions that have asked nothing since a moment, the most idle first."""
        idle = [(s.asked, key) for key, s in self._sessions.items() if s.asked < since and not s.is_busy]
        return [key for _, key in sorted(idle)]

    def _unused(self) -> list[str]:
        """The sessions that nobody has come back to, the oldest first: their browsers may not even keep cookies."""
        return [key for key, s in self._sessions.items() if not s.came_back]
