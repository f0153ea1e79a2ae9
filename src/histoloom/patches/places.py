"""Pixels for an index of places: image and map are read from slide and annotation when they are asked for.

They are the pixels that `--pixels` would have written, since both are read by the same two calls.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.config import build
from histoloom.errors import InputError
from histoloom.patches.dataset import read_record
from histoloom.patches.from_slides import COMMAND, annotation_of
from histoloom.patches.rules import SlideDataset
from histoloom.patches.slide_jobs import file_sha256
from histoloom.patches.store import iter_rows, read_table, splits
from histoloom.slides.annotations import AnnotationMap
from histoloom.slides.reader import Slide, open_slide

OPEN_SLIDES = 8  # kept open at a time; each holds a cache of decoded tiles


class PlaceReader:
    """Reads the patches of a dataset made by `histoloom patches`, with pixels or without; pickles for data workers.

    Raises InputError when `folder` is no such dataset.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        record = read_record(self.folder)
        if record is None or record.get("command") != COMMAND:
            raise InputError(f"{folder}: not made by `histoloom {COMMAND}`, so it has no slides to read from")
        self.table = read_table(self.folder)
        self.config: SlideDataset = build(SlideDataset, record["config"], f"{folder}/dataset.json")
        self._jobs: dict[str, dict] = {job["source"]: job for job in record["slides"]}
        self._open: OrderedDict[str, tuple[Slide, AnnotationMap]] = OrderedDict()

    def read(self, row: dict) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Image and semantic map of a row (its source, x and y).

        Raises SlideError where the slide has gone, InputError where it or its annotation is no longer what it was.
        """
        slide, annotation = self._slide(row["source"])
        place = row["x"], row["y"], self.config.rules.size, self.config.rules.mpp
        return slide.read(*place), annotation.read(*place)

    def annotation(self, source: str) -> AnnotationMap:
        """The annotation of a slide of the dataset, read as the dataset was."""
        return self._slide(source)[1]

    def source_of(self, slide: Path) -> str:
        """The `source` of a slide file; raises InputError where the dataset has none of it."""
        found = [source for source, job in self._jobs.items() if Path(job["slide"]) == slide.absolute()]
        found = found or [source for source in self._jobs if Path(source).name == slide.name]
        if len(found) != 1:
            known = ", ".join(sorted(self._jobs)[:3])
            raise InputError(f"{self.folder}: has {len(found)} slides named {slide.name}; it was made of {known}, ...")
        return found[0]

    def places(self, source: str) -> list[tuple[int, int, int]]:
        """x, y and edge, in level-0 pixels, of all patches of a slide."""
        columns = ["source", "x", "y", "size"]
        rows = (row for split in splits(self.folder) for row in iter_rows(self.folder, split, columns))
        return [(row["x"], row["y"], row["size"]) for row in rows if row["source"] == source]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def _slide(self, source: str) -> tuple[Slide, AnnotationMap]:
        if source not in self._open:
            if source not in self._jobs:
                raise InputError(
                    f"{self.folder}: no slide {source!r} in its dataset.json; known: {len(self._jobs)} others"
                )
            self._open[source] = self._open_slide(self._jobs[source])
            if len(self._open) > OPEN_SLIDES:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(source)
        return self._open[source]

    def _open_slide(self, job: dict) -> tuple[Slide, AnnotationMap]:
        path, annotation = Path(job["slide"]), Path(job["annotation"]) if job["annotation"] else None
        slide = open_slide(path, self.config.slide_mpp)
        if path.stat().st_size != job["slide_bytes"] or file_sha256(annotation) != job["annotation_sha256"]:
            raise InputError(f"{path}: it or its annotation changed since {self.folder} was made; make that anew")
        return slide, annotation_of(annotation, slide, self.table, self.config.annotations)
