"""Maps and crops that work at once: drawn by a procedure, with crops of the bank."""

from dataclasses import dataclass

import numpy as np

from histoloom.conditioning.inputs import Crop, content_id
from histoloom.errors import HistoloomError, RequestError
from histoloom.generation.layouts import background_of
from histoloom.generation.settings import DrawnMaps, WeaveConfig
from histoloom.studio.catalog import Catalog, Model
from histoloom.studio.shelf import Picture, Shelf, url_of
from histoloom.studio.task import Task
from histoloom.tissue import UNLABELLED

MOST = 4
TRIED = 24  # layouts among which examples of different types are looked for


@dataclass(frozen=True, eq=False)
class Example:
    """A task by name, and the name of the picture of its map."""

    name: str
    task: Task
    map: str


class Examples:
    """The examples of the first model; none for a model of one type."""

    def __init__(self, catalog: Catalog):
        self.shelf = Shelf(2**30)
        self.all = {example.name: example for example in self._drawn(catalog.models[0])}

    def rows(self) -> list[dict]:
        """What the page shows of them."""
        return [{"name": name, "url_map": url_of(example.map)} for name, example in self.all.items()]

    def start(self, name: str) -> dict:
        """What weaves an example; raises RequestError for a name that is none."""
        if name not in self.all:
            raise RequestError("there is no such example", 404)
        example = self.all[name]
        task, model = example.task, example.task.model
        height, width = task.semantic_map.shape
        names = {tissue.id: tissue.name for tissue in model.table.types}
        crops = [{"crop": c.source, "tissue": names[c.tissue], "url": url_of(c.source)} for c in task.crops]
        _, usual = model.pipeline.resolve(task.config)
        settings = {name: getattr(usual, name) for name in ("steps", "map_guidance", "crop_guidance", "seed")}
        start = {"map": url_of(example.map), "width": width, "height": height, "crops": crops}
        return start | {"settings": settings | {"model": model.name}, "inpaint": None}

    def _drawn(self, model: Model) -> list[Example]:
        found: dict[str, Example] = {}
        names, ground = {tissue.id: tissue.name for tissue in model.table.types}, background_of(model.table).id
        for number in range(TRIED):
            try:
                drawn = model.layout(DrawnMaps.size, DrawnMaps.size, number)
            except HistoloomError:
                return []
            title = " and ".join(names[i] for i in np.unique(drawn).tolist() if i not in (ground, UNLABELLED))
            if title in found:
                continue
            chosen = model.bank.draw(drawn, np.random.default_rng(number)) if model.bank.sets else []
            crops = [Crop(crop.pixels, crop.tissue, content_id(crop.pixels)) for crop in chosen]
            task = Task(model, drawn, crops, WeaveConfig(seed=0))
            found[title] = Example(title, task, self.shelf.put(Picture(drawn)))
            if len(found) == MOST:
                break
        return list(found.values())
