"""A model folder that anybody has changed in any way opens, or is refused by one line of ours."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoloom.errors import HistoloomError
from histoloom.models.pipeline import HistoloomPipeline

FILES = (
    "model_index.json",
    "denoiser/config.json",
    "denoiser/diffusion_pytorch_model.safetensors",
    "autoencoder/config.json",
    "autoencoder/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
)
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    3,
    10**9,
    10**40,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "a" * 10**5,
    "../..",
    [],
    {},
    [[]],
)
SEEDS = 60


def change(value: Any, rng: np.random.Generator) -> Any:
    """The value with one part of it replaced by another."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))]
        return value | {key: change(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        at = int(rng.integers(len(value)))
        return [*value[:at], change(value[at], rng), *value[at + 1 :]]
    return VALUES[rng.integers(len(VALUES))]


def damage(path: Path, rng: np.random.Generator) -> None:
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_text(json.dumps(change(json.loads(data), rng)))
        return
    head = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        head[rng.integers(min(len(head), 4000))] = rng.integers(256)
    kinds = (bytes(head), data[: rng.integers(len(data))], data + b"x", b"", b"[" * 10**5)
    path.write_bytes(kinds[rng.integers(len(kinds))])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_model_is_refused_by_one_line_or_opens(tiny_model, tmp_path, seed):
    rng = np.random.default_rng(seed)
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    name = FILES[seed % len(FILES)]
    damage(model / name, rng)
    message = ""
    try:
        HistoloomPipeline.load(model)
    except HistoloomError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 700
