"""The one way to write and read safetensors files: a checksum in the header, so that damage gives no other weights.

The format itself has none. Files without one, which other programs wrote, are read as they are.
"""

import errno
import hashlib
import json
import os
import re
from io import BufferedIOBase
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from histoloom.disk import open_input

CHECKSUM = "histoloom.sha256"  # in the metadata: of the rest of the header and of the tensors
_METADATA = "__metadata__"
_MOST_HEADER_BYTES = 16 * 2**20


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a file with the bytes that its content decides; raises OSError where the disk refuses."""
    try:
        save_file(tensors, path, metadata | {CHECKSUM: "0" * 64})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from None
    with path.open("r+b") as file:  # the library writes metadata in random order
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length)) | {_METADATA: dict(sorted(metadata.items()))}
        header[_METADATA][CHECKSUM] = _checksum(header, file)
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and its metadata; raises OSError, or ValueError for a file that is damaged."""
    read_header(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def read_header(path: Path) -> dict[str, dict]:
    """The entry of each tensor of a file; raises OSError, or ValueError for a file that is damaged."""
    with open_input(path) as file:
        size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(size - 8, _MOST_HEADER_BYTES):
            raise ValueError(f"{size} bytes, and a header of {length}")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != _METADATA}
            end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
            has_checksum = CHECKSUM in header.get(_METADATA, {})
        except (AttributeError, LookupError, TypeError, RecursionError):
            raise ValueError("its header describes no tensors") from None
        if end != size:
            raise ValueError(f"{size} bytes, where its header tells of {end}")
        if has_checksum and header[_METADATA][CHECKSUM] != _checksum(header, file):
            raise ValueError("its checksum differs, so bytes of it have changed since it was written")
    return entries


def _checksum(header: dict, file: BufferedIOBase) -> str:
    """Of a header without its checksum, and of what is left of `file`."""
    metadata = {name: value for name, value in header[_METADATA].items() if name != CHECKSUM}
    digest = hashlib.sha256(json.dumps(header | {_METADATA: metadata}, sort_keys=True).encode())
    return hashlib.file_digest(file, lambda: digest).hexdigest()
