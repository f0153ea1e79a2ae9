"""Text from files and file names: compared in one form, and shown in one line.

Two programs spell one name differently: composed or decomposed umlauts, blanks at the ends, capitals. `canonical` is
the one form in which names of slides, classes, cases and suffixes are compared.
"""

import math
import re
import tomllib
import unicodedata
from pathlib import Path

from histoloom.disk import read_input

_LONGEST = 120  # characters of a foreign text in a message
_MOST_BYTES = 64 << 20  # of a TOML file
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def tidy(text: str) -> str:
    """The text as it is kept: composed (NFC), single blanks, none at the ends."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def canonical(text: str) -> str:
    """The text as it is compared: tidy, and without regard to case."""
    return unicodedata.normalize("NFC", tidy(text).casefold())


def printable(text: str) -> str:
    """The text with control characters, and the bytes of names that are not UTF-8, as escapes such as `\\xe4`."""
    return _HIDDEN.sub(_escape, text)


def shorten(text: str, longest: int = _LONGEST) -> str:
    """A foreign text for a message: printable, in one line, cut after `longest` characters."""
    text = printable(text[: longest + 1])
    return text if len(text) <= longest else f"{text[:longest]}..."


def one_line(text: str, longest: int = 2000) -> str:
    """A message in one printable line."""
    return shorten(" ".join(text.split()), longest)


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun: "1 patch", "2,000 patches"; `many` is for a noun that brings a verb."""
    return f"{count:,} {one if count == 1 else many or one + ('es' if one.endswith('ch') else 's')}"


def byte_size(count: int) -> str:
    """A number of bytes with the unit that suits it, in powers of 1,000."""
    power = min(max(int(math.log(max(count, 1), 1000)), 0), 4)
    return f"{count / 1000**power:,.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def decode_text(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark; raises UnicodeDecodeError."""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def load_toml(path: Path) -> dict:
    """The tables of a TOML file, in any coding of `decode_text`; raises OSError, ValueError or RecursionError."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES >> 20} MB")
    return tomllib.loads(decode_text(read_input(path)).replace("\r\n", "\n"))


def is_file_name(text: str) -> bool:
    """True for text that names a file in its folder on every system: no separator, no control character, not `..`."""
    return bool(text.strip(" .")) and not re.search(r"[/\\]", text) and not _HIDDEN.search(text)


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python reads it from a file name
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
