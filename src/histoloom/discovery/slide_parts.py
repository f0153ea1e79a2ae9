"""A slide as a part of the input: its patches on a grid where there is tissue."""

import filecmp
import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from histoloom.discovery.cutting import Batch, Cutting, Read, chunks
from histoloom.discovery.embeddings import CHOSEN, open_chosen
from histoloom.errors import InputError, SlideError
from histoloom.parquet import read_rows
from histoloom.patches.slide_jobs import SlideJob
from histoloom.records import fingerprint
from histoloom.slides.reader import Slide, open_slide
from histoloom.slides.tissue import TissueMap, find_tissue, focus

_GRID = 10**8  # places on the grid of one slide


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
            yield (partial(self._read, slide, chunk, cutting) for chunk in chunks(places, batch_size))

    def _read(self, slide: Slide, places: list[tuple[int, int]], cutting: Cutting) -> list[Batch]:
        size = cutting.size or 256
        images = np.stack([slide.read(x, y, size, cutting.mpp) for x, y in places])
        sharp = focus(images) >= cutting.min_focus if cutting.min_focus > 0 else np.ones(len(images), bool)
        edge = round(size * cutting.mpp / slide.mpp)
        where = np.array([(x, y, edge) for x, y in places], np.int64)[sharp]
        count = len(where)
        return [Batch([self.source] * count, [self.case] * count, where, [cutting.mpp] * count, images[sharp])]


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


def _chosen_places(folder: Path, source: str, slide: Slide, cutting: Cutting) -> list[tuple[int, int]]:
    """Corners of a slide's patches in `chosen.parquet`, which must have the size of the patches that are cut now."""
    open_chosen(folder)
    rows = read_rows(folder / CHOSEN, ["x", "y", "size"], filters=[("slide", "=", source)])
    if not len(rows):
        raise InputError(f"{slide.path}: {folder}/{CHOSEN} has no patch of it; choose there first, or leave it out")
    edge = round((cutting.size or 256) * cutting.mpp / slide.mpp)
    if rows["size"][0].as_py() != edge:
        raise InputError(
            f"{slide.path}: patches in {folder}/{CHOSEN} span {rows['size'][0]} level-0 pixels, not {edge}; give the "
            "--mpp and --size of the chosen patches"
        )
    return list(zip(rows["x"].to_pylist(), rows["y"].to_pylist(), strict=True))


def without_copies(jobs: list[SlideJob]) -> tuple[list[SlideJob], list[str]]:
    """The slides without copies of earlier ones: a slide that counts twice would pull types toward itself."""
    sizes = Counter(job.slide_bytes for job in jobs)
    kept, seen, notes = [], {}, []
    for job in jobs:
        alike = seen.setdefault(_sample(job) if sizes[job.slide_bytes] > 1 else str(job.slide), [])
        if (first := next((other for other in alike if _is_copy(job.slide, other)), None)) is not None:
            notes.append(f"{job.slide}: is the same file as {first} and is skipped; remove one of them")
            continue
        alike.append(job.slide)
        kept.append(job)
    return kept, notes


def _sample(job: SlideJob) -> str:
    with suppress(InputError):  # a slide that cannot be read is skipped later
        return fingerprint(job.slide, whole=False, dated=False)
    return str(job.slide)


def _is_copy(one: Path, other: Path) -> bool:
    """Whether two files whose samples agree are equal: files without compression may differ in their middle alone."""
    with suppress(OSError):
        return filecmp.cmp(one, other, shallow=False)
    return False
