"""The names by which browsers reach a server."""

import contextlib
import ipaddress
import re

from histoloom.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host in LOOPBACK


def host_name(name: str) -> str:
    """A `--name` as browsers send it; raises ConfigError for anything else."""
    found = name.lower()
    if _NAME.fullmatch(found):
        return found
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(found.removeprefix("[").removesuffix("]")))
    raise ConfigError(
        f"--name {name!r} is not the name of a host; give what browsers reach, without https://, port and path, such "
        "as studio.example.org"
    )


def names_of(host: str, name: str) -> frozenset[str] | None:
    """The names of a server at the address `host`, which a proxy calls `name`, if one does; None for any name.

    Raises ConfigError for a `name` that no browser can send.
    """
    own = {host_name(name)} if name else set()
    return LOOPBACK | own if is_loopback(host) else None
