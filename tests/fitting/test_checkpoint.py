import os
import resource
import stat

import pytest
import torch
from safetensors.torch import safe_open
from torch import nn

from histoloom.errors import ModelError, OutputError
from histoloom.fitting.checkpoint import (
    CHECKPOINT,
    load_checkpoint,
    running_average,
    save_checkpoint,
)
from histoloom.tensor_files import save_tensors


def state(seed: int):
    """A model after three steps of Adam, its running average and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1))
    average = running_average(model, 0.9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        step(model, average, optimizer)
    return model, average, optimizer


def step(model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    average.update_parameters(model)


def test_a_restored_state_goes_on_bit_for_bit(tmp_path):
    saved, other = state(0), state(1)
    save_checkpoint(tmp_path, 3, *saved, identity="{}")
    assert load_checkpoint(tmp_path, *other, identity="{}") == 3
    for _ in range(2):
        step(*saved)
        step(*other)
    for mine, theirs in zip(saved[:2], other[:2], strict=True):
        for one, another in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(one, another)


def test_an_empty_folder_is_step_0(tmp_path):
    assert load_checkpoint(tmp_path, *state(0), identity="{}") == 0


def test_a_checkpoint_is_plain_tensors_with_the_identity_in_the_header(tmp_path):
    save_checkpoint(tmp_path, 3, *state(0), identity='{"seed": 0}')
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        assert file.metadata()["identity"] == '{"seed": 0}'
        assert file.get_tensor("step") == 3
        kinds = {key.split(".")[0] for key in file.keys()}  # noqa: SIM118 (not a dict)
    assert kinds == {"model", "average", "optimizer", "step"}


def test_a_full_disk_is_one_error_and_leaves_the_checkpoint_before_it(tmp_path):
    save_checkpoint(tmp_path, 3, *state(0), identity="{}")
    before = (tmp_path / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(
            OutputError,
            match=r"written \(File too large\); free some space and run again",
        ):
            save_checkpoint(tmp_path, 4, *state(0), identity="{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_the_permissions_are_those_of_the_umask_so_that_a_colleague_can_resume(tmp_path):
    old = os.umask(0o022)
    os.umask(old)
    save_checkpoint(tmp_path, 3, *state(0), identity="{}")
    assert stat.S_IMODE((tmp_path / CHECKPOINT).stat().st_mode) == 0o666 & ~old


def test_a_decay_of_0_averages_nothing():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = running_average(model, 0.0)
    for _ in range(3):
        model[0].weight.data.normal_()
        model(torch.randn(8, 3))
        average.update_parameters(model)
    for name, value in model.state_dict().items():
        assert torch.equal(average.module.state_dict()[name], value)


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        ('{"seed": 0}', "its format is 1; this version of Histoloom resumes format 2"),
        (
            '{"format": 2, "precision": "bf16"}',
            'precision: bf16 then, fp32 now; this machine resumes it with precision = "bf16"',
        ),
        (
            '{"format": 2, "precision": "fp32", "loop": {"steps": 9}}',
            "loop.steps: 9 then, 5 now; only a run with schedule",
        ),
        ("[" * 100_000, "its configuration is not recorded"),
        ("[]", "its format is 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path, identity, reason):
    save_checkpoint(tmp_path, 3, *state(0), identity=identity)
    mine = '{"format": 2, "precision": "fp32", "loop": {"steps": 5}}'
    if '"loop"' not in identity:
        mine = '{"format": 2, "precision": "fp32"}'
    with pytest.raises(ModelError, match="was made by another run") as caught:
        load_checkpoint(tmp_path, *state(0), identity=mine)
    assert reason in str(caught.value)


@pytest.mark.parametrize("wrong", [{"step": torch.zeros(3)}, {"optimizer.x.step": torch.zeros(1)}, {}])
def test_tensors_that_are_no_state_are_refused_in_one_line(tmp_path, wrong):
    save_tensors(wrong, tmp_path / CHECKPOINT, {"identity": "{}"})
    with pytest.raises(ModelError, match="holds another architecture"):
        load_checkpoint(tmp_path, *state(0), identity="{}")


def test_the_running_average_forgets_the_start_and_then_moves_slowly():
    model = nn.Linear(1, 1, bias=False)
    average = running_average(model, 0.5)
    values, expected = [1.0, 3.0, 5.0, 7.0, 2.0], None
    for count, value in enumerate(values):
        model.weight.data.fill_(value)
        average.update_parameters(model)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
