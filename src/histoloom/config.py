"""Recipes: TOML in, frozen dataclasses out, and the resolved copy that is saved with each result.

A stage owns its dataclass; this module knows none of them. It refuses unknown keys, wrong types, and numbers that are
not finite, and names the key.
"""

import dataclasses
import math
import numbers
import types
import typing
from pathlib import Path

import tomli_w

from histoloom.errors import ConfigError
from histoloom.text import load_toml

T = typing.TypeVar("T")
_NONE = object()  # no value at all
_LARGEST = 2**53  # integers beyond it are exact neither in JSON nor in Parquet's doubles
_MOST_BYTES = 2**20  # of a recipe
_DEEPEST = 16  # nested tables


def load_recipe(path: Path | str) -> dict:
    """Read a TOML file as nested dicts; raises ConfigError with the file and the cure."""
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path}: has {path.stat().st_size} bytes, which is too large for a recipe")
        return load_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; `histoloom recipes` lists those of the package") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable TOML recipe ({str(error)[:200]})") from None


def build(cls: type[T], values: dict, where: str, defaults: T | None = None) -> T:
    """Build `cls(**values)`; names and types are checked, nested tables become nested dataclasses.

    `where` names file and table in errors, such as `smoke.toml denoiser`. A key that is missing keeps its value in
    `defaults`, or else the default of `cls`: `[denoiser.loop]` with one key changes that key alone. Raises ConfigError.
    """
    if where.count(" ") > _DEEPEST:
        raise ConfigError(f"{where[:200]}: tables are nested too deep")
    fields = {f.name: f for f in dataclasses.fields(typing.cast(typing.Any, cls)) if f.init}
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigError(f"{where}: unknown key {unknown[0][:80]!r}; known: {', '.join(fields)}")
    usual = {name: _default(field) if defaults is None else getattr(defaults, name) for name, field in fields.items()}
    missing = [name for name, default in usual.items() if default is _NONE and name not in values]
    if missing:
        raise ConfigError(f"{where}: missing key {missing[0]!r}")
    resolved = {
        name: _convert(fields[name].type, value, f"{where} {name}", usual[name]) for name, value in values.items()
    }
    try:
        return cls(**(usual | resolved))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def check_numbers(config: object) -> None:
    """Raise ConfigError for a field of a dataclass that holds a number no setting can have.

    Floats must be finite, integers smaller than 2^53 in size, and a field named `seed` or `seeds` 0 or more. Numbers of
    NumPy become those of Python, which records and recipes hold and which do not overflow. Every config calls this
    first in its `__post_init__`.
    """
    for f in dataclasses.fields(typing.cast(typing.Any, config)):
        value = given = getattr(config, f.name)
        value = tuple(map(_of_python, given)) if type(given) is tuple else _of_python(given)
        if value is not given:
            object.__setattr__(config, f.name, value)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{f.name} is {number}; give a finite number")
            if isinstance(number, int) and abs(number) >= _LARGEST:
                raise ConfigError(f"{f.name} is {_shown(number)}, which is too large")
            if f.name in ("seed", "seeds") and number is not None and not (isinstance(number, int) and number >= 0):
                raise ConfigError(f"{f.name} is {number}; give a whole number, 0 or more")


def _of_python(number: object) -> object:
    """A number of another library, such as NumPy, as one of Python; anything else as it is."""
    if isinstance(number, int | float) or not isinstance(number, numbers.Real):
        return number
    return int(number) if isinstance(number, numbers.Integral) else float(number)


def to_toml(config: object) -> str:
    """A dataclass, or the tables that `to_tables` made of one, as TOML text."""
    return tomli_w.dumps(to_tables(config), multiline_strings=False)


def to_tables(value: object) -> typing.Any:
    """A dataclass as nested dicts, without what is None; paths and tuples become what TOML has for them."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: to_tables(v) for name, v in fields.items() if v is not None}
    if isinstance(value, tuple | list):
        return [to_tables(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _default(field: dataclasses.Field) -> object:
    """The default of a field, _NONE if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _NONE if field.default is dataclasses.MISSING else field.default


def _convert(kind: object, value: object, where: str, usual: object = None) -> object:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        converted = _convert_one(option, value, where, usual)
        if converted is not _NONE:
            return converted
    wanted = " or ".join(_name(o) for o in options if o is not type(None))
    raise ConfigError(f"{where}: expected {wanted}, found {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _name(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(repr(choice) for choice in typing.get_args(kind))
    return getattr(kind, "__name__", str(kind))


def _convert_one(kind: object, value: object, where: str, usual: object) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        return build(kind, value, where, usual if isinstance(usual, kind) else None)
    if typing.get_origin(kind) is tuple:
        item, *rest = typing.get_args(kind)
        fixed = rest != [...]
        if not isinstance(value, list) or (fixed and len(value) != 1 + len(rest)):
            return _NONE
        kinds = (item, *rest) if fixed else (item,) * len(value)
        return tuple(_convert(k, v, where) for k, v in zip(kinds, value, strict=True))
    if typing.get_origin(kind) is typing.Literal:
        return value if value in typing.get_args(kind) else _NONE
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < _LARGEST else _NONE
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    return _NONE
