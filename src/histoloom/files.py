"""Files and folders that are whole or absent, that only the same run resumes, and that one process writes at a time.

Nothing else in the package renames a file. Everything is written next to its place under another name, flushed to the
disk, and renamed, so that a process may be killed, or the machine lose power, at any moment.

    FOLDER.partial/           a folder while it is being made
      record.json             the run that makes it; only that run resumes it
      parts...                files that are finished stay
    .FOLDER.partial/          a folder that is made again from the start after a kill
    .FOLDER.old/              what a folder held before it was replaced, for a moment
    FOLDER/record.json        the same record in the finished folder
    .FOLDER.lock              host, process and start of the one process that writes; gone when it ends
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histoloom.disk import PARTIAL, aside_of, flush, one_clear_line, remove_asides, settle, settle_tree
from histoloom.errors import LockedError, OutputError
from histoloom.locks import locked, remove_dead_lock
from histoloom.records import Record, read_json, refuse_other_run
from histoloom.version import VERSION

RECORD = "record.json"
PATHS = "paths.local.json"  # where inputs are on this machine; no part of the record
_TRIAL = f".histoloom-trial{PARTIAL}"  # of a folder that may refuse to be written


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
    aside = aside_of(path)
    try:
        with one_clear_line(path, more):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            settle(aside)
            os.replace(aside, path)
            flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Keep a file for this process while it works on what it will write there, so that a place that refuses is found
    before the work.

    What a killed process has half written of it is removed. Raises OutputError where the folder above cannot be
    written, `path` is a folder, or another process writes it.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    with locked(path):
        remove_asides(path)
        yield


def check_out(folder: Path, in_place: bool = False) -> None:
    """Raise OutputError where a command could not write its output `folder`: call it before anything is loaded.

    Finds a folder that holds something else, a place that cannot be written, and (LockedError) another process that
    writes it; a mount point, which cannot be renamed, unless the run works `in_place`. A folder with a record may be
    on a disk that cannot be written: the record decides. Leaves nothing behind.
    """
    folder = _place(folder)
    if not _is_ours(folder):
        refuse_existing(folder)
    if folder.is_mount() and not in_place:
        raise OutputError(f"{folder}: is a mount point, which cannot be renamed; name a folder in it")
    try:
        check_writable(folder)
    except LockedError:
        raise
    except OutputError:
        if not (folder / RECORD).is_file():
            raise


def check_writable(path: Path) -> None:
    """Raise OutputError where a file or folder cannot be written, LockedError where another process writes it.

    What does not exist is tried out; nothing of the trial stays.
    """
    path = Path(path).absolute()
    if not path.name:
        raise OutputError(f"{path}: cannot be an output; name a new file or folder in it")
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        with locked(path), one_clear_line(path):
            if path.is_dir():
                _try_to_write(path)
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()  # not if another process has begun to use it


def _try_to_write(folder: Path) -> None:
    """Raise OSError where a folder cannot be written; what killed processes have left of this trial is removed."""
    trial = folder / _TRIAL
    try:
        trial.touch()
    finally:
        trial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into that becomes `folder` when the block ends, and is removed when the block fails.

    For results that are made again from the start after a kill. Raises OutputError where `folder` holds something, an
    interrupted run has begun it (nothing is deleted), another process writes it, or the disk refuses.
    """
    folder = _place(folder)
    with locked(folder):
        refuse_existing(folder)
        _refuse_begun(folder)
        aside = _aside(folder)
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

    A process that is killed between the two renames leaves `folder` absent and its old content in `.folder.old`; the
    next call puts it back first. The caller holds the lock of the run that `folder` belongs to.
    """
    folder = _place(folder)
    aside, old = _aside(folder), _old(folder)
    with one_clear_line(folder):
        recover(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            settle_tree(aside)
            if folder.exists():
                os.replace(folder, old)
            os.replace(aside, folder)
            flush(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free; raises OutputError."""
    with one_clear_line(target):
        if target.exists():
            raise OutputError(f"{target}: exists already; move it away")
        os.replace(source, target)
        flush(target.parent)


def recover(folder: Path) -> None:
    """Finish what a killed `replaced_folder` began: the old content comes back, or is removed where it is replaced."""
    folder = _place(folder)
    old = _old(folder)
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
    folder = _place(folder)
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
    folder = _place(folder)
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
    """True where `folder` is the finished result of this record; raises OutputError where it holds anything else, or is
    named as a folder that is not finished, whose record is the same."""
    folder = Path(folder)
    if folder.name.endswith(PARTIAL):
        raise OutputError(f"{folder}: is named as what an interrupted run leaves; leave out {PARTIAL} to resume it")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / RECORD).is_file():
        raise OutputError(f"{folder}: exists already; name another folder, or move it away")
    _check(folder, record)
    remove_dead_lock(folder)  # of a run that was killed after its last rename
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


def _place(folder: Path) -> Path:
    """The folder itself, where `folder` is a link: what is renamed must not be the link."""
    folder = Path(folder).absolute()
    return Path(os.path.realpath(folder)) if folder.is_symlink() else folder


def _aside(folder: Path) -> Path:
    """Where `folder` is made; hidden, because a name such as `folder.partial` may be that of a run, or of a user."""
    return folder.with_name(f".{folder.name}{PARTIAL}")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _refuse_begun(folder: Path) -> None:
    """Raise OutputError where an interrupted run has begun to make `folder`."""
    begun = folder.with_name(f"{folder.name}{PARTIAL}")
    if (begun / RECORD).is_file() and (begun / RECORD).stat().st_size:
        command = str(read_json(begun / RECORD, dict).get("command", "?"))[:40]
        raise OutputError(
            f"{begun}: holds what an interrupted run of `{command}` has finished; repeat that command to finish it, "
            "name another folder, or move it away"
        )


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
    try:
        write_record(folder, record)
    except OutputError:
        _remove_empty(folder)
        raise


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


def _publish(aside: Path, folder: Path) -> None:
    settle_tree(aside)
    if folder.is_dir():
        folder.rmdir()  # empty; Windows does not rename onto it
    os.replace(aside, folder)
    flush(folder.parent)


def remove_partials(folder: Path) -> None:
    """Remove the half-written files that a killed process has left below `folder`; the caller holds its lock."""
    for root, _, names in os.walk(folder):
        for name in names:
            if _is_partial(Path(name)):
                (Path(root) / name).unlink(missing_ok=True)


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(PARTIAL)
