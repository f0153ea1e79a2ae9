"""Where the files that a recipe names are: next to the recipe, or in the folder that holds its data."""

import os
from collections.abc import Mapping
from pathlib import Path

from histoloom.errors import ConfigError
from histoloom.recipes import FOLDER
from histoloom.weights import BUNDLED, holds_model

_DATA = ("dataset", "source", "maps", "slides", "annotations", "listing")  # keys of [data] in the folder of the data
_MODELS = ("pretrained_autoencoder", "initial_model")


def resolve_paths(values: dict, path: Path, root: Path | str | None) -> None:
    """Make the paths in `values`, the tables of the recipe at `path`, absolute.

    Data are in `root`; without it, in the folder that `[data] root` names; without that, next to the recipe. Tables of
    tissues and levels, models, autoencoders and encoders are next to the recipe where there is one of that name; else
    tables are with the data, and the others are names of the hub or the package. Raises ConfigError for a recipe of the
    package without `root`.
    """
    home = path.parent
    data = _table(values, "data")
    if root is None and home == FOLDER:
        raise ConfigError(f"{path.stem}: needs the folder of its data; give --data, or `histoloom recipes --copy` it")
    named = data.get("root")
    place = Path(root) if root is not None else home / os.path.expanduser(named if isinstance(named, str) else "")
    names = [data[key] for key in _DATA if isinstance(data.get(key), str) and data[key]]
    if root is not None and names and all(os.path.isabs(os.path.expanduser(name)) for name in names):
        raise ConfigError(f"{path}: names its data by absolute paths, so --data {root} has no effect; leave it out")
    if isinstance(named, str):
        data["root"] = ""  # every path below is whole without it
    for key in _DATA:
        _resolve(data, key, place)
    _resolve(data, "tissue", home, place)
    _resolve(_table(_table(values, "denoiser"), "curriculum"), "levels", home, place)
    _resolve_folder(_table(_table(values, "denoiser"), "guide"), "model", home)
    for key in _MODELS:
        _resolve_folder(values, key, home)
    compared = _table(values, "reproduce")
    _resolve_folder(compared, "autoencoder_of", home)
    _resolve_folder(_table(compared, "downstream"), "start", home)
    if isinstance(encoders := compared.get("encoders"), list):
        compared["encoders"] = [_folder(name, home) for name in encoders]


def _table(values: Mapping, key: str) -> dict:
    """A nested table; `build` refuses a value that is not one."""
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _resolve(table: dict, key: str, *places: Path) -> None:
    """Make a path absolute: in the first of `places` that has it, else in the last."""
    name = table.get(key)
    if isinstance(name, str) and name:
        found = [place / os.path.expanduser(name) for place in places]
        table[key] = os.path.abspath(next((path for path in found if path.exists()), found[-1]))


def _resolve_folder(table: dict, key: str, home: Path) -> None:
    if key in table:
        table[key] = _folder(table[key], home)


def _folder(name: object, home: Path) -> object:
    """The absolute path of a folder in `home`; another name, such as one of the hub, as it is."""
    if isinstance(name, str) and name and (home / name).is_dir() and (name not in BUNDLED or holds_model(home / name)):
        return os.path.abspath(home / name)
    return name
