"""The files of a model, checked before anything is built from them: a model may come from a stranger.

Headers and configurations are read as JSON of bounded size, networks are built on the meta device, where nothing is
allocated, and their shapes are held against the header of the weights. Nothing is ever unpickled.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from histoloom.errors import InputError, ModelError
from histoloom.records import read_json
from histoloom.tensor_files import read_header
from histoloom.weights import BUNDLED, find_model

INDEX, CONFIG, WEIGHTS = "model_index.json", "config.json", "diffusion_pytorch_model.safetensors"
_MOST_NUMBER, _MOST_BLOCKS, _MOST_ENTRIES, _MOST_DEPTH = 2**20, 256, 64, 6
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(source: object, patterns: list[str], **hub: Any) -> Path:
    """The folder of a model: a bundled one, `source` itself, or the cache of the files of that name on the hub.

    `patterns` are the files to download. Raises ModelError that says why there is none.
    """
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"a model is {source!r}; give its folder, or its name on the hub")
    source = find_model(str(source))
    if Path(source).is_dir():
        return Path(source)
    if Path(source).exists() or Path(source).is_absolute() or not _HUB_NAME.fullmatch(str(source)):
        raise ModelError(
            f"{source}: is not a folder; give the folder of a model, a name on the hub, or {' or '.join(BUNDLED)}"
        )
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns, **hub))
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(f"{source}: is neither a folder nor a model on the hub; check the name") from None
    except LocalEntryNotFoundError:
        why = "offline (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else "offline, or the hub does not answer"
        raise ModelError(
            f"{source}: is not a folder here, and the hub is not reachable: {why}; check the name, or go online"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{source}: cannot be downloaded ({first_line(error)}); check the name, or try again"
        ) from None


def read_config(path: Path) -> dict:
    """A configuration whose numbers are of a size that a network may have; raises ModelError naming the file."""
    try:
        config = read_json(path, dict)
    except InputError as error:
        raise ModelError(str(error)) from None
    _check_bounds(config, path, "")
    return config


def check_weights(folder: Path, build: Callable[[dict], Any], all_used: bool = False) -> None:
    """Hold configuration and weights in `folder` against each other, before anything is allocated.

    `build` makes the network of a configuration, which has a place for each weight where `all_used`. Raises ModelError
    naming the file that is missing or damaged.
    """
    config = read_config(folder / CONFIG)
    stored: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= _shapes(path)
    shapes = {_modern(name): shape for name, shape in stored.items()} | stored
    if not shapes:
        raise ModelError(f"{folder / WEIGHTS}: no such weights; weights must be safetensors, a pickle is never opened")
    try:
        with torch.device("meta"):
            network = build(config)
    except Exception as error:  # whatever a library makes of a stranger's configuration
        raise ModelError(f"{folder / CONFIG}: describes no network ({first_line(error)})") from None
    wanted = {name: list(value.shape) for name, value in network.state_dict().items()}
    for name, shape in wanted.items():
        if name not in shapes:  # diffusers would fill it with random numbers
            raise ModelError(f"{folder / WEIGHTS}: lacks the weight {name}; copy the model again")
        if shape != shapes[name]:
            raise ModelError(
                f"{folder / CONFIG}: does not fit the weights, where {name} has shape {shapes[name]} instead of "
                f"{shape}; copy the model again"
            )
    if all_used and (unused := [name for name in stored if not {name, _modern(name)} & wanted.keys()]):
        raise ModelError(
            f"{folder / CONFIG}: describes a network without {unused[0]}, which the weights hold; copy the model again"
        )


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file; raises ModelError for a file that is damaged."""
    try:
        return {name: [_whole(edge) for edge in entry["shape"]] for name, entry in read_header(path).items()}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{path}: is truncated, damaged, or not a safetensors file ({first_line(error)}); copy it again"
        ) from None


def check_finite(network: nn.Module, path: Path) -> None:
    """Raise ModelError naming a weight that is nan or infinite."""
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{path}: {name} holds nan or infinity; copy the model again, or train it again")


def _check_bounds(value: object, path: Path, key: str, depth: int = 0) -> None:
    """Refuse sizes that no network has; `key` is the name of the outermost entry."""
    if depth > _MOST_DEPTH:
        raise ModelError(f"{path}: {key} is nested more than {_MOST_DEPTH} deep")
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_bounds(inner, path, key or str(name)[:60], depth + 1)
    elif isinstance(value, list):
        if len(value) > _MOST_ENTRIES and not all(isinstance(inner, float) for inner in value):
            raise ModelError(f"{path}: {key} has {len(value)} entries; at most {_MOST_ENTRIES} make sense")
        for inner in value:
            _check_bounds(inner, path, key, depth + 1)
    elif isinstance(value, int | float):
        most = _MOST_BLOCKS if re.search("layers|blocks", key) else _MOST_NUMBER
        if not abs(value) <= most and not (isinstance(value, float) and key.startswith("latent")):
            raise ModelError(f"{path}: {key} is {str(value)[:20]}; at most {most} makes sense")


def _modern(name: str) -> str:
    """The name that diffusers gives today to the weights of an attention that was saved under older names."""
    for old, new in _OLD_NAMES.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"{str(value)[:20]!r} is not a size")
    return value


def first_line(error: Exception) -> str:
    """What a library says of an error, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
