"""Weave batches in several processes or on a Ray cluster: the bytes of one process, in its order.

A worker gets the number of a batch and nothing else. It opens model, maps and crops itself, so that neither is sent,
and no more batches are in memory than workers need.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from histoloom.distributed import Workers, run_made
from histoloom.generation.dataset_order import DatasetOrder
from histoloom.generation.orders import make_orders
from histoloom.generation.patches import batch_starts, weave_batch
from histoloom.generation.self_check import Checking
from histoloom.generation.settings import Source, WeaveConfig
from histoloom.generation.woven_patch import AnnotatedPatch, Dropped
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.worker_pipeline import WorkerPipeline
from histoloom.progress import Bar


@dataclass(frozen=True)
class Share:
    """What a worker needs to weave its share; calling it opens the model, and returns what weaves a batch."""

    model: WorkerPipeline
    source: Source
    config: WeaveConfig
    mpp: float | None
    own_bank: bool
    checking: Checking | None
    threads: int  # 0: as many as torch takes

    @classmethod
    def of(
        cls,
        pipeline: HistoloomPipeline,
        source: Source,
        config: WeaveConfig,
        mpp: float | None,
        own_bank: bool,
        checking: Checking | None,
        workers: Workers,
    ) -> "Share":
        """The share of workers that weave what `pipeline` would; raises ConfigError where no folder holds it."""
        threads = 0 if workers.ray else max(1, torch.get_num_threads() // workers.count)
        return cls(WorkerPipeline.of(pipeline), _absolute(source), config, mpp, own_bank, checking, threads)

    def __call__(self) -> Callable[[int], list[AnnotatedPatch | Dropped]]:
        if self.threads:
            torch.set_num_threads(self.threads)
        pipeline = self.model.open()
        orders = make_orders(self.source, pipeline.table, self.config.seed, self.mpp, self.own_bank)
        check = self.checking and self.checking.open(orders.replacement, pipeline.table)
        return lambda start: weave_batch(pipeline, orders, self.config, start, self.mpp, check)


def weave_elsewhere(
    share: Share, first: int, count: int, workers: Workers, bar: Bar
) -> Iterator[AnnotatedPatch | Dropped]:
    """The patches from number `first` on, in order; `bar` counts them. Raises what weaving a batch raises."""
    starts = batch_starts(first, count, share.config)
    for outcome in run_made(share, starts, workers, gpu=torch.cuda.is_available()):
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        new = outcome.result[max(0, first - outcome.item) :]
        bar.advance(len(new))
        yield from new


def _absolute(source: Source) -> Source:
    """The source with absolute folders: a worker may run elsewhere."""
    maps = source.maps
    if isinstance(maps, Path):
        maps = maps.absolute()
    elif isinstance(maps, DatasetOrder) and maps.maps is not None:
        maps = replace(maps, maps=maps.maps.absolute())
    return replace(source, maps=maps, crops=None if source.crops is None else source.crops.absolute())
