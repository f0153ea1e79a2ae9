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
    for table, key in _tables(values):
        _resolve(table, key, home, place)
    for table, key in _folders(values):
        table[key] = _folder(table[key], home)
    compared = _table(values, "reproduce")
    if isinstance(encoders := compared.get("encoders"), list):
        compared["encoders"] = [_folder(name, home) for name in encoders]


def relative_paths(values: dict, home: Path) -> None:
    """Make the paths in `values`, which `resolve_paths` has made absolute, relative to the folder `home`."""
    data, compared = _table(values, "data"), _table(values, "reproduce")
    for table, key in (*((data, key) for key in _DATA if key in data), *_tables(values), *_folders(values)):
        table[key] = _relative(table[key], home)
    if "encoders" in compared:
        compared["encoders"] = [_relative(name, home) for name in compared["encoders"]]


def _relative(name: str, home: Path) -> str:
    return os.path.relpath(name, home) if os.path.isabs(name) else name


def _tables(values: Mapping) -> list[tuple[dict, str]]:
    """Where a recipe names tables of tissues and levels."""
    data, curriculum = _table(values, "data"), _table(_table(values, "denoiser"), "curriculum")
    return [(table, key) for table, key in ((data, "tissue"), (curriculum, "levels")) if key in table]


def _folders(values: dict) -> list[tuple[dict, str]]:
    """Where a recipe names models, autoencoders and an encoder."""
    compared = _table(values, "reproduce")
    named = [(_table(_table(values, "denoiser"), "guide"), "model"), *((values, key) for key in _MODELS)]
    named += [(compared, "autoencoder_of"), (_table(compared, "downstream"), "start")]
    return [(table, key) for table, key in named if key in table]


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


def _folder(name: object, home: Path) -> object:
    """The absolute path of a folder in `home`; another name, such as one of the hub, as it is."""
    if isinstance(name, str) and name and (home / name).is_dir() and (name not in BUNDLED or holds_model(home / name)):
        return os.path.abspath(home / name)
    return name
