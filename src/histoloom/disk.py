"""What the disk must do: open files, hold files aside, flush, give permissions, and say in one line what it refuses."""

import errno
import glob
import hashlib
import io
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histoloom.errors import OutputError

PARTIAL = ".partial"  # suffix of what is not finished
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UMASK = os.umask(0)
os.umask(_UMASK)  # it can be read only by setting it


@contextmanager
def one_clear_line(place: Path, more: str = "") -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names `place` and a cure."""
    try:
        yield
    except OSError as error:
        cure = "free some space" if error.errno in _FULL else "check the path and its permissions"
        more = f"; {more}" if more else ""
        raise OutputError(f"{place}: cannot be written ({reason(error)}); {cure} and run again{more}") from None


def open_input(path: Path | str) -> io.BufferedReader:
    """A file, open for reading. Raises OSError, also for a pipe, a socket or a device, which may have no end."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return file


def read_input(path: Path | str) -> bytes:
    """All bytes of a file; raises OSError as `open_input` does."""
    with open_input(path) as file:
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    """Open a named pipe, too, at once, and not when another process writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def aside_of(path: Path) -> Path:
    """A name of its own next to a file, under which to write it until it is whole."""
    return path.with_name(f"{_before(path)}{uuid.uuid4().hex[:12]}{PARTIAL}")


def remove_asides(path: Path) -> None:
    """Remove what killed processes have half written of a file; the caller holds its lock."""
    for aside in path.parent.glob(f"{glob.escape(_before(path))}{'[0-9a-f]' * 12}{PARTIAL}"):
        aside.unlink(missing_ok=True)


def _before(path: Path) -> str:
    """How the names aside of a file begin, and those of no other file."""
    name = path.name
    if len(name) > 32:
        name = f"{name[:23]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f".{name}."


def settle_tree(folder: Path) -> None:
    """Settle every file of a folder, and flush its folders."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            settle(Path(root) / name)
        flush(Path(root))


def settle(path: Path) -> None:
    """Give a finished file the permissions of the umask (some libraries write 0600), and flush it."""
    if os.name != "nt" and not path.is_symlink():
        os.chmod(path, 0o666 & ~_UMASK)
    flush(path)


def flush(path: Path) -> None:
    """Have the disk hold what was written, so that it survives a loss of power."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems that cannot flush
            raise
    finally:
        os.close(handle)


def is_damaged(error: Exception) -> bool:
    """Whether SQLite found its file damaged or of another kind; other errors are of the disk, such as a full one."""
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_NOTADB")


def reason(error: Exception) -> str:
    """The reason of an error on one line of at most 200 characters."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
