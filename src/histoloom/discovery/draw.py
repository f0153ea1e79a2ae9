"""Draw maps of many slides at every level of their types, each slide on its own.

    MAPS/
      record.json                  settings, and fingerprints of slides and classifier
      found/SLIDE.tif              finest types, as predicted: hours of work, done once
      shares.parquet               share of each type, by slide and level
      100/maps/SLIDE.tif           the level of 100 types, named and merged: made from `found` in moments
      100/geojson/SLIDE.geojson    the same as polygons
      100/overlays/SLIDE.jpg       the same on a thumbnail of the slide
      100/tissue.toml levels.toml  what the ids mean, and to which coarser types they belong

`histoloom patches SLIDES --annotations MAPS/100/maps --tissue MAPS/100/tissue.toml` reads them as annotations.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from histoloom.discovery.classifier import TypePredictor
from histoloom.discovery.levels import write_levels
from histoloom.discovery.map_files import count_types, described_of, relabel, write_map, write_polygons
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.pseudo_maps import MapConfig, draw_rows, map_grid
from histoloom.discovery.slide_parts import SlidePart
from histoloom.distributed import ALONE, Workers, run_made
from histoloom.errors import InputError
from histoloom.files import run_folder, whole_file, write_text
from histoloom.parquet import parquet_writer
from histoloom.patches.slide_jobs import stem
from histoloom.progress import SILENT, Bar
from histoloom.records import Record
from histoloom.slides.annotations import read_annotations
from histoloom.slides.overlay import draw_overlay, save_overlay
from histoloom.slides.reader import Slide, open_slide
from histoloom.slides.tissue import find_tissue
from histoloom.text import counted

COMMAND, FORMAT = "discover maps of slides", 3
FOUND, SHARES = "found", "shares.parquet"
KINDS = {"maps": ".tif", "geojson": ".geojson", "overlays": ".jpg"}  # folder and suffix of the files of a level
OVERLAY_EDGE = 1024  # px
SHARE_COLUMNS = pa.schema(
    [("slide", pa.string()), ("case", pa.string()), ("level", pa.int64()), ("id", pa.int64()), ("name", pa.string()),
     ("share", pa.float64())]
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """What a run leaves: slides with maps, in order, one line for each slide that was skipped, and notes on slides."""

    slides: list[SlidePart]
    failures: list[str]
    notes: list[str]


class Drawer:
    """Draws slides into a folder; each worker calls `open_predictor` when the first slide needs it."""

    def __init__(
        self,
        open_predictor: Callable[[], TypePredictor],
        named: NamedTypes,
        config: MapConfig,
        folder: Path,
        slide_mpp: float | None = None,
        levels: tuple[int, ...] = (),
    ):
        self._open_predictor = open_predictor
        self._predict: TypePredictor | None = None
        self.named, self.config, self.folder, self.slide_mpp = named, config, folder, slide_mpp
        self.levels = tuple(named.at(count) for count in levels) or tuple(range(len(named.tables)))

    def __call__(self, part: SlidePart) -> list[str]:
        """Draw the missing files of a slide and return notes on what is doubtful about it; raises InputError where the
        slide is damaged or has no tissue."""
        found = found_map(self.folder, part)
        with open_slide(part.slide, self.slide_mpp) as slide:
            if not found.is_file():
                self._predict = self._predict or self._open_predictor()
                grid = map_grid(slide.size, slide.mpp, self._predict.window, self.config)
                rows = draw_rows(slide, find_tissue(slide), self._predict, self.config)
                write_map(found, rows, grid, slide.mpp, {"slide": part.source, "windows": grid.windows})
            for level in self.levels:
                self._write_level(part, slide, found, level)
            one = described_of(found).get("windows") == [1, 1]  # a map drawn by an earlier version does not say
            small = f"{part.slide}: is no larger than one window of the classifier, so all of its tissue has one type"
            return [*slide.notes, *([small] if one else [])]

    def _write_level(self, part: SlidePart, slide: Slide, found: Path, level: int) -> None:
        count, table = self.named.levels.counts[level], self.named.tables[level]
        ids = self.named.levels.of[level]
        mark = hashlib.sha256((table.to_toml() + str(ids.tolist())).encode()).hexdigest()[:16]
        path, polygons, overlay = (level_file(self.folder, count, kind, part) for kind in KINDS)
        if path.is_file() and polygons.is_file() and overlay.is_file() and described_of(path).get("names") == mark:
            return
        overlay.unlink(missing_ok=True)  # written last: it marks that all three are finished
        relabel(found, path, ids, table, {"types": count, "names": mark})
        write_polygons(polygons, path, table, (slide.bounds[0], slide.bounds[1]))
        drawn = read_annotations(path, table, slide.size, slide.mpp)
        save_overlay(draw_overlay(slide, None, drawn, table, edge=OVERLAY_EDGE), overlay)


def draw_maps(
    parts: Sequence[SlidePart],
    open_predictor: Callable[[], TypePredictor],
    fingerprint: str,
    named: NamedTypes,
    config: MapConfig,
    folder: Path,
    slide_mpp: float | None = None,
    levels: tuple[int, ...] = (),
    workers: Workers = ALONE,
    bar: Bar = SILENT,
) -> Drawn:
    """Draw maps of all slides into `folder` at `levels` (numbers of types; empty: all); continues an interrupted run.

    `fingerprint` is the fingerprint of the classifier. Other names, merges or levels are drawn from the predictions
    that exist. A broken slide is skipped and named in the result; the next run tries it again. Raises OutputError
    where `folder` holds maps of other slides, another classifier or other settings, InputError when no slide gave a
    map.
    """
    _check_one_each(parts)
    with run_folder(folder, _record(parts, fingerprint, config, slide_mpp), grows=True):
        make = partial(Drawer, open_predictor, named, config, folder.absolute(), slide_mpp, levels)
        drawn, failures, notes = [], [], []
        for outcome in run_made(make, parts, workers, gpu=True):
            if outcome.result is not None:
                drawn.append(outcome.item)
                notes += outcome.result
            else:
                failures.append(outcome.failure())
            bar.advance()
        if not drawn:
            raise InputError(f"no map of {counted(len(parts), 'slide')} was drawn: {failures[0]}")
        for level in (named.at(count) for count in levels or named.levels.counts):
            home = folder / str(named.levels.counts[level])
            write_text(home / "tissue.toml", named.tables[level].to_toml())
            write_levels(named.levels.up_to(level), home)
        _write_shares(drawn, named, folder)
    return Drawn(drawn, failures, notes)


def _record(parts: Sequence[SlidePart], fingerprint: str, config: MapConfig, slide_mpp: float | None) -> Record:
    """What decides the predictions. A slide that cannot be read has no fingerprint yet and is skipped."""
    inputs = {"classifier": fingerprint}
    for part in parts:
        with suppress(InputError):
            inputs[part.source] = part.fingerprint()
    settings = dataclasses.asdict(config) | {"slide_mpp": slide_mpp}
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def found_map(folder: Path, part: SlidePart) -> Path:
    """The file of the predicted finest types of a slide."""
    return folder / FOUND / _named_like(part, ".tif")


def level_file(folder: Path, count: int, kind: str, part: SlidePart) -> Path:
    """The file of map, polygons or overlay (a key of KINDS) of a slide at the level of `count` types."""
    return folder / str(count) / kind / _named_like(part, KINDS[kind])


def shares_of(counts: Int[np.ndarray, " 255"], named: NamedTypes, level: int) -> Float[np.ndarray, " k"]:
    """Share of each id of a level in the tissue of a slide that has `counts` pixels of each of the finest types."""
    ids, size = named.levels.of[level], named.tables[level].num_ids
    summed = np.bincount(ids, counts[: len(ids)], size)
    return summed / max(summed.sum(), 1)


def _write_shares(parts: list[SlidePart], named: NamedTypes, folder: Path) -> None:
    """Write one group of rows per slide: memory does not grow with their number."""
    with whole_file(folder / SHARES) as aside, parquet_writer(aside, SHARE_COLUMNS, compression="zstd") as writer:
        for part in parts:
            counts, rows = count_types(found_map(folder, part)), []
            for level, (count, table) in enumerate(zip(named.levels.counts, named.tables, strict=True)):
                shares = shares_of(counts, named, level)
                about = {"slide": part.source, "case": part.case, "level": count}
                rows += [about | {"id": t.id, "name": t.name, "share": float(shares[t.id])} for t in table.types]
            writer.write_table(pa.Table.from_pylist(rows, SHARE_COLUMNS))


def _named_like(part: SlidePart, suffix: str) -> Path:
    source = Path(part.source)
    return source.with_name(stem(source) + suffix)


def _check_one_each(parts: Sequence[SlidePart]) -> None:
    seen: dict[Path, str] = {}
    for part in parts:
        if (other := seen.setdefault(_named_like(part, ""), part.source)) != part.source:
            raise InputError(f"{part.slide}: its map would have the same name as that of {other}; rename one of them")
