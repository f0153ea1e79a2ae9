"""Parts of the input: a slide, or some rows of a patch dataset; each gives batches of pixels with their places.

A part is processed as a whole and its bytes depend on nothing else, so parts may be processed anywhere, in any order.
"""

import hashlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int, UInt8

from histoloom.discovery.embeddings import CHOSEN, open_chosen
from histoloom.errors import ConfigError, InputError, SlideError
from histoloom.parquet import guarded, open_parquet, read_batches
from histoloom.patches.dataset import read_description
from histoloom.patches.from_slides import COMMAND
from histoloom.patches.places import PlaceReader
from histoloom.patches.rules import SlideDataset, SlideList
from histoloom.patches.slide_jobs import SlideJob, find_jobs
from histoloom.patches.store import shards_of, splits
from histoloom.pictures import read_image
from histoloom.records import fingerprint
from histoloom.slides.labeling import AnnotationConfig
from histoloom.slides.reader import Slide, open_slide
from histoloom.slides.tissue import TissueMap, find_tissue, focus

ROWS_PER_PART = 1024  # patches of a dataset, or more where they are of one slide
_SOURCE = {"source": pa.string()}
_GRID = 10**8  # places on the grid of one slide


@dataclass(frozen=True)
class Cutting:
    """Which patches are cut from slides, or from the patches of a dataset."""

    mpp: float = 0.5  # micrometers per pixel; a dataset keeps its own
    size: int | None = None  # edge in pixels; None: 256 on slides, the whole patch of a dataset
    stride: int | None = None  # pixels from one patch to the next; None: the edge
    min_tissue: float = 0.5  # minimum share of tissue in a patch; slides only
    min_focus: float = 0.02  # minimum sharpness, see histoloom.slides.tissue.focus; 0 includes blurred patches
    split: str = "train"  # of a dataset
    slide_mpp: float | None = None  # micrometers per level-0 pixel, for slides that do not state it
    case_pattern: str | None = None  # regular expression whose one group in the file name of a slide is the case
    of_chosen: str | None = None  # folder of `discover choose` whose chosen patches alone are embedded

    def __post_init__(self):
        if not 0.001 <= self.mpp <= 1000 or (self.slide_mpp is not None and not 0.001 <= self.slide_mpp <= 1000):
            raise ConfigError(f"mpp {self.mpp}, slide_mpp {self.slide_mpp}: give micrometers in [0.001, 1000]")
        if self.size is not None and not 8 <= self.size <= 16384:
            raise ConfigError(f"size {self.size}: need size >= 8, and at most 16384")
        if self.stride is not None and not 1 <= self.stride <= 2**31:
            raise ConfigError(f"stride {self.stride}: need stride >= 1, and at most 2^31")
        if not 0 <= self.min_tissue <= 1 or not 0 <= self.min_focus < math.inf:
            raise ConfigError(f"min_tissue {self.min_tissue} must be in [0, 1], min_focus {self.min_focus} at least 0")


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches of one size and their places."""

    slides: list[str]
    cases: list[str]
    places: Int[np.ndarray, "n 3"]  # x, y and edge in level-0 pixels
    mpp: list[float | None]
    images: UInt8[np.ndarray, "n h w 3"]


Read = Callable[[], list[Batch]]  # reads pixels when called, in any thread


@dataclass(frozen=True)
class SlidePart:
    """One slide; `source` is its path relative to the folder of slides."""

    slide: Path
    source: str
    case: str
    files: tuple[Path, ...] = ()  # further files of the slide

    def fingerprint(self) -> str:
        """Which files it is; raises InputError where one cannot be read."""
        marks = [fingerprint(path, whole=False) for path in (self.slide, *self.files)]
        return marks[0] if len(marks) == 1 else hashlib.sha256(" ".join(marks).encode()).hexdigest()

    @property
    def name(self) -> str:
        """File name of the finished part."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16] + ".parquet"

    def __str__(self) -> str:
        return str(self.slide)

    @contextmanager
    def opened(self, cutting: Cutting, batch_size: int, notes: list[str]) -> Iterator[Iterator[Read]]:
        """Its patches on a grid, where there is tissue; the slide is open while the block runs.

        What is doubtful about the slide is added to `notes`. Raises SlideError for a slide without tissue or a damaged
        file.
        """
        with open_slide(self.slide, cutting.slide_mpp) as slide:
            notes += [*slide.notes, *slide.notes_at(cutting.mpp)]
            if cutting.of_chosen is None:
                places = iter(tissue_places(slide, find_tissue(slide), cutting))
            else:
                places = iter(_chosen_places(Path(cutting.of_chosen), self.source, slide, cutting))
            yield (partial(self._read, slide, chunk, cutting) for chunk in _chunks(places, batch_size))

    def _read(self, slide: Slide, places: list[tuple[int, int]], cutting: Cutting) -> list[Batch]:
        size = cutting.size or 256
        images = np.stack([slide.read(x, y, size, cutting.mpp) for x, y in places])
        sharp = focus(images) >= cutting.min_focus if cutting.min_focus > 0 else np.ones(len(images), bool)
        edge = round(size * cutting.mpp / slide.mpp)
        where = np.array([(x, y, edge) for x, y in places], np.int64)[sharp]
        count = len(where)
        return [Batch([self.source] * count, [self.case] * count, where, [cutting.mpp] * count, images[sharp])]


@dataclass(frozen=True)
class RowsPart:
    """Rows `start` to `stop` of one split of a patch dataset, not counting those of damaged shards."""

    dataset: Path
    split: str
    start: int
    stop: int
    damaged: tuple[str, ...] = ()  # names of shards

    @property
    def source(self) -> str:
        """The name of the input in the record."""
        return f"split {self.split}"

    def fingerprint(self) -> str:
        """Which rows the split holds; raises InputError where a shard cannot be read."""
        shards = shards_of(self.dataset, self.split)
        marks = [f"{path.name} {fingerprint(path, whole=False, dated=False)}" for path in shards]
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    @property
    def name(self) -> str:
        """File name of the finished part."""
        return f"{self.split}-{self.start:010d}.parquet"

    def __str__(self) -> str:
        return f"{self.dataset}: {self.split}, rows {self.start} to {self.stop}"

    @contextmanager
    def opened(self, cutting: Cutting, batch_size: int, notes: list[str]) -> Iterator[Iterator[Read]]:
        """Its patches, or the windows of `cutting.size` in them."""
        read_place = _place_reader(self.dataset)
        yield (partial(self._read, chunk, cutting, read_place) for chunk in _chunks(_rows_between(self), batch_size))

    def _read(self, rows: list[dict], cutting: Cutting, read_place: Callable[[dict], np.ndarray]) -> list[Batch]:
        cut = [piece for row in rows for piece in _windows(row, _pixels(row, read_place), cutting)]
        batches = []
        for _, same in groupby(cut, key=lambda piece: piece[2].shape):
            of, where, images = zip(*same, strict=True)
            names = [row["source"] for row in of], [row["case"] for row in of]
            mpp = [row["mpp"] for row in of]
            batches.append(Batch(*names, np.array(where, np.int64), mpp, np.stack(images)))
        return batches


@dataclass(frozen=True)
class DamagedShard:
    """A shard that cannot be read, as a part that is skipped and named like any other."""

    shard: Path
    split: str
    reason: str

    @property
    def source(self) -> str:
        """The name of the input in the record."""
        return f"split {self.split}"

    def fingerprint(self) -> str:
        """Which rows the split holds."""
        return RowsPart(self.shard.parents[1], self.split, 0, 0).fingerprint()

    @property
    def name(self) -> str:
        """File name of a part that is never written."""
        return f"{self.shard.stem}-damaged.parquet"

    def __str__(self) -> str:
        return str(self.shard)

    @contextmanager
    def opened(self, cutting: Cutting, batch_size: int, notes: list[str]) -> Iterator[Iterator[Read]]:
        """Raises InputError."""
        raise InputError(self.reason)
        yield


Part = SlidePart | RowsPart | DamagedShard


def find_parts(source: Path, cutting: Cutting, listing: Path | None = None) -> tuple[list[Part], list[str]]:
    """The parts of a patch dataset, a slide, or a folder of slides, and a note on each kind of file that is left out.

    `listing` is a CSV file whose column `slide` names the slides to use. Raises InputError where nothing is found.
    """
    if (source / "tissue.toml").is_file() and (source / "data").is_dir():
        if cutting.of_chosen is not None:
            raise ConfigError("--of-chosen is for slides; a dataset is embedded whole")
        return _dataset_parts(source.absolute(), cutting.split), []
    whole = AnnotationConfig(rest="tissue")  # find_jobs requires a type for slides without annotations
    config = SlideDataset(
        annotations=whole,
        listed=SlideList(slide="slide"),
        slide_mpp=cutting.slide_mpp,
        unannotated=True,
        val_share=0.0,
        case_pattern=cutting.case_pattern,
    )
    jobs, notes = find_jobs(source, None, config, listing)
    kept, copies = _without_copies(jobs)
    return [SlidePart(job.slide, job.source, job.case, job.files) for job in kept], notes + copies


def tissue_places(slide: Slide, tissue: TissueMap, cutting: Cutting) -> list[tuple[int, int]]:
    """Corners (x, y) of the patches with enough tissue, on a grid that starts at the corner of the slide.

    Raises SlideError where there is none, or where the grid is too fine.
    """
    scale, size = cutting.mpp / slide.mpp, cutting.size or 256
    edge, step = size * scale, (cutting.stride or size) * scale
    if math.prod(max(length / step, 1) for length in slide.size) > _GRID:
        raise SlideError(f"{slide.path}: has more than {_GRID:,} places at this --mpp and --stride; raise one of them")
    axes = [np.arange(0, length - edge + 1e-6, step).astype(np.int64) for length in slide.size]
    x, y = (np.unique(axis) for axis in axes)
    x, y = (grid.ravel() for grid in np.meshgrid(x, y))
    filled = tissue.fraction(np.stack([x, y, x + edge, y + edge], 1).astype(np.float64)) >= cutting.min_tissue
    if not filled.any():
        raise SlideError(
            f"{slide.path}: no patch of {size} px at {cutting.mpp:g} um/px holds {cutting.min_tissue:.0%} tissue; view "
            "it with `histoloom overlay`, lower --min-tissue, or leave the slide out"
        )
    return list(zip(x[filled].tolist(), y[filled].tolist(), strict=True))


def _dataset_parts(dataset: Path, split: str) -> list[Part]:
    """Parts of whole slides: consecutive rows of one source stay together."""
    if split not in splits(dataset):
        raise InputError(f"{dataset}: no split {split!r}; known: {', '.join(splits(dataset)) or 'none'}")
    borders, row, last, damaged = [0], 0, None, []
    for shard in shards_of(dataset, split):
        try:
            batches = list(read_batches(shard, 4096, ["source"], _SOURCE))
        except InputError as error:
            damaged.append(DamagedShard(shard, split, str(error)))
            continue
        for source in (source for batch in batches for source in batch["source"].to_pylist()):
            if source != last and row - borders[-1] >= ROWS_PER_PART:
                borders.append(row)
            row, last = row + 1, source
    names = tuple(part.shard.name for part in damaged)
    ends = zip(borders, [*borders[1:], row], strict=True) if row else ()
    return [*(RowsPart(dataset, split, start, stop, names) for start, stop in ends), *damaged]


def _chosen_places(folder: Path, source: str, slide: Slide, cutting: Cutting) -> list[tuple[int, int]]:
    """Corners of a slide's patches in `chosen.parquet`, which must have the size of the patches that are cut now."""
    open_chosen(folder)
    with guarded(folder / CHOSEN):
        rows = pq.read_table(folder / CHOSEN, columns=["x", "y", "size"], filters=[("slide", "=", source)])
    if not len(rows):
        raise InputError(f"{slide.path}: {folder}/{CHOSEN} has no patch of it; choose there first, or leave it out")
    edge = round((cutting.size or 256) * cutting.mpp / slide.mpp)
    if rows["size"][0].as_py() != edge:
        raise InputError(
            f"{slide.path}: patches in {folder}/{CHOSEN} span {rows['size'][0]} level-0 pixels, not {edge}; give the "
            "--mpp and --size of the chosen patches"
        )
    return list(zip(rows["x"].to_pylist(), rows["y"].to_pylist(), strict=True))


def _chunks(items: Iterator, count: int) -> Iterator[list]:
    while chunk := list(islice(items, count)):
        yield chunk


def _rows_between(part: RowsPart) -> Iterator[dict]:
    columns = ["image", "source", "x", "y", "size", "mpp", "case"]
    seen = 0
    for shard in shards_of(part.dataset, part.split):
        if shard.name in part.damaged:
            continue
        file = open_parquet(shard)
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if seen + count > part.start and seen < part.stop:
                with guarded(shard):
                    rows = file.read_row_group(group, columns).to_pylist()
                yield from rows[max(part.start - seen, 0) : part.stop - seen]
            seen += count


def _place_reader(dataset: Path) -> Callable[[dict], np.ndarray]:
    """Reads pixels of an index of places, one patch at a time: a PlaceReader closes slides that other threads read."""
    record = read_description(dataset)
    if record is None or record.get("command") != COMMAND:
        return _no_pixels
    reader, lock = PlaceReader(dataset), threading.Lock()

    def read(row: dict) -> np.ndarray:
        with lock:
            return reader.read(row)[0]

    return read


def _no_pixels(row: dict) -> NoReturn:
    raise InputError(f"{row['source']}: has neither pixels nor a slide to read them from; make the dataset again")


def _pixels(row: dict, read_place: Callable[[dict], np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    return read_image(row["image"]["bytes"] or b"", row["source"]) if row["image"] is not None else read_place(row)


def _windows(row: dict, image: np.ndarray, cutting: Cutting) -> Iterator[tuple[dict, tuple[int, int, int], np.ndarray]]:
    """The row with each window of its image and the place of the window; windows that do not fit are left out."""
    height, width = image.shape[:2]
    if cutting.size is None:
        yield row, (row["x"], row["y"], row["size"]), image
        return
    size, stride, scale = cutting.size, cutting.stride or cutting.size, row["size"] / width
    if size > min(height, width):
        raise InputError(f"{row['source']}: a patch of {width} x {height} px has no window of {size} px; lower --size")
    for top in range(0, height - size + 1, stride):
        for left in range(0, width - size + 1, stride):
            place = row["x"] + round(left * scale), row["y"] + round(top * scale), round(size * scale)
            yield row, place, image[top : top + size, left : left + size]


def _without_copies(jobs: list[SlideJob]) -> tuple[list[SlideJob], list[str]]:
    """The slides without copies of earlier ones: a slide that counts twice would pull types towards itself."""
    sizes = Counter(job.slide_bytes for job in jobs)
    kept, seen, notes = [], {}, []
    for job in jobs:
        mark = (job.slide_bytes, str(job.slide))
        if sizes[job.slide_bytes] > 1:
            with suppress(InputError):  # a slide that cannot be read is skipped later
                mark = (job.slide_bytes, fingerprint(job.slide, whole=False, dated=False))
        if mark in seen:
            notes.append(f"{job.slide}: is the same file as {seen[mark]} and is skipped; remove one of them")
            continue
        seen[mark] = job.slide
        kept.append(job)
    return kept, notes
