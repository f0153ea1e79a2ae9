import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from histoloom.config import build, load_recipe, to_toml
from histoloom.errors import ConfigError
from histoloom.generation.settings import WeaveConfig


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    name: str = "a"


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[str, float] = ("x", 1.0)
    pairs: tuple[tuple[str, str], ...] = ()
    kind: Literal["fast", "slow"] = "fast"
    limit: int | None = None
    folder: Path = Path("runs")
    quick: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; give 1 or more")


ODD = 'C:\\data "one"\nline\ttab \x01 \x7f é'
CONFIGS = [
    Outer(1),
    Outer(3, Inner(1e-5, ODD), Inner(2.0), (), (ODD, -0.25), (("a", "b"), ("c", 'd"')), "slow", 7, Path("/a b"), True),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_survives_its_file(config):
    assert build(Outer, tomllib.loads(to_toml(config)), "there") == config


@dataclass(frozen=True)
class Usual:
    inner: Inner = field(default_factory=lambda: Inner(0.25, "usual"))
    outer: Outer = field(default_factory=lambda: Outer(7, Inner(0.125)))


def test_a_key_that_is_left_out_keeps_the_default_of_its_table():
    found = build(Usual, {"inner": {"rate": 0.75}, "outer": {"inner": {"name": "b"}}}, "there")
    assert found == Usual(Inner(0.75, "usual"), Outer(7, Inner(0.125, "b")))


@pytest.mark.usefixtures("untyped")
def test_numbers_of_numpy_are_those_of_python():
    given = WeaveConfig(
        seed=np.uint8(250), steps=np.int64(3), map_guidance=np.float32(1.5), guidance_interval=(np.float32(0.25), 1)
    )
    assert given == WeaveConfig(seed=250, steps=3, map_guidance=1.5, guidance_interval=(0.25, 1))
    assert to_toml(given) == to_toml(WeaveConfig(seed=250, steps=3, map_guidance=1.5, guidance_interval=(0.25, 1)))
    assert given.seed + 10 == 260
    with pytest.raises(ConfigError, match="seed is -1"):
        WeaveConfig(seed=np.int64(-1))


def test_whole_numbers_do_for_real_ones():
    assert build(Inner, {"rate": 2}, "there").rate == 2.0
    assert type(build(Inner, {"rate": 2}, "there").rate) is float


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"steps": 1, "stepz": 2}, "there: unknown key 'stepz'; known: steps, inner"),
        ({"steps": 1, "inner": {"rat": 2}}, "there inner: unknown key 'rat'; known: rate, name"),
        ({"steps": 1, "maybe": {"rat": 2}}, "there maybe: unknown key 'rat'; known: rate, name"),
        ({}, "there: missing key 'steps'"),
        ({"steps": "1"}, "there steps: expected int, found '1'"),
        ({"steps": 1.0}, "there steps: expected int, found 1.0"),
        ({"steps": True}, "there steps: expected int, found True"),
        ({"steps": 1, "quick": 1}, "there quick: expected bool, found 1"),
        ({"steps": 1, "inner": 3}, "there inner: expected Inner, found 3"),
        ({"steps": 1, "inner": {"rate": True}}, "there inner rate: expected float, found True"),
        ({"steps": 1, "sizes": [1, "2"]}, "there sizes: expected int, found '2'"),
        ({"steps": 1, "sizes": 1}, r"there sizes: expected tuple.*, found 1"),
        ({"steps": 1, "pair": ["x"]}, r"there pair: expected tuple.*, found \['x'\]"),
        ({"steps": 1, "kind": "quick"}, r"there kind: expected .*'fast', 'slow'.*, found 'quick'"),
        ({"steps": 1, "limit": "none"}, "there limit: expected int, found 'none'"),
        ({"steps": 0}, "there: steps is 0; give 1 or more"),
    ],
)
def test_a_mistake_is_named_by_table_and_key(values, told):
    with pytest.raises(ConfigError, match=f"^{told}"):
        build(Outer, values, "there")


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[data\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not a readable TOML recipe"):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml: not a readable TOML recipe"):
        load_recipe(tmp_path / "latin.toml")
