"""Open what predicts types: a folder of `histoloom discover classify`, or one of `cluster` with its encoder."""

import hashlib
from pathlib import Path

from histoloom.discovery.classifier import WEIGHTS, NearestType, TypePredictor, load_classifier
from histoloom.discovery.embedding_run import read_embedding
from histoloom.discovery.tree import DESCRIPTION, TABLE, TypeTree
from histoloom.discovery.windows import window_of
from histoloom.encoders.encoder import open_encoder
from histoloom.errors import InputError
from histoloom.precision import best_device


def open_classifier(folder: Path, allow_remote_code: bool = False) -> TypePredictor:
    """Load the classifier, or the encoder and its types, onto a GPU if there is one.

    Raises ModelError where the encoder is not the one of the types, ConfigError where it runs code from the internet
    and that is not allowed.
    """
    if (folder / WEIGHTS).is_file():
        return load_classifier(folder, best_device())
    tree = TypeTree.load(folder)
    encoder = open_encoder(read_embedding(folder)[1].encoder, allow_remote_code=allow_remote_code)
    return NearestType(encoder, tree, window_of(folder))


def classifier_fingerprint(folder: Path) -> str:
    """Fingerprint of the classifier or types in a folder; raises InputError where there are neither."""
    files = [folder / name for name in (WEIGHTS, TABLE, DESCRIPTION) if (folder / name).is_file()]
    if not files:
        raise InputError(
            f"{folder}: holds neither a classifier nor tissue types; run `histoloom discover cluster` there first"
        )
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
