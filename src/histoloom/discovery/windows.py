"""Pixels of single windows at the places in embeddings and assignments, from slides or from a patch dataset."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, UInt8

from histoloom.discovery.classifier import Window
from histoloom.discovery.cluster import ASSIGNMENTS
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.embedding_run import read_embedding
from histoloom.discovery.embeddings import CHOSEN, open_chosen, open_table
from histoloom.errors import ConfigError, InputError
from histoloom.parquet import guarded, open_parquet, read_rows
from histoloom.patches.places import OPEN_SLIDES, PlaceReader
from histoloom.patches.split import hold_out
from histoloom.patches.store import has_pixels, iter_rows, load_patches
from histoloom.pictures import read_image
from histoloom.slides.reader import Slide, open_slide

ReadWindow = Callable[[str, int, int, int], UInt8[np.ndarray, "h w 3"]]  # slide, x, y and edge in level-0 pixels


@dataclass(frozen=True, eq=False)
class Assigned:
    """Windows with their places, finest types and cases."""

    slides: list[str]
    cases: list[str]
    places: Int[np.ndarray, "n 3"]  # x, y and edge in level-0 pixels
    types: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.slides)

    def held_out(self, share: float, seed: int) -> Bool[np.ndarray, " n"]:
        """Which windows are held out for testing, by case; raises InputError where there is only one case."""
        return hold_out(self.cases, share, seed)


def read_assigned(folder: Path) -> Assigned:
    """The windows in a folder of `histoloom discover`, with types and cases; raises InputError for none."""
    path = folder / ASSIGNMENTS
    if not path.is_file():
        raise InputError(f"{folder}: its windows have no types yet; run `histoloom discover cluster` first")
    with open_parquet(path, dict.fromkeys(("x", "y", "size", "type"), pa.int64()) | {"slide": pa.string()}):
        pass  # its columns are right
    open_chosen(folder)  # checks it
    found = read_rows(path, ["slide", "x", "y", "size", "type"], read_dictionary=["slide"])
    with guarded(path):
        found.validate(full=True)  # such as text that is not UTF-8
    chosen = read_rows(folder / CHOSEN, ["slide", "case_id"], read_dictionary=["slide", "case_id"])
    with guarded(folder / CHOSEN):
        chosen.validate(full=True)
    if any(found[name].null_count for name in found.column_names) or (found["type"].to_numpy() < 0).any():
        raise InputError(f"{path}: has windows without place or type; run `histoloom discover cluster` again")
    pairs = chosen.unify_dictionaries().group_by(["slide", "case_id"]).aggregate([])
    cases = dict(zip(pairs["slide"].to_pylist(), pairs["case_id"].to_pylist(), strict=True))
    slides = _shared(found["slide"])
    if missing := set(slides) - set(cases):
        raise InputError(f"{path}: {min(missing)} is not in {CHOSEN}; run `histoloom discover cluster` again")
    places = np.stack([found[name].to_numpy() for name in ("x", "y", "size")], 1).astype(np.int64)
    return Assigned(slides, [cases[s] for s in slides], places, found["type"].to_numpy().astype(np.int64))


def _shared(column: pa.ChunkedArray) -> list[str]:
    """A dictionary column as a list in which equal strings are one object: 8 bytes for each of many millions."""
    column = column.unify_dictionaries().combine_chunks()
    names = column.dictionary.to_pylist()
    return [names[index] for index in column.indices.to_pylist()]


def open_windows(folder: Path) -> tuple[ReadWindow, Window]:
    """A reader of the windows that were embedded in `folder`, and their kind; raises InputError for none."""
    source, config = read_embedding(folder)
    if not source.exists():
        raise InputError(f"{source}: is gone, and its pixels are needed; move it back, or embed again")
    window = window_of(folder)
    if is_dataset(source):
        return DatasetWindows(source, config.cutting), window
    return SlideWindows(source, window, config.cutting.slide_mpp), window


def window_of(folder: Path) -> Window:
    """The windows that the encoder saw when it embedded `folder`."""
    source, config = read_embedding(folder)
    cutting = config.cutting
    if not is_dataset(source):
        return Window(cutting.size or 256, cutting.mpp)
    first = next(open_table(folder).batches(1, ["mpp"])).to_pylist()[0]
    return Window(cutting.size or _width(source, cutting.split), first["mpp"])


def is_dataset(source: Path) -> bool:
    """True for a patch dataset, False for a slide or a folder of slides."""
    return (source / "tissue.toml").is_file() and (source / "data").is_dir()


def _width(dataset: Path, split: str) -> int:
    """Edge of the patches of a dataset, in their own pixels."""
    row = next(iter_rows(dataset, split, ["image", "source", "x", "y", "size"], skip_damaged=True))
    image = (
        read_image(row["image"]["bytes"] or b"", row["source"]) if row["image"] else PlaceReader(dataset).read(row)[0]
    )
    return image.shape[1]


class DatasetWindows:
    """Reads windows from the patches of one split of a dataset, which it keeps in memory.

    Damaged shards, which `embed` has skipped and named, are left out.
    """

    def __init__(self, dataset: Path, cutting: Cutting):
        read = None if has_pixels(dataset, cutting.split, skip_damaged=True) else PlaceReader(dataset).read
        self._dataset, self._patches = dataset, load_patches(dataset, cutting.split, read, skip_damaged=True)
        self.width = self._patches.images.shape[2]
        self._by_source: dict[str, list[int]] = {}
        for index, source in enumerate(self._patches.sources):
            self._by_source.setdefault(source, []).append(index)

    def __call__(self, slide: str, x: int, y: int, size: int) -> UInt8[np.ndarray, "h w 3"]:
        """The window at a place; raises InputError where no patch contains it."""
        for index in self._by_source.get(slide, ()):
            left, top, edge = self._patches.places[index].tolist()
            if left <= x and top <= y and x + size <= left + edge and y + size <= top + edge:
                scale = self.width / edge
                column, row, length = (round(value * scale) for value in (x - left, y - top, size))
                return self._patches.images[index][row : row + length, column : column + length]
        raise InputError(f"{self._dataset}: has no patch of {slide} at {x}, {y}; embed it again")


class SlideWindows:
    """Reads windows of slides below one folder, of which it keeps a few open; can be pickled for data workers.

    Raises ConfigError for windows of unknown mpp.
    """

    def __init__(self, slides: Path, window: Window, slide_mpp: float | None = None):
        self._root = slides if slides.is_dir() else slides.parent
        if window.mpp is None:
            raise ConfigError("windows of unknown mpp cannot be read from slides; embed the slides again")
        self._edge, self._mpp, self._slide_mpp = window.edge, window.mpp, slide_mpp
        self._open: OrderedDict[str, Slide] = OrderedDict()

    def __call__(self, slide: str, x: int, y: int, size: int) -> UInt8[np.ndarray, "h w 3"]:
        """The window at a place; raises InputError for a slide outside the folder."""
        if slide not in self._open:
            self._open[slide] = open_slide(self._path_of(slide), self._slide_mpp)
            if len(self._open) > OPEN_SLIDES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(slide)
        return self._open[slide].read(x, y, self._edge, self._mpp)

    def _path_of(self, slide: str) -> Path:
        # Assignments may come from others: no name in them may lead out of the folder of slides.
        path = self._root / slide
        if Path(slide).is_absolute() or ".." in Path(slide).parts or "\\" in slide:
            raise InputError(f"{slide!r:.200}: leaves the folder of slides; embed your own slides instead")
        return path

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}
