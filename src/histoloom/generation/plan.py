"""Estimate the cost of weaving patches before it starts, and what is left of a run that has begun.

The rate is measured: some of the patches are woven and written to a temporary folder. The output folder is only read.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from histoloom import files
from histoloom.generation.patches import weave_batch
from histoloom.generation.self_check import Checking
from histoloom.generation.settings import Source, WeaveConfig
from histoloom.generation.woven_folder import Work, prepare
from histoloom.generation.woven_writer import count_finished, write_patches
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.records import refuse_other_run
from histoloom.text import byte_size, counted


@dataclass(frozen=True, kw_only=True)
class WeavingPlan:
    """What is left to weave, and what it costs on this machine in one process."""

    patches: int
    left: int
    measured: int  # patches that were woven to measure
    rate: float  # patches per second, with all attempts and checks
    disk: int  # bytes that are left to write
    free: int  # bytes on the disk of the output

    @property
    def hours(self) -> float:
        """Hours that are left."""
        return self.left / self.rate / 3600


def plan_folder(
    pipeline: HistoloomPipeline,
    source: Source,
    config: WeaveConfig,
    out: Path,
    own_bank: bool = False,
    checking: Checking | None = None,
) -> WeavingPlan:
    """Measure what `weave_folder` costs from here on, on one batch of patches that are spread over all.

    Raises what weaving would raise for inputs that cannot be used and a folder of another run.
    """
    work = prepare(pipeline, source, config, out, own_bank, checking)
    left = len(work.orders) - _finished(out, work)
    place = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if not left:
        return WeavingPlan(patches=len(work.orders), left=0, measured=0, rate=1.0, disk=0, free=free)
    numbers = np.linspace(0, len(work.orders) - 1, min(len(work.orders), config.batch_size)).astype(int)
    some = [work.orders[int(number)] for number in numbers]
    with tempfile.TemporaryDirectory(prefix="histoloom-plan-") as folder:
        weave_batch(pipeline, some, replace(config, batch_size=1), 0, work.mpp, work.check)  # warms up
        start = time.perf_counter()
        written = Path(folder) / "woven"
        write_patches(
            lambda first: weave_batch(pipeline, some, config, 0, work.mpp, work.check),
            pipeline.table,
            written,
            work.record,
        )
        rate = len(some) / (time.perf_counter() - start)
        size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file()) / len(some)
    return WeavingPlan(
        patches=len(work.orders), left=left, measured=len(some), rate=rate, disk=int(size * left), free=free
    )


def describe(plan: WeavingPlan) -> str:
    """The plan as text."""
    if not plan.left:
        return counted(plan.patches, "patch, which is woven", "patches, all of which are woven")
    enough = "" if plan.disk < plan.free else ": not enough"
    return (
        f"{counted(plan.patches, 'patch')}, {plan.left:,} left; measured on {plan.measured} of them, in one process on "
        f"this machine as it is now\n"
        f"time: {plan.hours:,.2f} hours at {plan.rate:,.2f} patches/s\n"
        f"disk: {byte_size(plan.disk)} of {byte_size(plan.free)} that are free{enough}"
    )


def _finished(out: Path, work: Work) -> int:
    """How many patches of this run there are; raises OutputError where `out` is of another run."""
    if files.is_finished(out, work.record):
        return len(work.orders)
    aside = out.with_name(f"{out.name}{files.PARTIAL}")
    if (found := files.read_record(aside)) is None:
        return 0
    refuse_other_run(aside, found, work.record)
    return count_finished(aside)
