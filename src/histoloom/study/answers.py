"""The answers of a study, in SQLite: each is on the disk before the next item is shown, and each is given once."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from histoloom.disk import is_damaged
from histoloom.errors import InputError, OutputError, RequestError
from histoloom.files import write_bytes
from histoloom.web.tokens import digest, new_token, owner

RATINGS = ("detail", "stain", "architecture", "quality")
STEPS, BEST = 6, 5  # of the answer and of a rating, from 1
_TABLES = f"""
CREATE TABLE IF NOT EXISTS readers (name TEXT PRIMARY KEY, token TEXT NOT NULL, session TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS answers (
    reader TEXT NOT NULL REFERENCES readers, item TEXT NOT NULL, answer INTEGER NOT NULL,
    {", ".join(f"{rating} INTEGER" for rating in RATINGS)},
    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (reader, item)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Answer:
    """What a reader said of an item: 1 surely real to 6 surely synthetic; of a pair, which side is real: 1 surely left
    to 6 surely right. Ratings are 1 (poor) to 5 (excellent); pairs have none."""

    reader: str
    item: str
    answer: int
    ratings: Mapping[str, int | None]
    at: str = ""  # UTC


class Answers:
    """An open database of one study."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def add_readers(self, names: Sequence[str], replace: Sequence[str] = ()) -> dict[str, str]:
        """Tokens by name, of those readers who have none yet and of `replace`, whose logins end; only their hashes are
        stored, of all of them or of none."""
        known = {name for (name,) in self._connection.execute("SELECT name FROM readers")}
        tokens = {name: new_token() for name in (*names, *replace) if name not in known or name in replace}
        with self._connection:
            self._connection.executemany(
                "INSERT INTO readers VALUES (?, ?, '') ON CONFLICT DO UPDATE SET token = excluded.token, session = ''",
                [(name, digest(token)) for name, token in tokens.items()],
            )
        return tokens

    def log_in(self, token: str) -> str:
        """The secret of a new session, which ends any other of this reader; raises RequestError."""
        reader = owner(token, dict(self._connection.execute("SELECT name, token FROM readers")))
        if reader is None:
            raise RequestError("no reader has this token; check for missing letters", 401)
        session = new_token()
        with self._written():
            self._connection.execute("UPDATE readers SET session = ? WHERE name = ?", (digest(session), reader))
        return session

    def reader_of(self, session: str) -> str:
        """Who a session belongs to; raises RequestError where it has ended."""
        sessions = self._connection.execute("SELECT name, session FROM readers WHERE session != ''")
        reader = owner(session, dict(sessions)) if session else None
        if reader is None:
            reason = "your token was used elsewhere, or you logged out" if session else "you are not logged in"
            raise RequestError(f"{reason}; log in to go on here", 401)
        return reader

    def log_out(self, reader: str) -> None:
        """End the session of a reader."""
        with self._written():
            self._connection.execute("UPDATE readers SET session = '' WHERE name = ?", (reader,))

    def answered(self, reader: str) -> set[str]:
        """The items that a reader has answered."""
        rows = self._connection.execute("SELECT item FROM answers WHERE reader = ?", (reader,))
        return {item for (item,) in rows}

    def add(self, answer: Answer) -> None:
        """Write an answer to the disk; raises RequestError where the item has one, or the disk refuses."""
        values = (answer.reader, answer.item, answer.answer, *(answer.ratings.get(rating) for rating in RATINGS))
        marks = ", ".join("?" * len(values))
        names = ", ".join(("reader", "item", "answer", *RATINGS))
        try:
            with self._written():
                self._connection.execute(f"INSERT INTO answers ({names}) VALUES ({marks})", values)
        except sqlite3.IntegrityError:
            raise RequestError("you have answered this item already, perhaps in another tab", 409) from None

    def all(self) -> list[Answer]:
        """Every answer, by reader and time."""
        names = ", ".join(("reader", "item", "answer", "at", *RATINGS))
        rows = self._connection.execute(f"SELECT {names} FROM answers ORDER BY reader, at, item")
        return [
            Answer(reader, item, answer, dict(zip(RATINGS, ratings, strict=True)), at)
            for reader, item, answer, at, *ratings in rows
        ]

    @contextmanager
    def _written(self) -> Iterator[None]:
        """What the block changes is on the disk when it ends, or not at all; raises RequestError then."""
        try:
            with self._connection:
                yield
        except sqlite3.OperationalError as error:
            raise RequestError(
                f"the server cannot write this down ({error}); tell whoever runs the study, and try again", 503
            ) from None


@contextmanager
def opened_answers(path: Path, is_new: bool = False) -> Iterator[Answers]:
    """The answers at `path`; with `is_new` the file may be absent. Raises InputError for a damaged file, OutputError
    where the disk refuses."""
    if not is_new:
        _refuse_absent(path)
    elif not path.exists():
        write_bytes(path, _no_answers())
    with (
        _one_clear_line(path),
        closing(sqlite3.connect(path, isolation_level="IMMEDIATE", check_same_thread=False)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # an answer survives a loss of power
        connection.executescript(_TABLES)
        yield Answers(connection)


def read_answers(path: Path) -> list[Answer]:
    """Every answer at `path`, by reader and time. The file is only read, and its disk may be one that only reads.

    Raises InputError where there is none, and for a damaged file; OutputError where the disk refuses.
    """
    _refuse_absent(path)
    log = path.with_name(f"{path.name}-wal")
    # SQLite makes files next to what it reads, unless `immutable` says that nobody writes there.
    if os.access(path.parent, os.W_OK):
        how = "mode=rw"
    else:
        how = "mode=ro" if log.is_file() and log.stat().st_size else "immutable=1"
    address = f"{path.absolute().as_uri()}?{how}"
    with _one_clear_line(path), closing(sqlite3.connect(address, uri=True)) as connection:
        return Answers(connection).all()


def _no_answers() -> bytes:
    """The file of a study that nobody has answered."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_TABLES)
        return connection.serialize()


def _refuse_absent(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: holds no answers yet; start the study with `histoloom study serve`")


@contextmanager
def _one_clear_line(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if is_damaged(error):
            raise InputError(f"{path}: is not a usable database of answers ({error}); restore a backup") from None
        raise OutputError(
            f"{path}: the disk refuses it ({error}), and no answer is lost; free some space, check the permissions of "
            "the folder, and run again"
        ) from None
