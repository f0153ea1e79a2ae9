"""Workers open the pipeline that they stand for, wherever they run."""

import pytest
import torch

from histoloom.errors import ConfigError
from histoloom.models import pipeline
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.worker_pipeline import WorkerPipeline


def test_a_worker_computes_where_the_run_does_and_not_on_the_best_device_that_it_has(tiny_model, monkeypatch):
    mine = HistoloomPipeline.load(tiny_model, torch.float32).to("cpu")
    moves, move = [], HistoloomPipeline.to
    monkeypatch.setattr(pipeline, "best_device", lambda: "cuda")
    monkeypatch.setattr(
        HistoloomPipeline,
        "to",
        lambda self, *to: moves.append(to[0]) or move(self, *["cpu" if t == "cuda" else t for t in to]),
    )
    assert WorkerPipeline.of(mine).open().computed_in == mine.computed_in == "fp32 on cpu"
    assert moves == ["cuda", "cpu"]


def test_a_worker_without_a_gpu_does_not_weave_for_a_run_on_one(tiny_model, monkeypatch):
    shared = WorkerPipeline(str(tiny_model), "", torch.bfloat16, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="a worker has no GPU, and the run weaves on one"):
        shared.open()
