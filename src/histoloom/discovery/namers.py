"""Who names windows: a folder of `histoloom discover classify`, or one of `cluster` by the encoder of its types."""

import hashlib
from pathlib import Path

from histoloom.discovery.classifier import WEIGHTS, NamesWindows, NearestType, load_classifier
from histoloom.discovery.embed import read_record
from histoloom.discovery.tree import RECORD, TABLE, TypeTree
from histoloom.discovery.windows import window_of
from histoloom.encoders.encoder import open_encoder
from histoloom.errors import InputError
from histoloom.precision import best_device


def open_namer(folder: Path) -> NamesWindows:
    """Load the classifier, or the encoder and its types, onto a GPU where there is one.

    Raises ModelError where the encoder is not the one that found the types.
    """
    if (folder / WEIGHTS).is_file():
        return load_classifier(folder, best_device())
    tree = TypeTree.load(folder)
    return NearestType(open_encoder(read_record(folder)[1].encoder), tree, window_of(folder))


def namer_print(folder: Path) -> str:
    """Which classifier or types a folder holds, by content; raises InputError for neither."""
    files = [folder / name for name in (WEIGHTS, TABLE, RECORD) if (folder / name).is_file()]
    if not files:
        raise InputError(
            f"{folder}: holds neither a classifier nor tissue types; run `histoloom discover cluster` there first"
        )
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
