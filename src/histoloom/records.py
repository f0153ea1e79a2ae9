"""The record of what decides every byte of an output folder, and the comparison of two runs by it."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from histoloom.disk import open_input, read_input, reason
from histoloom.errors import InputError, OutputError

_MOST_BYTES = 256 * 2**20  # the record of some million inputs


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


def read_json(path: Path, kind: type = dict) -> dict:
    """A JSON file whose top level is a `kind`; raises InputError with the file and the reason."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes; at most {_MOST_BYTES} are read")
        value = json.loads(read_input(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a readable JSON file ({reason(error)})") from None
    if not isinstance(value, kind):
        raise InputError(f"{path}: holds a JSON {type(value).__name__}, not a {kind.__name__}")
    return value


def fingerprint(path: Path, whole: bool = True, dated: bool = True) -> str:
    """A fingerprint of a file: SHA-256 of its bytes, or for large files (`whole=False`) of its size, the time of its
    last change (`dated`), and a megabyte at its start and end. Raises InputError where it cannot be read."""
    try:
        with open_input(path) as file:
            if whole:
                return hashlib.file_digest(file, "sha256").hexdigest()
            status, sample = os.fstat(file.fileno()), 2**20
            digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns if dated else ''}".encode())
            digest.update(file.read(sample))
            file.seek(max(status.st_size - sample, 0))
            digest.update(file.read(sample))
            return digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from None


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
