"""Slides and their annotations become a patch dataset, slide by slide.

Each finished slide leaves one part, and a picture of what was taken, in the folder written aside; a killed run finds
them again. When all slides are done the parts are joined in the order of the slides, so that the shards do not depend
on the number of workers. A slide whose part is whole is never opened again; one whose part is not leaves no row.
"""

import dataclasses
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from histoloom.distributed import ALONE, Workers, run_items
from histoloom.errors import HistoloomError, InputError, OutputError
from histoloom.patches.card import SplitSummary, summarize, write_card
from histoloom.patches.dataset import content_hash, read_record
from histoloom.patches.extract import find_patches, patch_row
from histoloom.patches.rules import SlideDataset
from histoloom.patches.schema import schema
from histoloom.patches.slide_jobs import SlideJob
from histoloom.patches.store import open_parquet, write_record, write_shards
from histoloom.slides.annotations import AnnotationMap, read_annotations
from histoloom.slides.labelling import AnnotationConfig
from histoloom.slides.overlay import draw_overlay
from histoloom.slides.rasterize import PolygonMap
from histoloom.slides.reader import Slide, open_slide
from histoloom.slides.tissue import find_tissue
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

COMMAND = "patches"
ROWS_PER_WRITE = 64  # patches of a slide held in memory
OVERLAYS = "overlays"
OVERLAY_EDGE = 1024  # pixels: some 150 kB a slide


@dataclass(frozen=True)
class Result:
    """The record of a dataset, what its splits hold, and a line for each slide that was skipped."""

    record: dict
    summaries: list[SplitSummary]

    @property
    def failures(self) -> list[str]:
        """One line for each slide that was skipped."""
        return self.record["failures"]


def made_from(folder: Path, jobs: list[SlideJob], table: TissueTable, config: SlideDataset) -> Result | None:
    """The finished dataset in `folder`, where it was made from these slides with this table and config, else None."""
    record = read_record(folder)
    same = record is not None and all(record.get(k) == v for k, v in _recipe(jobs, table, config).items())
    return Result(record, summarize(folder)) if same and record.get("sha256") == content_hash(folder) else None


def extract_slides(
    jobs: list[SlideJob],
    notes: list[str],
    table: TissueTable,
    config: SlideDataset,
    out: Path,
    workers: Workers = ALONE,
    license_name: str = "unknown",
    advance: Callable[[], None] = lambda: None,
) -> Result:
    """Write the dataset of all `jobs` to `out`, resuming what a killed run of the same settings left.

    A broken slide or annotation is left out, named in the result. A cluster must see slides and `out` under the same
    paths. Raises OutputError where `out` holds something or cannot be written, InputError
    when no slide gave a patch.
    """
    for name in (config.annotations.rest, *config.annotations.order):
        _ = name and table.find(name)  # a name that no slide could use is refused before the first is opened
    try:
        recipe = _recipe(jobs, table, config)
        aside = _resume(out, recipe)
        failures = _write_parts(jobs, table, config, aside, partial(run_items, workers=workers), advance)
        result = _join_parts(jobs, table, aside, recipe | {"failures": failures, "notes": notes}, license_name)
        shutil.rmtree(aside / "parts")
        os.replace(aside, out)
        (out / "recipe.json").unlink()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "check the path and its permissions"
        raise OutputError(f"{out}: cannot be written ({error.strerror or error}); {cure} and run again") from None
    return result


def write_part(job: SlideJob, table: TissueTable, config: SlideDataset, folder: Path) -> None:
    """Extract one slide into `folder`/parts, whole or not at all, and draw what was taken into `folder`/overlays."""
    with open_slide(job.slide, config.slide_mpp) as slide:
        annotation = annotation_of(job.annotation, slide, table, config.annotations)
        tissue, places = find_tissue(slide), []
        names = {"source": job.source, "case": job.case, "split": job.split}
        found = find_patches(slide, annotation, tissue, table, config.rules, config.pixels)
        aside = folder / "parts" / f"{job.part}.{uuid.uuid4().hex}.partial"  # a lost machine may still write to its own
        with pq.ParquetWriter(aside, schema(table), compression="zstd") as writer:
            while batch := list(islice(found, ROWS_PER_WRITE)):
                rows = [patch_row(patch, slide, config.rules, names, config.pixels) for patch in batch]
                places += [(row["x"], row["y"], row["size"]) for row in rows]
                writer.write_table(pa.Table.from_pylist(rows, schema(table)))
        picture = draw_overlay(slide, tissue, annotation, table, places, OVERLAY_EDGE)
    path = overlay_path(folder, job.source)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, "JPEG", quality=85)
    os.replace(aside, folder / "parts" / job.part)


def overlay_path(dataset: Path, source: str) -> Path:
    """Where a dataset keeps the picture of a slide."""
    return dataset / OVERLAYS / f"{source}.jpg"


def annotation_of(path: Path | None, slide: Slide, table: TissueTable, config: AnnotationConfig) -> AnnotationMap:
    """The annotation as a map of this slide; QuPath counts from the scanned area, ASAP from the slide's corner.

    Without a file all of the slide is of the type `config.rest`.
    """
    if path is None:
        return PolygonMap([], [], slide.size, slide.mpp, table.find(config.rest).id)
    origin = (0, 0) if path.suffix == ".xml" else slide.bounds[:2]
    return read_annotations(path, table, slide.size, slide.mpp, config, origin)


def _write_parts(
    jobs: list[SlideJob],
    table: TissueTable,
    config: SlideDataset,
    aside: Path,
    run: Callable[..., Iterator],
    advance: Callable[[], None],
) -> list[str]:
    """Write what parts are missing; returns a line for each slide that is broken."""
    todo = [job for job in jobs if not (aside / "parts" / job.part).is_file()]
    for _ in range(len(jobs) - len(todo)):
        advance()
    failures = []
    for outcome in run(partial(write_part, table=table, config=config, folder=aside), todo):
        if outcome.error is not None:
            failures.append(_named(outcome.item, outcome.error))
        elif not (aside / "parts" / outcome.item.part).is_file():
            raise HistoloomError(
                f"{aside}: a worker wrote a part that is not seen here; put --out on a disk that all machines share"
            )
        advance()
    return failures


def _named(job: SlideJob, error: InputError) -> str:
    line = " ".join(str(error).split())
    return line if job.slide.name in line or str(job.annotation) in line else f"{job.slide}: {line}"


def _join_parts(jobs: list[SlideJob], table: TissueTable, aside: Path, recipe: dict, license_name: str) -> Result:
    shutil.rmtree(aside / "data", ignore_errors=True)
    (aside / "tissue.toml").write_text(table.to_toml(), encoding="utf-8")
    written = sum(
        write_shards(_part_rows([job for job in jobs if job.split == split], aside / "parts"), table, aside, split)
        for split in sorted({job.split for job in jobs})
    )
    if not written:
        reason = (
            recipe["failures"][0] if recipe["failures"] else "none kept the rules; lower --min-tissue or widen --low"
        )
        raise InputError(f"no patch of {len(jobs)} slides was taken: {reason}")
    summaries = summarize(aside)
    record = recipe | {
        "name": aside.name.removesuffix(".partial"),
        "version": VERSION,
        "seed": recipe["config"]["rules"]["seed"],
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "sha256": content_hash(aside),
    }
    write_record(aside, record)
    write_card(aside, summaries, record, license_name)
    return Result(record, summaries)


def _part_rows(jobs: list[SlideJob], folder: Path) -> Iterator[dict]:
    for job in jobs:
        if (folder / job.part).is_file():
            for batch in open_parquet(folder / job.part).iter_batches(64):
                yield from batch.to_pylist()


def _resume(out: Path, recipe: dict) -> Path:
    """The folder written aside: with its parts where it was begun with this recipe, else new."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists already; name another folder, or move it away")
    aside = out.absolute().with_name(out.name + ".partial")
    begun, half = aside / "recipe.json", aside / "recipe.partial"
    text = json.dumps(recipe, indent=2, sort_keys=True)
    if begun.is_file() and begun.read_text(encoding="utf-8") != text:
        raise OutputError(
            f"{aside}: left by a run with other settings or files; remove it, or repeat that run to resume it"
        )
    if not begun.is_file():
        if aside.exists() and any(path != half for path in aside.iterdir()):
            raise OutputError(f"{aside}: is in the way and was not left by this command; move it away")
        aside.mkdir(parents=True, exist_ok=True)
        half.write_text(text, encoding="utf-8")
        os.replace(half, begun)
    (aside / "parts").mkdir(exist_ok=True)
    return aside


def _recipe(jobs: list[SlideJob], table: TissueTable, config: SlideDataset) -> dict:
    """All that decides what the dataset holds, as JSON reads it back."""
    recipe = {
        "command": COMMAND,
        "config": dataclasses.asdict(config),
        "tissue": table.to_rows(),
        "slides": [dataclasses.asdict(job) for job in jobs],
    }
    return json.loads(json.dumps(recipe, default=str))
