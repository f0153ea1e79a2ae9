"""A pipeline as workers open it: with the same weights, in the same precision, on the same kind of device."""

from dataclasses import dataclass
from pathlib import Path

import torch

from histoloom.errors import ConfigError, ModelError
from histoloom.models.model_files import INDEX
from histoloom.models.pipeline import HistoloomPipeline


@dataclass(frozen=True)
class WorkerPipeline:
    """What a worker needs to open a pipeline that weaves the bytes of another one."""

    folder: str
    model_hash: str
    dtype: torch.dtype
    device: str  # cpu or cuda

    @classmethod
    def of(cls, pipeline: HistoloomPipeline) -> "WorkerPipeline":
        """What workers open in the place of `pipeline`; raises ConfigError where it was never saved."""
        folder = Path(str(pipeline.name_or_path or ""))
        if not (folder / INDEX).is_file():
            raise ConfigError("the model is in no folder that workers could open; save it and load it, or use 1 worker")
        denoiser = pipeline.denoiser
        return cls(str(folder.absolute()), pipeline.fingerprint, denoiser.dtype, denoiser.device.type)

    def open(self) -> HistoloomPipeline:
        """The pipeline; raises ModelError for other weights, ConfigError where this worker lacks the device."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "a worker has no GPU, and the run weaves on one, with other bytes than a CPU; use workers with a GPU, "
                "or weave it all on machines without one"
            )
        pipeline = HistoloomPipeline.load(self.folder, self.dtype)
        if pipeline.fingerprint != self.model_hash:
            raise ModelError(f"{self.folder}: holds other weights than those that weave; save the model and load it")
        return pipeline.to(self.device)
