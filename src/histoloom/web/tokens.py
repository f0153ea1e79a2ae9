"""Secrets that a person types once: made here, shown once, stored as a hash, and compared in constant time."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping


def new_token() -> str:
    """A secret of 128 bits, as 22 letters, digits, - and _."""
    return secrets.token_urlsafe(16)


def digest(token: str) -> str:
    """What is stored of a token. A plain hash is enough: nobody can try 2^128 tokens."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def owner(token: str, digests: Mapping[str, str]) -> str | None:
    """The name whose digest is that of `token`; None for no name. Compares with all, each in constant time."""
    presented, found = digest(token), None
    for name, stored in digests.items():
        if hmac.compare_digest(presented, stored):
            found = name
    return found
