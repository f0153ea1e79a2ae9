"""The patches that benchmarks of a model weave again, for maps of a split and crops of other patches of the case."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from outlined import outlined

from histoloom.cli.progress import bar
from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.generation.order import Order
from histoloom.generation.patches import WeaveConfig, weave
from histoloom.generation.woven_reader import read_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import Patches
from histoloom.records import Record
from histoloom.tissue import TissueTable


@dataclass(frozen=True)
class Task:
    """The patches that are woven again: their numbers in `patches`, and one list of crops for each."""

    patches: Patches
    chosen: list[int]
    orders: list[Order]

    @property
    def cases(self) -> list[str]:
        """Case of each woven patch."""
        return [self.patches.cases[i] for i in self.chosen]

    def pairs(self) -> list[tuple[int, int]]:
        """All (number of the patch, number of its crop)."""
        return [(i, j) for i, order in enumerate(self.orders) for j in range(len(order.crops))]


def make_task(patches: Patches, count: int, seed: int, per_type: int) -> Task:
    """`count` patches drawn without replacement, and their crops, which come from other patches of the case."""
    rng = np.random.default_rng(seed)
    references = ReferenceCrops(patches, CropConfig(per_type=per_type, drop_type=0.0, candidates=1))
    chosen = rng.permutation(len(patches))[:count].tolist()
    orders = []
    for index in chosen:
        wanted = patches.semantic_maps[index]
        nowhere = np.zeros(wanted.shape, bool)  # no crop from the patch itself
        orders.append(Order(wanted, patches.names[index], references.draw(index, nowhere, wanted, None, rng)))
    return Task(patches, chosen, orders)


def with_lumens(task: Task, table: TissueTable) -> Task:
    """The task with maps that outline lumens, as the model is to see them."""
    maps = outlined(task.patches, table)
    orders = [replace(order, semantic_map=maps[i]) for i, order in zip(task.chosen, task.orders, strict=True)]
    return replace(task, orders=orders)


def weave_task(pipeline: HistoloomPipeline, task: Task, config: WeaveConfig, record: Record, out: Path) -> np.ndarray:
    """Weave the task into `out`, going on where an interrupted run stopped; images `n h w 3`."""
    with bar("weaving", len(task.orders), "patches") as running:

        def from_number(first: int):
            running.advance(first)
            return weave(pipeline, task.orders, config, first, running)

        write_patches(from_number, pipeline.table, out, record)
    return read_woven(out).images
