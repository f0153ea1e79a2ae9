"""Maps of many slides, at every level of their types, each slide on its own.

    MAPS/
      maps.json                    how the maps were drawn
      found/SLIDE.tif              finest types as they were found: the work of hours, done once
      shares.parquet               part of each type, by slide and level
      100/maps/SLIDE.tif           the level of 100 types, named and merged: made of `found` in moments
      100/geojson/SLIDE.geojson    the same as polygons
      100/overlays/SLIDE.jpg       the same on a thumbnail of the slide
      100/tissue.toml levels.toml  what its ids mean, and to which coarser types they belong

`histoloom patches SLIDES --annotations MAPS/100/maps --tissue MAPS/100/tissue.toml` takes them as annotations.
"""

import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from PIL import Image

from histoloom.discovery.classifier import NamesWindows
from histoloom.discovery.levels import write_levels
from histoloom.discovery.map_files import count_types, described_of, relabel, write_map, write_polygons
from histoloom.discovery.names import NamedTypes
from histoloom.discovery.parts import SlidePart
from histoloom.discovery.pseudo_maps import MapConfig, draw_rows, map_grid
from histoloom.distributed import ALONE, Workers, run_made
from histoloom.errors import InputError, OutputError
from histoloom.patches.slide_jobs import stem
from histoloom.slides.annotations import read_annotations
from histoloom.slides.overlay import draw_overlay
from histoloom.slides.reader import Slide, open_slide
from histoloom.slides.tissue import find_tissue

RECORD, FOUND, SHARES = "maps.json", "found", "shares.parquet"
KINDS = {"maps": ".tif", "geojson": ".geojson", "overlays": ".jpg"}  # folder and suffix of what a level has of a slide
OVERLAY_EDGE = 1024  # px
SHARE_COLUMNS = pa.schema(
    [("slide", pa.string()), ("case", pa.string()), ("level", pa.int64()), ("id", pa.int64()), ("name", pa.string()),
     ("share", pa.float64())]
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """What a run left: slides with maps, in order, and a line for each that was skipped."""

    slides: list[SlidePart]
    failures: list[str]


class Drawer:
    """Draws slides into a folder; `open_names` loads the classifier, once per worker, when a slide needs it."""

    def __init__(
        self,
        open_names: Callable[[], NamesWindows],
        named: NamedTypes,
        config: MapConfig,
        folder: Path,
        slide_mpp: float | None = None,
        levels: tuple[int, ...] = (),
    ):
        self._open_names, self._names = open_names, None
        self.named, self.config, self.folder, self.slide_mpp = named, config, folder, slide_mpp
        self.levels = tuple(named.at(count) for count in levels) or tuple(range(len(named.tables)))

    def __call__(self, part: SlidePart) -> str:
        """Draw what is missing of a slide; raises InputError where the slide is broken or without tissue."""
        found = found_map(self.folder, part)
        with open_slide(part.slide, self.slide_mpp) as slide:
            if not found.is_file():
                self._names = self._names or self._open_names()
                grid = map_grid(slide.size, slide.mpp, self._names.window, self.config)
                rows = draw_rows(slide, find_tissue(slide), self._names, self.config)
                write_map(found, rows, grid, slide.mpp, {"slide": part.source})
            for level in self.levels:
                self._write_level(part, slide, found, level)
        return part.source

    def _write_level(self, part: SlidePart, slide: Slide, found: Path, level: int) -> None:
        count, table = self.named.levels.counts[level], self.named.tables[level]
        ids = self.named.levels.of[level]
        mark = hashlib.sha256((table.to_toml() + str(ids.tolist())).encode()).hexdigest()[:16]
        path, polygons, overlay = (level_file(self.folder, count, kind, part) for kind in KINDS)
        if path.is_file() and overlay.is_file() and described_of(path).get("names") == mark:
            return
        overlay.unlink(missing_ok=True)  # written last, it says that all three are done
        relabel(found, path, ids, table, {"types": count, "names": mark})
        write_polygons(polygons, path, table, slide.bounds[:2])
        drawn = read_annotations(path, table, slide.size, slide.mpp)
        overlay.parent.mkdir(parents=True, exist_ok=True)
        aside = overlay.with_suffix(".partial")
        Image.fromarray(draw_overlay(slide, None, drawn, table, edge=OVERLAY_EDGE)).save(aside, "JPEG", quality=85)
        os.replace(aside, overlay)


def draw_maps(
    parts: list[SlidePart],
    open_names: Callable[[], NamesWindows],
    names_print: str,
    named: NamedTypes,
    config: MapConfig,
    folder: Path,
    slide_mpp: float | None = None,
    levels: tuple[int, ...] = (),
    workers: Workers = ALONE,
    advance: Callable[[], None] = lambda: None,
) -> Drawn:
    """Maps of all slides in `folder`, at `levels` (numbers of types; none: all), going on where a run stopped.

    `names_print` says whose maps these are. Other names and merges on the same maps name no window again. A broken
    slide is left out and named in the result. Raises OutputError where `folder` holds maps of another kind, InputError
    when no slide gave a map.
    """
    _check_one_each(parts)
    try:
        _begin(folder, {"names": names_print, "config": dataclasses.asdict(config), "slide_mpp": slide_mpp})
        make = partial(Drawer, open_names, named, config, folder.absolute(), slide_mpp, levels)
        drawn, failures = [], []
        for outcome in run_made(make, parts, workers, gpu=True):
            if outcome.error is None:
                drawn.append(outcome.item)
            else:
                failures.append(_named(outcome.item, outcome.error))
            advance()
        if not drawn:
            raise InputError(f"no map of {len(parts)} slides was drawn: {failures[0]}")
        for level in (named.at(count) for count in levels or named.levels.counts):
            home = folder / str(named.levels.counts[level])
            (home / "tissue.toml").write_text(named.tables[level].to_toml(), encoding="utf-8")
            write_levels(named.levels.up_to(level), home)
        _write_shares(drawn, named, folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); free some space, or name another folder"
        ) from None
    return Drawn(drawn, failures)


def found_map(folder: Path, part: SlidePart) -> Path:
    """Where the map of the finest types of a slide lies."""
    return folder / FOUND / _beside(part, ".tif")


def level_file(folder: Path, count: int, kind: str, part: SlidePart) -> Path:
    """Where the map, polygons or overlay (a key of KINDS) of a slide at the level of `count` types lies."""
    return folder / str(count) / kind / _beside(part, KINDS[kind])


def shares_of(counts: Int[np.ndarray, " 255"], named: NamedTypes, level: int) -> Float[np.ndarray, " k"]:
    """Part of each id of a level in the tissue of a slide with `counts` pixels of each of the finest types."""
    ids, size = named.levels.of[level], named.tables[level].num_ids
    summed = np.bincount(ids, counts[: len(ids)], size)
    return summed / max(summed.sum(), 1)


def _write_shares(parts: list[SlidePart], named: NamedTypes, folder: Path) -> None:
    """A group of rows for each slide: memory does not grow with their number."""
    aside = folder / f"{SHARES}.partial"
    with pq.ParquetWriter(aside, SHARE_COLUMNS, compression="zstd") as writer:
        for part in parts:
            counts, rows = count_types(found_map(folder, part)), []
            for level, (count, table) in enumerate(zip(named.levels.counts, named.tables, strict=True)):
                shares = shares_of(counts, named, level)
                about = {"slide": part.source, "case": part.case, "level": count}
                rows += [about | {"id": t.id, "name": t.name, "share": float(shares[t.id])} for t in table.types]
            writer.write_table(pa.Table.from_pylist(rows, SHARE_COLUMNS))
    os.replace(aside, folder / SHARES)


def _begin(folder: Path, recipe: dict) -> None:
    path = folder / RECORD
    recipe = json.loads(json.dumps(recipe))
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != recipe:
            raise OutputError(
                f"{folder}: holds maps by another classifier or of other settings; name another folder, or remove it"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: exists already; name another folder, or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.partial")
    aside.write_text(json.dumps(recipe, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _beside(part: SlidePart, suffix: str) -> Path:
    source = Path(part.source)
    return source.with_name(stem(source) + suffix)


def _check_one_each(parts: list[SlidePart]) -> None:
    seen: dict[Path, str] = {}
    for part in parts:
        if (other := seen.setdefault(_beside(part, ""), part.source)) != part.source:
            raise InputError(f"{part.slide}: its map would have the name of that of {other}; rename one of them")


def _named(part: SlidePart, error: InputError) -> str:
    line = " ".join(str(error).split())
    return line if part.slide.name in line else f"{part.slide}: {line}"
