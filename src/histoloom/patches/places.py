"""Pixels for an index of places: image and map are read from slide and annotation when they are asked for.

They are the pixels that `--pixels` would have written, since both are read by the same two calls.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.config import build
from histoloom.errors import InputError, SlideError
from histoloom.patches.dataset import read_description
from histoloom.patches.from_slides import COMMAND, PATHS, annotation_of
from histoloom.patches.rules import SlideDataset
from histoloom.patches.store import iter_rows, read_table, splits
from histoloom.records import fingerprint, read_json
from histoloom.slides.annotations import AnnotationMap
from histoloom.slides.reader import Slide, open_slide
from histoloom.text import shorten

OPEN_SLIDES = 8  # kept open at a time; each holds a cache of decoded tiles


class PlaceReader:
    """Reads the patches of a dataset made by `histoloom patches`, with pixels or without; pickles for data workers.

    `slides` and `annotations` are the folders of both, where these have moved since; otherwise they are read from
    `paths.local.json` of the dataset. Raises InputError when `folder` is another dataset.
    """

    def __init__(self, folder: Path | str, slides: Path | str | None = None, annotations: Path | str | None = None):
        self.folder = Path(folder)
        description = read_description(self.folder)
        if description is None or description.get("command") != COMMAND:
            raise InputError(f"{folder}: not made by `histoloom {COMMAND}`, so it has no slides to read from")
        self.table = read_table(self.folder)
        self.config: SlideDataset = build(SlideDataset, description["config"], f"{folder}/dataset.json")
        self._slides: dict[str, dict] = {slide["source"]: slide for slide in description["slides"]}
        if any("file" not in slide for slide in self._slides.values()):
            raise InputError(f"{folder}: was made by an older version of Histoloom; make it again")
        self._roots = self._read_roots(slides, annotations)
        self._open: OrderedDict[str, tuple[Slide, AnnotationMap]] = OrderedDict()

    def read(self, row: dict) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Image and semantic map of a row (its source, x and y).

        Raises SlideError where the slide is not in its folder, InputError where it or its annotation has changed.
        """
        slide, annotation = self._opened(row["source"])
        place = row["x"], row["y"], self.config.rules.size, self.config.rules.mpp
        return slide.read(*place), annotation.read(*place)

    def annotation(self, source: str) -> AnnotationMap:
        """The annotation of a slide of the dataset, read as the dataset was."""
        return self._opened(source)[1]

    def source_of(self, slide: Path) -> str:
        """The `source` of a slide file; raises InputError unless the dataset has exactly one slide of that name."""
        found = [source for source in self._slides if self._path(source) == slide.absolute()]
        found = found or [source for source in self._slides if Path(source).name == slide.name]
        if len(found) != 1:
            known = ", ".join(sorted(self._slides)[:3])
            raise InputError(f"{self.folder}: has {len(found)} slides named {slide.name}; it was made of {known}, ...")
        return found[0]

    def places(self, source: str) -> list[tuple[int, int, int]]:
        """x, y and edge, in level-0 pixels, of all patches of a slide."""
        columns = ["source", "x", "y", "size"]
        rows = (row for split in splits(self.folder) for row in iter_rows(self.folder, split, columns))
        return [(row["x"], row["y"], row["size"]) for row in rows if row["source"] == source]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def _read_roots(self, slides: Path | str | None, annotations: Path | str | None) -> dict[str, Path]:
        path = self.folder / PATHS
        known = read_json(path) if path.is_file() else {}
        given = {"slides": slides, "annotations": annotations}
        return {name: Path(given[name] or str(known.get(name, ""))).absolute() for name in given}

    def scale_of(self, source: str) -> tuple[float | None, bool]:
        """The micrometers per pixel that were given for a slide, if any, and whether they overrule its file."""
        mpp = self._slides[source]["mpp"]
        return mpp or self.config.slide_mpp, self.config.overrule_mpp or mpp is not None

    def _path(self, source: str) -> Path:
        return self._roots["slides"] / self._slides[source]["file"]

    def _opened(self, source: str) -> tuple[Slide, AnnotationMap]:
        if source not in self._open:
            if source not in self._slides:
                raise InputError(
                    f"{self.folder}: no slide {shorten(source)!r} in its dataset.json, which has {len(self._slides)}"
                )
            self._open[source] = self._open_slide(source)
            if len(self._open) > OPEN_SLIDES:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(source)
        return self._open[source]

    def _open_slide(self, source: str) -> tuple[Slide, AnnotationMap]:
        recorded, path = self._slides[source], self._path(source)
        annotation = self._roots["annotations"] / recorded["annotation"] if recorded["annotation"] else None
        moved = next((p for p in (path, annotation) if p is not None and not p.is_file()), None)
        if moved is not None:
            raise SlideError(
                f"{moved}: no such file; if the folders of {self.folder} have moved, write the new ones into "
                f"{self.folder / PATHS}"
            )
        changed = path.stat().st_size != recorded["bytes"]
        if sample := recorded.get("sample"):  # datasets of before have none
            changed = changed or fingerprint(path, whole=False, dated=False) != sample
        if annotation is not None:
            changed = changed or fingerprint(annotation) != recorded["annotation_sha256"]
        if changed:
            raise InputError(f"{path}: it or its annotation changed since {self.folder} was made; make that again")
        slide = open_slide(path, *self.scale_of(source))
        return slide, annotation_of(annotation, slide, self.table, self.config.annotations)
