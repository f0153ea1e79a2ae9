"""Curves and pictures of a training, as TensorBoard reads them.

torch's SummaryWriter puts the host name into the file name, and creates a file even if nothing is logged; this does
neither.
"""

import time
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (generated)
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] (generated)
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from histoloom.disk import one_clear_line


class Curves:
    """Writes one event file per process start; the file appears with the first value."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: RecordWriter | None = None

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Add a point to a curve; raises OutputError."""
        self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def add_image(self, name: str, pixels: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Add a picture; raises OutputError."""
        summary: Summary = image(name, pixels, dataformats="HWC")
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Bring everything to the disk."""
        if self._writer is not None:
            with one_clear_line(self.folder):
                self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Curves":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, event: Event) -> None:
        with one_clear_line(self.folder):
            if self._writer is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / f"events.out.tfevents.{time.time_ns() // 1000}.histoloom"
                self._writer = RecordWriter(path.open("wb"))
                self._writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            self._writer.write(event.SerializeToString())
