"""The state of a run in one safetensors file, written whole or not at all.

Model, running average, optimizer and step are tensors; the identity of the run is JSON in the header. Nothing is
pickled. Data order and noise need no state: sample n of a run is a function of (seed, n).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from histoloom.errors import ModelError
from histoloom.files import whole_file
from histoloom.tensor_files import read_tensors, save_tensors

CHECKPOINT = "checkpoint.safetensors"
FORMAT = 2  # of a checkpoint and its identity; only the same format resumes


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, average: nn.Module, optimizer: Optimizer, identity: str
) -> None:
    """Write the state after `step` steps; `identity` (JSON) describes the run and guards `load_checkpoint`.

    Raises OutputError and keeps the checkpoint before it where the disk refuses.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    tensors["step"] = torch.tensor(step)
    with whole_file(folder / CHECKPOINT) as aside:
        save_tensors(tensors, aside, {"identity": identity})


def steps_done(folder: Path) -> int:
    """The step of the checkpoint in `folder`, 0 if there is none; raises ModelError for a damaged one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            return int(file.get_tensor("step"))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def load_checkpoint(folder: Path, model: nn.Module, average: nn.Module, optimizer: Optimizer, identity: str) -> int:
    """Restore the state in place and return its step; 0 if the folder holds no checkpoint.

    Raises ModelError for a checkpoint that is damaged or belongs to another run.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        tensors, metadata = read_tensors(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if (found := metadata.get("identity")) != identity:
        raise ModelError(
            f"{path}: was made by another run ({_difference(found, identity)}); give the run another folder, or "
            "restore its settings"
        )
    state: dict[int, dict[str, Tensor]] = {}
    try:
        model.load_state_dict(_part(tensors, "model."))
        average.load_state_dict(_part(tensors, "average."))
        for key, value in _part(tensors, "optimizer.").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(tensors["step"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(
            f"{path}: holds another architecture ({reason}); delete it to start over, or give the run another folder"
        ) from None


def running_average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights; the decay warms up as (1 + n) / (10 + n) to forget the start.

    With a decay of 0 it is the weights themselves.
    """

    def update(
        averages: tuple[Tensor, ...] | list[Tensor], weights: tuple[Tensor, ...] | list[Tensor], count: Tensor | int
    ) -> None:
        count = int(count)
        weight = 1 - min(decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averages, weights, weight)  # pyright: ignore[reportPrivateImportUsage] (has no public name)

    return AveragedModel(model, multi_avg_fn=update)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _unreadable(path: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    return ModelError(f"{path}: is not a readable checkpoint ({reason}); delete it to start over")


def _difference(old: str | None, new: str) -> str:
    try:
        then, now = _leaves(json.loads(old or "")), _leaves(json.loads(new))
    except (ValueError, RecursionError):
        return "its configuration is not recorded"
    if then.get("format") != now.get("format"):
        return f"its format is {then.get('format', 1)}; this version of Histoloom resumes format {now.get('format')}"
    key = min(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    cure = {
        "loop.steps": '; only a run with schedule = "constant" can change its number of steps',
        "precision": f'; this machine resumes it with precision = "{then.get(key)}"',
    }.get(key, "")
    return f"{key}: {then.get(key)} then, {now.get(key)} now{cure}"


def _leaves(values: object, name: str = "") -> dict[str, object]:
    """Values of nested dicts by dotted name."""
    if not isinstance(values, dict):
        return {name: values}
    return {k: v for key, value in values.items() for k, v in _leaves(value, f"{name}.{key}".strip(".")).items()}
