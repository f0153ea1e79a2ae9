"""The state of a run in one safetensors file, written aside and renamed.

Model, running average, optimiser and step are tensors; the configuration is text in the header. Nothing is pickled.
Data order and noise need no state: sample n of a run is a function of (seed, n).
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from histoloom.errors import ModelError, OutputError

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, average: nn.Module, optimizer: Optimizer, identity: str
) -> None:
    """Write the state after `step` steps; `identity` names the run's configuration and guards `load_checkpoint`."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    tensors["step"] = torch.tensor(step)
    aside = folder / (CHECKPOINT + ".partial")
    try:
        # One entry only: safetensors writes several in random order, and then equal runs end in unequal files.
        save_file(tensors, aside, metadata={"identity": identity})
        os.replace(aside, folder / CHECKPOINT)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"{folder}: cannot write the checkpoint ({error}); free some space and run the same command"
        ) from None


def load_checkpoint(folder: Path, model: nn.Module, average: nn.Module, optimizer: Optimizer, identity: str) -> int:
    """Restore the state in place and return its step; 0 when the folder holds no checkpoint.

    Raises ModelError when the checkpoint is damaged or was made under another configuration.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable checkpoint ({error}); delete it to start this stage anew") from None
    if metadata.get("identity") != identity:
        raise ModelError(
            f"{path}: was made under another configuration ({_difference(metadata.get('identity'), identity)}); "
            "give the run another folder, or restore the recipe"
        )
    try:
        model.load_state_dict(_part(tensors, "model."))
        average.load_state_dict(_part(tensors, "average."))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(
            f"{path}: holds another architecture ({reason}); delete it to start this stage anew, or give the run "
            "another folder"
        ) from None
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(tensors["step"] if "step" in tensors else metadata["step"])  # version 0.1.0 kept it in the header


def running_average(model: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """Exponential moving average of the weights; the decay warms up as (1 + n) / (10 + n) so that it forgets the
    start."""

    def update(averages: list[Tensor], weights: list[Tensor], count: int | Tensor) -> None:
        count = int(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + count) / (10 + count)))

    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=update)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _difference(old: str | None, new: str) -> str:
    try:
        then, now = _leaves(json.loads(old or "")), _leaves(json.loads(new))
    except json.JSONDecodeError:
        return "its configuration is not recorded"
    key = min(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return f"{key}: {then.get(key)} then, {now.get(key)} now"


def _leaves(values: object, name: str = "") -> dict[str, object]:
    """Values of nested dicts by dotted name."""
    if not isinstance(values, dict):
        return {name: values}
    return {k: v for key, value in values.items() for k, v in _leaves(value, f"{name}.{key}".strip(".")).items()}
