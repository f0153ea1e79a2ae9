"""Files and folders that are whole or absent, that only the same run resumes, and that one process writes at a time.

Nothing else in the package renames a file. Everything is written next to its place under another name, flushed to the
disk, and renamed, so that a process may be killed, or the machine lose power, at any moment.

    FOLDER.partial/           a folder while it is being made
      record.json             the run that makes it; only that run resumes it
      parts...                files that are finished stay
    FOLDER/record.json        the same record in the finished folder
    .FOLDER.lock              host, process and start of the one process that writes; gone when it ends
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from histoloom.errors import InputError, LockedError, OutputError
from histoloom.version import VERSION

RECORD = "record.json"
PATHS = "paths.local.json"  # where inputs are on this machine; no part of the record
PARTIAL = ".partial"  # suffix of what is not finished
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MOST_RECORD_BYTES = 256 * 2**20  # the record of some million inputs
_UMASK = os.umask(0)
os.umask(_UMASK)  # it can be read only by setting it


@dataclass(frozen=True, kw_only=True)
class Record:
    """What decides every byte of an output folder.

    `format` is raised when the same settings and inputs give other bytes; the version of Histoloom is written into the
    record, too, but does not decide. `inputs` maps the name of each input to its fingerprint. Settings are plain JSON.
    """

    command: str
    format: int
    settings: dict
    inputs: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        """The record as JSON reads it back, without the version."""
        return json.loads(json.dumps(asdict(self), default=str))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file; raises OutputError and leaves the old file where that fails."""
    with whole_file(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file; raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a whole JSON file with sorted keys; raises OutputError."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


@contextmanager
def whole_file(path: Path, more: str = "") -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends, and is removed when the block fails.

    Folders above `path` are made. The path is unique, so that a lost worker that still writes harms nobody. Raises
    OutputError, ending in `more`, for a disk that is full or refuses.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name[:32]}.{uuid.uuid4().hex[:12]}{PARTIAL}")
    try:
        with one_clear_line(path, more):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            _settle(aside)
            os.replace(aside, path)
            _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Keep a file for this process while it works on what it will write there, so that a place that refuses is found
    before the work.

    Raises OutputError where the folder above cannot be written, `path` is a folder, or another process writes it.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    with locked(path):
        yield


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into that becomes `folder` when the block ends, and is removed when the block fails.

    For results that are made again from the start after a kill. Raises OutputError where `folder` holds something,
    another process writes it, or the disk refuses.
    """
    folder = Path(folder).absolute()
    with locked(folder):
        refuse_existing(folder)
        aside = folder.with_name(f"{folder.name}{PARTIAL}")
        if aside.exists() and not _is_ours(aside):
            raise OutputError(f"{aside}: is in the way and was not left by histoloom; move it away")
        with one_clear_line(folder):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            (aside / RECORD).touch()  # marks what a killed run leaves as ours to remove
        try:
            with one_clear_line(folder):
                yield aside
                if not (aside / RECORD).stat().st_size:
                    (aside / RECORD).unlink()
                _publish(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """As `whole_folder`, for a folder that may exist: it is replaced as a whole when the block ends.

    A process that is killed between the two renames leaves `folder` absent and its old content in `folder.old`; the
    next call puts it back first. The caller holds the lock of the run that `folder` belongs to.
    """
    folder = Path(folder).absolute()
    aside, old = folder.with_name(f"{folder.name}{PARTIAL}"), folder.with_name(f"{folder.name}.old")
    with one_clear_line(folder):
        recover(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            _settle_tree(aside)
            if folder.exists():
                os.replace(folder, old)
            os.replace(aside, folder)
            _flush(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free; raises OutputError."""
    with one_clear_line(target):
        if target.exists():
            raise OutputError(f"{target}: exists already; move it away")
        os.replace(source, target)
        _flush(target.parent)


def recover(folder: Path) -> None:
    """Finish what a killed `replaced_folder` began: the old content comes back, or is removed where it is replaced."""
    folder = Path(folder).absolute()
    old = folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    elif old.exists():
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def resumable_folder(folder: Path, record: Record) -> Iterator[Path]:
    """The folder aside in which `record` is worked on, with all that an interrupted run of it has left.

    When the block ends, it becomes `folder`. When the block fails, it stays for the same command to resume; one that
    holds nothing yet is removed. Call `is_finished` first. Raises OutputError where `folder` holds something, where
    the folder aside belongs to another run (nothing is deleted), where another process writes it, or where the disk
    refuses.
    """
    folder = Path(folder).absolute()
    with locked(folder):
        refuse_existing(folder)
        aside = folder.with_name(f"{folder.name}{PARTIAL}")
        _begin(aside, record)
        try:
            with one_clear_line(folder, f"what is finished is kept in {aside}, and the same command resumes it"):
                yield aside
                remove_partials(aside)
                _publish(aside, folder)
        finally:
            _remove_empty(aside)


@contextmanager
def run_folder(folder: Path, record: Record, grows: bool = False) -> Iterator[bool]:
    """A folder that is worked on in its place, part by part; yields whether an earlier run had begun it.

    A run that fails before it has finished anything leaves nothing. With `grows`, a run may have more inputs than the
    one before, such as slides that were not there for a moment. Raises OutputError where `folder` holds anything but
    this run, where another process writes it, or where the disk refuses.
    """
    folder = Path(folder).absolute()
    with locked(folder):
        begun = (folder / RECORD).is_file()
        _begin(folder, record, grows)
        remove_partials(folder)
        try:
            with one_clear_line(folder, "the same command resumes the run"):
                yield begun
        finally:
            _remove_empty(folder)


def is_finished(folder: Path, record: Record) -> bool:
    """True where `folder` is the finished result of this record; raises OutputError where it holds anything else."""
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / RECORD).is_file():
        raise OutputError(f"{folder}: exists already; name another folder, or move it away")
    _check(folder, record)
    return True


def refuse_existing(folder: Path) -> None:
    """Raise OutputError where `folder` exists and is not an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: exists already; name another folder, or move it away")


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a folder that is made with `whole_folder`; the other folders write theirs themselves."""
    write_json(folder / RECORD, record.to_json() | {"version": VERSION})


def read_record(folder: Path) -> dict | None:
    """The record of a folder, or None where it has none; raises InputError where it is damaged."""
    path = Path(folder) / RECORD
    if not path.is_file():
        return None
    return read_json(path, dict)


def read_json(path: Path, kind: type = dict) -> dict:
    """A JSON file whose top level is a `kind`; raises InputError with the file and the reason."""
    try:
        if path.stat().st_size > _MOST_RECORD_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes; at most {_MOST_RECORD_BYTES} are read")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a readable JSON file ({_reason(error)})") from None
    if not isinstance(value, kind):
        raise InputError(f"{path}: holds a JSON {type(value).__name__}, not a {kind.__name__}")
    return value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process from writing `folder` while the block runs.

    The operating system frees the lock of a process that dies. Raises OutputError, naming host, process and time,
    where another process holds the lock.
    """
    folder = Path(folder).absolute()
    path = folder.with_name(f".{folder.name}.lock")
    with one_clear_line(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def one_clear_line(place: Path, more: str = "") -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names `place` and a cure."""
    try:
        yield
    except OSError as error:
        cure = "free some space" if error.errno in _FULL else "check the path and its permissions"
        more = f"; {more}" if more else ""
        raise OutputError(f"{place}: cannot be written ({_reason(error)}); {cure} and run again{more}") from None


def fingerprint(path: Path, whole: bool = True, dated: bool = True) -> str:
    """A fingerprint of a file: SHA-256 of its bytes, or for large files (`whole=False`) of its size, the time of its
    last change (`dated`), and a megabyte at its start and end. Raises InputError where it cannot be read."""
    import hashlib

    try:
        with Path(path).open("rb") as file:
            if whole:
                return hashlib.file_digest(file, "sha256").hexdigest()
            status, sample = os.fstat(file.fileno()), 2**20
            digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns if dated else ''}".encode())
            digest.update(file.read(sample))
            file.seek(max(status.st_size - sample, 0))
            digest.update(file.read(sample))
            return digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None


def refuse_other_run(
    place: Path,
    found: dict,
    record: Record,
    grows: bool = False,
    cure: str = "name another folder, or remove this one",
) -> None:
    """Raise OutputError, naming what differs, where `place` was made by another run than `record`.

    `found` is the record of `place` as JSON. With `grows`, inputs that only `record` has are accepted.
    """
    wanted, found = _leaves(record.to_json()), _leaves({key: found.get(key) for key in record.to_json()})
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if grows:
        differing = [key for key in differing if not key.startswith("inputs") or found.get(key) is not None]
    if not differing:
        return
    key, more = differing[0], f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    more = "" if key in ("command", "format") else more  # everything differs then
    if key.startswith("inputs."):
        reason = f"input {key.removeprefix('inputs.')} was {_change(found.get(key), wanted.get(key))}"
    else:
        reason = f"{key.removeprefix('settings.')} was {_short(found.get(key))}, is now {_short(wanted.get(key))}"
    raise OutputError(f"{place}: was made by another run ({reason}{more}); {cure}")


def _begin(folder: Path, record: Record, grows: bool = False) -> None:
    """Make `folder` and write its record, or find the same record there."""
    if (folder / RECORD).is_file() and (folder / RECORD).stat().st_size:
        _check(folder, record, grows)
        if not grows or record.to_json().items() <= read_json(folder / RECORD).items():
            return
    elif folder.exists() and not _is_ours(folder):
        raise OutputError(
            f"{folder}: exists already and is not a run of histoloom; name another folder, or move it away"
        )
    with one_clear_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, record)


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but its record: other settings may then be tried."""
    if folder.is_dir() and all(name in (RECORD, PATHS) for _, _, names in os.walk(folder) for name in names):
        shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """True for a folder with a record, and for one that was killed before it had written the record."""
    if not folder.is_dir():
        return False
    return (folder / RECORD).is_file() or all(_is_partial(path) for path in folder.iterdir())


def _check(folder: Path, record: Record, grows: bool = False) -> None:
    refuse_other_run(folder, read_json(folder / RECORD, dict), record, grows)


def _change(found: object, wanted: object) -> str:
    if found is None:
        return "added"
    return "removed" if wanted is None else "changed"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _leaves(values: object, name: str = "") -> dict[str, object]:
    """Values of nested dicts by dotted name."""
    if not isinstance(values, dict):
        return {name: values}
    return {k: v for key, value in values.items() for k, v in _leaves(value, f"{name}.{key}" if name else key).items()}


def _publish(aside: Path, folder: Path) -> None:
    _settle_tree(aside)
    if folder.is_dir():
        folder.rmdir()  # empty; Windows does not rename onto it
    os.replace(aside, folder)
    _flush(folder.parent)


def remove_partials(folder: Path) -> None:
    """Remove the half-written files that a killed process has left below `folder`; the caller holds its lock."""
    for root, _, names in os.walk(folder):
        for name in names:
            if _is_partial(Path(name)):
                (Path(root) / name).unlink(missing_ok=True)


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def _settle_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _settle(Path(root) / name)
        _flush(Path(root))


def _settle(path: Path) -> None:
    """Give a finished file the permissions of the umask (some libraries write 0600), and flush it."""
    if os.name != "nt" and not path.is_symlink():
        os.chmod(path, 0o666 & ~_UMASK)
    _flush(path)


def _flush(path: Path) -> None:
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


def _acquire(path: Path, folder: Path) -> int:
    """The open handle of the lock file, which holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            if _is_dead(holder):  # its children have inherited the lock
                path.unlink(missing_ok=True)
                continue
            raise LockedError(
                f"{folder}: is being written by process {holder.get('pid', '?')} on {holder.get('host', '?')} since "
                f"{holder.get('since', '?')}; wait for it, or name another folder"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        if _is_still(handle, path):
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps(holder).encode(), 0) if hasattr(os, "pwrite") else os.write(
                handle, json.dumps(holder).encode()
            )
            return handle
        os.close(handle)  # its last holder has removed the file in the meantime


def _is_still(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def _holder(handle: int) -> dict:
    with contextlib.suppress(ValueError, OSError):
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 4096))
        if isinstance(found, dict):
            return found
    return {}


def _is_dead(holder: dict) -> bool:
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int) or os.name == "nt":
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


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
