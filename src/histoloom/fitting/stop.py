"""Two ways to end a run before its last step: a signal, which the same command resumes, and a file named `finish`."""

import signal
import threading
from pathlib import Path
from types import FrameType

import torch

from histoloom.errors import Interrupted
from histoloom.fitting.processes import World

FINISH = "finish"  # in the folder of a stage, or in the run folder above it
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Keeps SIGINT and SIGTERM until the loop asks, while the block runs; a second Ctrl-C acts at once, as it does
    elsewhere."""

    def __init__(self, folder: Path | None):
        self._folder, self._signal, self._old = folder, 0, {}

    def __enter__(self) -> "Stop":
        # Python delivers signals to the main thread only. A run in memory has nothing to save: signals act at once.
        if self._folder and threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._keep) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def wish(self, world: World) -> tuple[bool, bool]:
        """Whether a signal has come, and whether the run shall finish early: the same answer in every process."""
        mine = [self._signal > 0, _finish_is_asked(self._folder)]
        if world.num_processes > 1:
            together = world.reduce(torch.tensor(mine, device=world.device).int(), "sum")
            assert isinstance(together, torch.Tensor)
            mine = together.tolist()
        return bool(mine[0]), bool(mine[1])

    def error(self, step: int, steps: int) -> Interrupted:
        """The error that ends the run after the checkpoint of `step`."""
        number = self._signal or signal.SIGTERM  # another process got the signal
        name = {signal.SIGINT: "Ctrl-C"}.get(signal.Signals(number), signal.Signals(number).name)
        line = f"{self._folder}: stopped by {name} after step {step} of {steps}, which is saved"
        return Interrupted(f"{line}; the same command resumes", 128 + number)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        elsewhere = self._old.get(signal.Signals(number))
        if self._signal and number == signal.SIGINT and callable(elsewhere):
            elsewhere(number, frame)
        self._signal = number


def _finish_is_asked(folder: Path | None) -> bool:
    """Whether a file `finish` asks the stage in `folder` to end with the weights that it has."""
    return folder is not None and any((home / FINISH).exists() for home in (folder, folder.parent))
