"""The processes that train together, or this one alone."""

import contextlib
import ctypes
from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from torch import Tensor, nn
from torch.optim import Optimizer

from histoloom.precision import best_device

# The main process cuts slides, encodes latents and trains the segmenter while the others wait for it. By default they
# give up after 10 minutes on GPUs and 30 on CPUs, and the launcher then ends the run.
PATIENCE = timedelta(days=7)


class Alone:
    """What `fit` uses of an Accelerator, for this process alone, whatever others do."""

    num_processes, process_index, is_main_process = 1, 0, True

    def __init__(self):
        self.device = torch.device(best_device())

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Both as they are."""
        return model, optimizer

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`."""
        loss.backward()

    def clip_grad_norm_(self, parameters: list[nn.Parameter], largest: float) -> Tensor:
        """Clip the gradients; returns their norm before."""
        return nn.utils.clip_grad_norm_(parameters, largest)

    def reduce(self, value: Tensor, how: str) -> Tensor:
        """The value: there is one process."""
        return value

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        """The model as it is."""
        return model

    def wait_for_everyone(self) -> None:
        """Return at once."""


World = Accelerator | Alone


def processes_together() -> Accelerator:
    """All processes of this run."""
    process_state()  # before Accelerator, which would make a group of its own
    # A batch may hold no crops at all, and then their encoder has no gradient.
    return Accelerator(
        mixed_precision="no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # pyright: ignore[reportArgumentType] (an invariant list in accelerate's signature)
    )


def process_state() -> PartialState:
    """This process among those of the run, which wait for each other as long as `PATIENCE`.

    By itself, `PartialState` knows no group of CPU processes.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def decided_by_main(decide: Callable[[], bool]) -> bool:
    """What `decide` says in the main process: all processes of the run call this, and get the same answer."""
    answer = [process_state().is_main_process and decide()]
    broadcast_object_list(answer)
    return answer[0]


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, where it is glibc."""
    # glibc returns large blocks to the kernel and faults them in again at every step: 40 % of a step on two cores.
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows wants a name
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)
