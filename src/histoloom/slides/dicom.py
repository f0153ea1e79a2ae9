"""The few fields of a DICOM file that say which slide it belongs to, read without a DICOM library.

A slide is many files, for levels and overviews, of one SeriesInstanceUID; a folder may hold several slides.
"""

import struct
from pathlib import Path

from histoloom.disk import open_input

SERIES = (0x0020, 0x000E)
_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UC", b"UR", b"UT", b"SV", b"UV"}
_HEADER_BYTES = 4 << 20  # the series is named long before pixels and private data
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)


def is_dicom(path: Path) -> bool:
    """True for a file with the preamble of DICOM, whatever its name."""
    try:
        with open_input(path) as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def series_uid(path: Path) -> str:
    """The SeriesInstanceUID; empty where the file is not DICOM, or damaged."""
    try:
        with open_input(path) as file:
            data = file.read(_HEADER_BYTES)
        if data[128:132] != b"DICM":
            return ""
        syntax, start = _transfer_syntax(data)
        if syntax == _DEFLATED:
            return ""
        order = ">" if syntax == _BIG_ENDIAN else "<"
        return _find(data, start, SERIES, order, explicit=syntax != _IMPLICIT)
    except (OSError, struct.error, IndexError, ValueError, RecursionError):
        return ""


def _transfer_syntax(data: bytes) -> tuple[str, int]:
    """The transfer syntax, and where the data set begins."""
    place, syntax = 132, ""
    while place < len(data):
        tag, size, value = _element(data, place, "<", True)
        if tag[0] != 0x0002:
            break
        if tag == (0x0002, 0x0010):
            syntax = _text(data[value : value + size])
        place = value + size
    return syntax, place


def _find(data: bytes, place: int, wanted: tuple[int, int], order: str, explicit: bool) -> str:
    while place < len(data):
        tag, size, value = _element(data, place, order, explicit)
        if tag == wanted:
            return _text(data[value : value + size])
        if tag > wanted:
            return ""
        place = _end_of_sequence(data, value, order, explicit) if size == _UNDEFINED else value + size
    return ""


def _end_of_sequence(data: bytes, place: int, order: str, explicit: bool) -> int:
    """Where a sequence (or item) of undefined length ends."""
    while True:
        tag, size, value = _element(data, place, order, explicit)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return value
        place = _end_of_sequence(data, value, order, explicit) if size == _UNDEFINED else value + size


def _element(data: bytes, place: int, order: str, explicit: bool) -> tuple[tuple[int, int], int, int]:
    """Tag, length, and where the value begins."""
    group, number = struct.unpack_from(f"{order}HH", data, place)
    if group == 0xFFFE or not explicit:
        return (group, number), struct.unpack_from(f"{order}I", data, place + 4)[0], place + 8
    kind = data[place + 4 : place + 6]
    if kind in _LONG:
        return (group, number), struct.unpack_from(f"{order}I", data, place + 8)[0], place + 12
    return (group, number), struct.unpack_from(f"{order}H", data, place + 6)[0], place + 8


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")
