"""A lock that lets one process write a folder; the operating system frees it when that process dies."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from histoloom.disk import one_clear_line
from histoloom.errors import LockedError, OutputError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process from writing `folder` while the block runs.

    The operating system frees the lock of a process that dies. Raises LockedError, naming host, process and time,
    where another process holds the lock; OutputError where no lock can be made, or another file has its name.
    """
    folder = Path(folder).absolute()
    path = _path(folder)
    with one_clear_line(folder):
        handle = _acquire(path, folder)
    try:
        with one_clear_line(folder):
            _sign(handle)
        yield
    finally:
        try:
            if _is_still(handle, path):
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)  # also where Ctrl-C or the disk keeps the file: this process may go on


def remove_dead_lock(folder: Path) -> None:
    """Remove the lock file that a killed process has left next to `folder`; one that is held stays."""
    if _path(folder).exists():
        with contextlib.suppress(OutputError), locked(folder):  # held, or on a disk that cannot be written
            pass


def _path(folder: Path) -> Path:
    """The lock file: one by whatever link the folder is named."""
    real = Path(os.path.realpath(folder))
    return real.with_name(f".{real.name}.lock")


def _acquire(path: Path, folder: Path) -> int:
    """The open handle of the lock file, which holds the lock."""
    while True:
        handle = _open(path)
        try:
            _lock(handle)
        except BlockingIOError:
            holder = _holder(handle)
            is_dead = _is_dead(holder)
            if is_dead and _is_still(handle, path):  # its children have inherited the lock
                path.unlink(missing_ok=True)
            os.close(handle)
            if is_dead:
                continue
            raise LockedError(
                f"{folder}: is being written by process {holder.get('pid', '?')} on {holder.get('host', '?')} since "
                f"{holder.get('since', '?')}; wait for it, or name another folder"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        if _is_still(handle, path):
            return handle
        os.close(handle)  # its last holder has removed the file in the meantime


def _open(path: Path, attempts: int = 10) -> int:
    """The open file; raises OutputError for a link, or a file with other content, which a lock would overwrite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    foreign = f"{path}: is in the way and is not a lock of histoloom; move it away"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if os.fstat(handle).st_size and "pid" not in _holder(handle):
            os.close(handle)
            raise OutputError(foreign)
        return handle
    except FileNotFoundError:  # another process has made the folder above for a trial, and removed it in between
        if not attempts:
            raise
        return _open(path, attempts - 1)
    except OSError:
        if path.is_symlink():
            raise OutputError(foreign) from None
        raise


def _is_still(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def _sign(handle: int) -> None:
    """Write who holds the lock."""
    holder = _home() | {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with open(handle, "wb", closefd=False) as file:  # not os.write, which a full disk may end halfway
        file.seek(0)
        file.truncate()
        file.write(json.dumps(holder).encode())


def _holder(handle: int) -> dict:
    with contextlib.suppress(ValueError, OSError):
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 4096))
        if isinstance(found, dict):
            return found
    return {}


def _home() -> dict:
    """Where a process number means this process: the host, and on Linux the namespace (containers share host names)."""
    try:
        return {"host": socket.gethostname(), "namespace": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {"host": socket.gethostname(), "namespace": ""}


def _is_dead(holder: dict) -> bool:
    if not _home().items() <= holder.items() or not isinstance(holder.get("pid"), int) or os.name == "nt":
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _lock_posix(handle: int) -> None:
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_windows(handle: int) -> None:
    import msvcrt

    try:
        os.lseek(handle, 2**30, os.SEEK_SET)  # a byte past the text, which others may then read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue] (Windows only)
        os.lseek(handle, 0, os.SEEK_SET)
    except OSError as error:
        raise BlockingIOError from error


_lock: Callable[[int], None] = _lock_windows if os.name == "nt" else _lock_posix
