"""A canvas in strips, woven by several processes or on a Ray cluster: the bytes of one process.

A strip takes windows above its first row, which decide what is there: they are woven for both strips. So two strips of
few steps take little more than the whole, and many strips of many steps take much more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import torch

from histoloom.canvas.ground import canvas_field
from histoloom.canvas.layout import Layout, Regions
from histoloom.canvas.parts import TILE, Parts
from histoloom.canvas.settings import CanvasConfig
from histoloom.conditioning.inputs import Crop
from histoloom.distributed import Workers, run_made
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.worker_pipeline import WorkerPipeline
from histoloom.progress import Bar, Progress

PARTS_ON_RAY = 8  # of a strip on a cluster, whose number of workers is unknown here
_LOOKS = 1.0  # seconds between two looks at what is finished


@dataclass(frozen=True, eq=False)
class Strips:
    """What a worker needs; calling it opens the model, and returns what weaves a strip."""

    model: WorkerPipeline
    path: Path  # of the map
    size: tuple[int, int] | None
    rest: str
    regions: Regions
    crops: dict[int, list[Crop]]
    config: CanvasConfig
    mpp: float
    rows: Path  # folder of the finished parts
    threads: int  # 0: as many as torch takes

    @classmethod
    def of(
        cls,
        pipeline: HistoloomPipeline,
        layout: Layout,
        regions: Regions,
        crops: dict[int, list[Crop]],
        config: CanvasConfig,
        mpp: float,
        parts: Parts,
        workers: Workers,
    ) -> "Strips":
        """The strips of the canvas that `pipeline` would weave; raises ConfigError where no folder holds it."""
        return cls(
            model=WorkerPipeline.of(pipeline),
            path=layout.path.absolute(),
            size=layout.size,
            rest=layout.rest,
            regions=regions,
            crops=crops,
            config=config,
            mpp=mpp,
            rows=parts.folder.absolute(),
            threads=0 if workers.ray else max(1, torch.get_num_threads() // workers.count),
        )

    def __call__(self) -> Callable[[tuple[int, int]], None]:
        if self.threads:
            torch.set_num_threads(self.threads)
        pipeline = self.model.open()
        layout = Layout(self.path, pipeline.table, self.size, self.rest)
        parts = Parts(self.rows, layout.shape)

        def weave(strip: tuple[int, int]) -> None:
            """Weave the parts from the first to the one before the last that are not there."""
            first, last = parts.finished(*strip), strip[1]
            if first < last:
                field, _ = canvas_field(pipeline, layout, self.regions, self.crops, self.config, self.mpp)
                parts.write(field.pixels(first * TILE), first, last)

        return weave


def weave_strips(
    strips: Strips, parts: Parts, workers: Workers, progress: Progress, say: Callable[[str], None]
) -> None:
    """Weave all parts that are not there; raises what weaving a strip raises."""
    count = max(1, parts.count // PARTS_ON_RAY) if workers.ray else min(workers.count, parts.count)
    ends = [parts.count * number // count for number in range(count + 1)]
    missing = parts.missing()
    height, width = parts.shape
    say(f"{width} x {height} px in {count} strips; {missing} of {parts.count} parts are left")
    if not missing:
        return
    with progress("weaving", missing, "parts") as bar:
        over = Event()
        watcher = Thread(target=_watch, args=(parts, missing, bar, over), daemon=True)
        watcher.start()
        try:
            for outcome in run_made(strips, pairwise(ends), workers, gpu=torch.cuda.is_available()):
                if outcome.error is not None:
                    raise outcome.error
        finally:
            over.set()
            watcher.join()


def _watch(parts: Parts, missing: int, bar: Bar, over: Event) -> None:
    """Advance the bar by the parts that others finish, until it is over."""
    known = missing
    while True:
        is_over = over.wait(_LOOKS)
        now = parts.missing()
        bar.advance(known - now)
        known = now
        if is_over:
            return
