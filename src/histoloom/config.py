"""Recipes: TOML in, frozen dataclasses out, the resolved copy saved beside the result.

A stage owns its dataclass; this module knows none of them. Unknown keys and wrong types are refused by name.
"""

import dataclasses
import json
import tomllib
import types
import typing
from pathlib import Path

from histoloom.errors import ConfigError

T = typing.TypeVar("T")
_NONE = object()  # no value at all


def load_recipe(path: Path | str) -> dict:
    """The TOML file as nested dicts; raises ConfigError with file and cure."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; recipes live in recipes/") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML recipe ({error})") from None


def build(cls: type[T], values: dict, where: str, usual: T | None = None) -> T:
    """`cls(**values)` with names and types checked; nested dataclasses are built from nested tables.

    `where` names file and table in errors, such as `recipes/smoke.toml [denoiser]`. A key that is left out has its
    value in `usual`, else the default of `cls`: `[denoiser.loop]` with one key changes that one alone. Raises
    ConfigError.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(fields)}")
    defaults = {name: _default(field) if usual is None else getattr(usual, name) for name, field in fields.items()}
    missing = [name for name, default in defaults.items() if default is _NONE and name not in values]
    if missing:
        raise ConfigError(f"{where}: missing key {missing[0]!r}")
    resolved = {
        name: _convert(fields[name].type, value, f"{where} {name}", defaults[name]) for name, value in values.items()
    }
    try:
        return cls(**(defaults | resolved))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_toml(config: object) -> str:
    """A dataclass as TOML text, nested ones as tables: the resolved copy that lies in a run folder."""
    return _table("", config)


def _default(field: dataclasses.Field) -> object:
    """The default of a field, _NONE where it has none."""
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
    raise ConfigError(f"{where}: expected {wanted}, found {value!r}")


def _name(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(repr(choice) for choice in typing.get_args(kind))
    return getattr(kind, "__name__", str(kind))


def _convert_one(kind: object, value: object, where: str, usual: object) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
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
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    return _NONE


def _table(name: str, config: object) -> str:
    plain, nested = [f"[{name}]"] if name else [], []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            nested.append(_table(f"{name}.{f.name}".strip("."), value))
        elif value is not None:
            plain.append(f"{f.name} = {_toml(value)}")
    return "\n".join([*plain, ""]) + "".join("\n" + n for n in nested)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    # A TOML basic string is a JSON string, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
