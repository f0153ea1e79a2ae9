"""A folder of slides and a folder of annotations become a patch dataset, slide by slide.

Each finished slide leaves one part in the folder written aside; a killed run finds them again. When all slides are done
the parts are joined in the order of the slides, so that the shards do not depend on the number of workers.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.distributed import run_items
from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.patches.card import summarize, write_card
from histoloom.patches.dataset import content_hash
from histoloom.patches.extract import PatchRules, find_patches, patch_row
from histoloom.patches.schema import schema
from histoloom.patches.split import split_by_case
from histoloom.patches.store import write_record, write_shards
from histoloom.slides.annotations import AnnotationConfig, AnnotationMap, read_annotations
from histoloom.slides.reader import Slide, open_slide
from histoloom.tissue import TissueTable

COMMAND = "patches"
ROWS_PER_WRITE = 64  # patches of a slide held in memory
SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".tif", ".tiff",
    ".png", ".jpg", ".jpeg", ".webp", ".bmp",
)  # fmt: skip
ANNOTATION_SUFFIXES = (
    ".geojson", ".geojson.gz", ".json", ".xml", ".tif", ".tiff", ".png", "_mask.tif", "_mask.tiff", "_mask.png",
)  # fmt: skip


@dataclass(frozen=True)
class SlideDataset:
    """How slides become a dataset."""

    rules: PatchRules = field(default_factory=PatchRules)
    annotations: AnnotationConfig = field(default_factory=AnnotationConfig)
    slide_mpp: float | None = None  # micrometres per level-0 pixel where a slide does not say
    pixels: bool = False  # write pixels into the shards
    case_pattern: str | None = (
        None  # regular expression with one group on the slide's file name; default: the whole stem
    )
    val_share: float = 0.15  # of the slides, by case


@dataclass(frozen=True)
class SlideJob:
    """One slide and its annotation; `source` is the slide's path relative to the folder of slides."""

    slide: Path
    annotation: Path
    source: str
    case: str
    split: str

    @property
    def part(self) -> str:
        """File name of the finished part."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16] + ".parquet"


@dataclass(frozen=True)
class Result:
    """The record of the dataset, and a line for each slide that was skipped."""

    record: dict
    failures: tuple[str, ...]


def find_jobs(slides: Path, annotations: Path, config: SlideDataset) -> tuple[list[SlideJob], list[str]]:
    """Slides that have an annotation of the same name, in order of name, and notes on those that have none.

    Raises InputError where nothing fits together, ConfigError for a case pattern that does not fit a name.
    """
    paths = [slides] if slides.is_file() else sorted(p for p in slides.rglob("*") if _is_slide(p))
    root = slides.parent if slides.is_file() else slides
    if not paths:
        raise InputError(f"{slides}: no slides here; give a slide or a folder of them")
    if not annotations.is_dir():
        raise InputError(f"{annotations}: no such folder; give the folder of the annotations")
    pairs = [(path, _annotation_of(path, annotations)) for path in paths]
    notes = [f"{path}: no annotation of this name in {annotations}; left out" for path, found in pairs if found is None]
    pairs = [(path, found) for path, found in pairs if found is not None]
    if not pairs:
        raise InputError(f"{annotations}: no file named as a slide, such as {_stem(paths[0])}.geojson; rename them")
    cases = [_case(path, config.case_pattern) for path, _ in pairs]
    split = split_by_case(cases, config.val_share, config.rules.seed)
    names = [str(path.relative_to(root)) for path, _ in pairs]
    return [SlideJob(*row) for row in zip(*zip(*pairs, strict=True), names, cases, split, strict=True)], notes


def extract_slides(
    jobs: list[SlideJob],
    notes: list[str],
    table: TissueTable,
    config: SlideDataset,
    out: Path,
    workers: int = 1,
    license_name: str = "unknown",
    advance: Callable[[], None] = lambda: None,
) -> Result:
    """Write the dataset of all `jobs` to `out`, resuming what a killed run of the same settings left.

    A broken slide or annotation is left out, named in the result. Raises OutputError where `out` holds something,
    InputError when no slide gave a patch.
    """
    recipe = {
        "command": COMMAND,
        "config": _plain(config),
        "tissue": table.to_rows(),
        "slides": [_plain(j) for j in jobs],
    }
    aside = _resume(out, recipe)
    todo = [job for job in jobs if not (aside / "parts" / job.part).is_file()]
    for _ in range(len(jobs) - len(todo)):
        advance()
    failures = []
    for outcome in run_items(partial(write_part, table=table, config=config, folder=aside / "parts"), todo, workers):
        if outcome.error is not None:
            failures.append(" ".join(str(outcome.error).split()))
        advance()
    record = _join_parts(jobs, table, aside, recipe | {"failures": failures, "notes": notes}, license_name)
    shutil.rmtree(aside / "parts")
    (aside / "recipe.json").unlink()
    os.replace(aside, out)
    return Result(record, tuple(failures))


def write_part(job: SlideJob, table: TissueTable, config: SlideDataset, folder: Path) -> None:
    """Extract one slide into `folder`, whole or not at all."""
    with open_slide(job.slide, config.slide_mpp) as slide:
        annotation = annotation_of(job.annotation, slide, table, config.annotations)
        names = {"source": job.source, "case": job.case, "split": job.split}
        found = find_patches(slide, annotation, table, config.rules, config.pixels)
        aside = folder / f"{job.part}.partial"
        with pq.ParquetWriter(aside, schema(table), compression="zstd") as writer:
            while batch := list(islice(found, ROWS_PER_WRITE)):
                rows = [patch_row(patch, slide, config.rules, names, config.pixels) for patch in batch]
                writer.write_table(pa.Table.from_pylist(rows, schema(table)))
    os.replace(aside, folder / job.part)


def annotation_of(path: Path, slide: Slide, table: TissueTable, config: AnnotationConfig) -> AnnotationMap:
    """The annotation as a map of this slide; QuPath counts from the scanned area, ASAP from the slide's corner."""
    origin = (0, 0) if path.suffix == ".xml" else slide.bounds[:2]
    return read_annotations(path, table, slide.size, slide.mpp, config, origin)


def _join_parts(jobs: list[SlideJob], table: TissueTable, aside: Path, recipe: dict, license_name: str) -> dict:
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
        "version": version("histoloom"),
        "seed": recipe["config"]["rules"]["seed"],
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "sha256": content_hash(aside),
    }
    write_record(aside, record)
    write_card(aside, record, license_name)
    return record


def _part_rows(jobs: list[SlideJob], folder: Path) -> Iterator[dict]:
    for job in jobs:
        if (folder / job.part).is_file():
            for batch in pq.ParquetFile(folder / job.part).iter_batches(64):
                yield from batch.to_pylist()


def _resume(out: Path, recipe: dict) -> Path:
    """The folder written aside: with its parts where it was begun with this recipe, else new."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists already; name another folder, or move it away")
    aside = out.absolute().with_name(out.name + ".partial")
    begun, text = aside / "recipe.json", json.dumps(recipe, indent=2, sort_keys=True)
    if aside.exists():
        if not begun.is_file():
            raise OutputError(f"{aside}: is in the way and was not left by this command; move it away")
        if begun.read_text(encoding="utf-8") != text:
            raise OutputError(f"{aside}: left by a run with other settings; remove it, or repeat that run to resume it")
    (aside / "parts").mkdir(parents=True, exist_ok=True)
    begun.write_text(text, encoding="utf-8")
    return aside


def _plain(config: SlideDataset | SlideJob) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _is_slide(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SLIDE_SUFFIXES


def _stem(path: Path) -> str:
    return path.name[: -len(path.suffix)].removesuffix(".ome")


def _annotation_of(slide: Path, folder: Path) -> Path | None:
    candidates = (folder / f"{_stem(slide)}{suffix}" for suffix in ANNOTATION_SUFFIXES)
    return next((path for path in candidates if path.is_file() and path != slide), None)


def _case(slide: Path, pattern: str | None) -> str:
    if pattern is None:
        return _stem(slide)
    try:
        found = re.search(pattern, slide.name)
    except re.error as error:
        raise ConfigError(f"--case-pattern {pattern!r} is no regular expression ({error})") from None
    if found is None or len(found.groups()) != 1 or not found[1]:
        raise ConfigError(
            f"--case-pattern {pattern!r} finds no case in {slide.name!r}; it needs one group, as in '^(P[0-9]+)_'"
        )
    return found[1]
