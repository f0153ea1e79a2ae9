"""Every number of every config is checked: nothing that is not finite, no integer without bounds, no negative seed."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import histoloom
from histoloom.errors import ConfigError


def configs() -> Iterator[type]:
    """The dataclasses whose instances a recipe or an option builds: those with a `__post_init__` and defaults only."""
    seen = set()
    for module in pkgutil.walk_packages(histoloom.__path__, "histoloom."):
        if module.name == "histoloom.__main__":
            continue
        for value in vars(importlib.import_module(module.name)).values():
            made_here = isinstance(value, type) and value.__module__ == module.name
            if made_here and dataclasses.is_dataclass(value) and value not in seen:
                fields = [f for f in dataclasses.fields(value) if f.init]
                optional = all(
                    f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING for f in fields
                )
                if fields and optional and "__post_init__" in vars(value):
                    seen.add(value)
                    yield value


def cases() -> list:
    found = []
    for config in configs():
        for f in dataclasses.fields(config):
            if f.type in (float, float | None):
                found += [(config, f.name, bad) for bad in (float("nan"), float("inf"), float("-inf"))]
            if f.type in (int, int | None):
                found += [(config, f.name, 10**18), (config, f.name, -(10**18))]
            if f.name == "seed":
                found += [(config, f.name, -1)]
    return [pytest.param(*case, id=f"{case[0].__name__}-{case[1]}-{case[2]}") for case in found]


@pytest.mark.parametrize(("config", "name", "value"), cases())
def test_a_number_that_no_setting_can_have_is_refused(config, name, value):
    with pytest.raises(ConfigError):
        config(**{name: value})
