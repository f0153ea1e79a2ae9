"""A cache of features by content: the same weights and pixels are computed once.

One SQLite file; a key is the hash of the encoder's fingerprint and the pixels, a value is the features in single
precision.
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from histoloom.disk import is_damaged
from histoloom.encoders.encoder import Encoder
from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.progress import SILENT, Bar

BATCH = 32  # images per call of the encoder


def default_cache() -> Path:
    """The file `histoloom/features.sqlite` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histoloom" / "features.sqlite"


def check_cache(path: Path) -> None:
    """Raise OutputError where the file cannot be used as a cache of features: call it before an encoder is opened."""
    with closing(_open(path)) as base:
        try:
            base.execute("insert or replace into features values (x'', x'')")  # fails where the file can only be read
            base.rollback()
        except sqlite3.Error as error:
            raise _unusable(path, error) from None


def features(
    encoder: Encoder,
    images: UInt8[np.ndarray, "n h w 3"],
    cache: Path | None = None,
    bar: Bar = SILENT,
    batch_size: int = BATCH,
) -> Float[np.ndarray, "n d"]:
    """Features of all images, from the file `cache` where it has them; new ones are added batch by batch.

    Raises ConfigError for a batch size below 1, InputError for no images or for features that are not finite,
    OutputError where the cache cannot be used.
    """
    if batch_size < 1:
        raise ConfigError(f"{batch_size} images per batch; give at least 1")
    if len(images) == 0:
        raise InputError("no images to encode")
    keys = [_key(encoder, image) for image in images]
    with closing(_open(cache)) as base:
        try:
            known = _look_up(base, keys)
            # Equal images are encoded once.
            missing = [i for i, first in _first_of(keys).items() if first not in known]
            bar.advance(len(images) - len(missing))
            for start in range(0, len(missing), batch_size):
                part = missing[start : start + batch_size]
                found = encoder(images[part])
                if not np.isfinite(found).all():
                    raise InputError(f"encoder {encoder.name}: its features are not finite; its weights are damaged")
                rows = [(keys[i], vector.astype("<f4").tobytes()) for i, vector in zip(part, found, strict=True)]
                base.executemany("insert or ignore into features values (?, ?)", rows)
                base.commit()
                known |= dict(rows)
                bar.advance(len(part))
        except sqlite3.Error as error:
            raise _unusable(cache, error) from None
    return np.stack([np.frombuffer(known[key], "<f4") for key in keys])


def _open(path: Path | None) -> sqlite3.Connection:
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(path or ":memory:", timeout=60)
        base.execute("create table if not exists features (key blob primary key, vector blob not null) without rowid")
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from None
    return base


def _unusable(path: Path | None, error: Exception) -> OutputError:
    cure = "delete it" if is_damaged(error) else "free some space, check its permissions"
    return OutputError(f"{path}: cannot be used as feature cache ({error}); {cure}, or name another file (--cache)")


def _look_up(base: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ",".join("?" * len(part))
        found |= dict(base.execute(f"select key, vector from features where key in ({marks})", part))
    return found


def _first_of(keys: list[bytes]) -> dict[int, bytes]:
    seen: set[bytes] = set()
    return {i: key for i, key in enumerate(keys) if not (key in seen or seen.add(key))}


def _key(encoder: Encoder, image: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{encoder.fingerprint} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
