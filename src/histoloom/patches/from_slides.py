"""Slides and their annotations become a patch dataset, slide by slide.

Each finished slide leaves one part, a report, and a picture of what was taken, in the folder that is being made; a
killed run finds them again. When all slides are done the parts are joined in the order of the slides, so that the
shards do not depend on the number of workers. A slide whose part is whole is never opened again.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa

from histoloom.distributed import ALONE, Workers, run_items
from histoloom.errors import AnnotationError, HistoloomError, InputError, TissueError
from histoloom.files import resumable_folder, whole_file, write_json, write_text
from histoloom.license import UNKNOWN, License
from histoloom.parquet import parquet_writer, read_batches
from histoloom.patches.card import SplitSummary, missing_types, summarize, write_card
from histoloom.patches.dataset import DESCRIPTION, content_hash, finished_dataset, write_description
from histoloom.patches.extract import find_patches, patch_row
from histoloom.patches.rules import PatchRules, SlideDataset, explain_left_out
from histoloom.patches.schema import arrow_schema
from histoloom.patches.slide_jobs import SlideJob
from histoloom.patches.store import write_shards
from histoloom.progress import SILENT, Bar
from histoloom.records import Record, fingerprint, read_json
from histoloom.slides.annotations import AnnotationMap, read_annotations
from histoloom.slides.formats import damaged
from histoloom.slides.labeling import AnnotationConfig
from histoloom.slides.overlay import draw_overlay, save_overlay
from histoloom.slides.rasterize import PolygonMap
from histoloom.slides.reader import Slide, open_slide
from histoloom.slides.tissue import TissueMap, find_tissue
from histoloom.text import counted, one_line
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

COMMAND = "patches"
FORMAT = 2
ROWS_PER_WRITE = 64  # patches of a slide held in memory
OVERLAYS = "overlays"
OVERLAY_EDGE = 1024  # pixels: some 150 kB a slide
_LONGEST_NAME = 255  # bytes
PATHS = "paths.local.json"  # where the inputs are on this machine; no part of the record


@dataclass(frozen=True)
class Result:
    """The description of a dataset and what its splits hold."""

    record: dict
    summaries: list[SplitSummary]

    @property
    def failures(self) -> list[str]:
        """One line for each slide that was skipped."""
        return self.record["failures"]

    @property
    def notes(self) -> list[str]:
        """One line for each thing that was left out, repaired or is doubtful."""
        return self.record["notes"]


def made_from(folder: Path, jobs: list[SlideJob], table: TissueTable, config: SlideDataset) -> Result | None:
    """The finished dataset in `folder`; None where nothing is there. Raises OutputError for one of another run."""
    description = finished_dataset(folder, dataset_record(jobs, table, config))
    return Result(description, summarize(folder)) if description is not None else None


def dataset_record(jobs: list[SlideJob], table: TissueTable, config: SlideDataset) -> Record:
    """All that decides the bytes of the dataset; raises InputError for an input that cannot be read."""
    slides = [
        {"source": job.source, "annotation": job.annotation_name, "case": job.case, "split": job.split, "mpp": job.mpp}
        for job in jobs
    ]
    inputs = {name: mark for job in jobs for name, mark in _fingerprints(job).items()}
    return Record(
        command=COMMAND,
        format=FORMAT,
        settings={
            "config": dataclasses.asdict(config),
            "tissue": table.to_rows(),
            "order": list(table.order),
            "slides": slides,
        },
        inputs=inputs,
    )


def extract_slides(
    jobs: list[SlideJob],
    notes: list[str],
    table: TissueTable,
    config: SlideDataset,
    out: Path,
    workers: Workers = ALONE,
    license: License = UNKNOWN,
    bar: Bar = SILENT,
) -> Result:
    """Write the dataset of all `jobs` to `out`; resumes what a killed run of the same settings and inputs left.

    A broken slide or annotation is skipped and named in the result. A cluster must see slides and `out` under the same
    paths. Raises OutputError where `out` holds something else, another process writes it, or
    the disk refuses; InputError when no slide gave a patch, or when a slide cannot be reached: what is finished is then
    kept, and the same command resumes it.
    """
    for name in (config.annotations.rest, *config.annotations.order):
        _ = name and table.find(name)  # a name that no slide could use is refused before the first is opened
    record = dataset_record(jobs, table, config)
    with resumable_folder(out, record) as aside:
        failures = _write_parts(jobs, table, config, aside, partial(run_items, workers=workers), bar, record)
        description = _describe(jobs, config, record, notes, failures, out.absolute().name)
        result = _join_parts(jobs, table, config, aside, description, license)
        shutil.rmtree(aside / "parts")
    return result


def write_part(job: SlideJob, table: TissueTable, config: SlideDataset, folder: Path) -> None:
    """Extract one slide into `folder`/parts, whole or not at all, and draw what was taken into `folder`/overlays."""
    left_out: Counter[str] = Counter()
    with open_slide(job.slide, job.mpp or config.slide_mpp, config.overrule_mpp or job.mpp is not None) as slide:
        annotation = annotation_of(job.annotation, slide, table, config.annotations)
        tissue, places = find_tissue(slide), []
        rows = _rows(job, slide, annotation, tissue, table, config, left_out)
        with whole_file(folder / "parts" / job.part) as aside:  # finished last: it says that the slide is done
            with parquet_writer(aside, arrow_schema(table), compression="zstd") as writer:
                while batch := list(islice(rows, ROWS_PER_WRITE)):
                    places += [(row["x"], row["y"], row["size"]) for row in batch]
                    writer.write_table(pa.Table.from_pylist(batch, arrow_schema(table)))
            picture = draw_overlay(slide, tissue, annotation, table, places, OVERLAY_EDGE)
            save_overlay(picture, overlay_path(folder, job.source))
            notes = [*slide.notes, *slide.notes_at(config.rules.mpp), *annotation.notes]
            notes += [] if places else [_nothing_taken(slide, config.rules, left_out)]
            lines = [one_line(_named(job, note)) for note in notes]
            write_json(folder / "parts" / f"{job.part}.json", {"notes": lines, "left_out": left_out})


def overlay_path(dataset: Path, source: str) -> Path:
    """Where a dataset keeps the picture of a slide."""
    path = dataset / OVERLAYS / f"{source}.jpg"
    if len(os.fsencode(path.name)) > _LONGEST_NAME:  # of a slide whose name just fits
        mark = hashlib.sha256(source.encode()).hexdigest()[:12]
        path = path.with_name(f"{path.name[:50]}-{mark}.jpg")
    return path


def annotation_of(path: Path | None, slide: Slide, table: TissueTable, config: AnnotationConfig) -> AnnotationMap:
    """The annotation as a map of this slide; QuPath counts from the scanned area, ASAP from the slide's corner.

    Without a file all of the slide is of the type `config.rest`.
    """
    if path is None:
        return PolygonMap([], [], slide.size, slide.mpp, table.find(config.rest).id)
    return read_annotations(path, table, slide.size, slide.mpp, config, slide.bounds[:2])


def _rows(
    job: SlideJob,
    slide: Slide,
    annotation: AnnotationMap,
    tissue: TissueMap,
    table: TissueTable,
    config: SlideDataset,
    left_out: Counter[str],
) -> Iterator[dict]:
    names = {"source": job.source, "case": job.case, "split": job.split}
    try:
        for patch in find_patches(slide, annotation, tissue, table, config.rules, config.pixels, left_out):
            yield patch_row(patch, slide, config.rules, names, config.pixels)
    except OSError as error:  # of the slide, and not of the part that is being written
        raise damaged(slide.path, error) from None


def _nothing_taken(slide: Slide, rules: PatchRules, left_out: Counter[str]) -> str:
    """Why a slide gave no patch."""
    if min(slide.size) < rules.size * rules.mpp / slide.mpp:
        return (
            f"{slide.path}: no patch was taken: {slide.size[0]} x {slide.size[1]} px of {slide.mpp:.4g} um are smaller "
            f"than a patch of {rules.size} px at {rules.mpp:g} um/px; lower --size or --mpp"
        )
    return f"{slide.path}: no patch was taken: {explain_left_out(left_out, rules)}"


def _fingerprints(job: SlideJob) -> dict[str, str]:
    marks = [fingerprint(path, whole=False) for path in (job.slide, *job.files)]
    found = {f"slide {job.source}": marks[0] if len(marks) == 1 else _joined(marks)}
    if job.annotation is not None:
        found[f"annotation {job.annotation_name}"] = fingerprint(job.annotation)
    return found


def _joined(marks: list[str]) -> str:
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()


def _write_parts(
    jobs: list[SlideJob],
    table: TissueTable,
    config: SlideDataset,
    aside: Path,
    run: Callable[..., Iterator],
    bar: Bar,
    record: Record,
) -> list[str]:
    """Write the parts that are missing; returns a line for each slide that is broken."""
    (aside / "parts").mkdir(exist_ok=True)
    todo = [job for job in jobs if not (aside / "parts" / job.part).is_file()]
    bar.advance(len(jobs) - len(todo))
    failed: dict[SlideJob, InputError] = {}
    for attempt in range(2):  # a disk may have been away for a moment
        again = [job for job in todo if not attempt or _may_pass(job, failed, record)]
        for outcome in run(partial(write_part, table=table, config=config, folder=aside), again):
            job = outcome.item
            failed.pop(job, None)
            if outcome.error is not None:
                failed[job] = outcome.error
            elif not (aside / "parts" / job.part).is_file():
                raise HistoloomError(
                    f"{aside}: a worker wrote a part that is not visible here; put --out on a disk that all machines "
                    "share"
                )
            bar.advance(0 if attempt else 1)
    if gone := [job for job in failed if not _is_as_recorded(job, record)]:
        raise InputError(
            f"{gone[0].slide}: {len(gone)} of {counted(len(jobs), 'slide')} cannot be reached, or changed since the "
            f"run began ({one_line(_named(gone[0], str(failed[gone[0]])), 300)}); what is finished is kept: repeat the "
            "command when they are back, or leave them out with --leave-out in a new run"
        )
    return [one_line(_named(job, str(failed[job]))) for job in jobs if job in failed]


def _may_pass(job: SlideJob, failed: dict[SlideJob, InputError], record: Record) -> bool:
    """Whether another attempt at a slide may succeed: what its annotation says does not change."""
    error = failed.get(job)
    return error is not None and not isinstance(error, AnnotationError | TissueError) and _is_as_recorded(job, record)


def _is_as_recorded(job: SlideJob, record: Record) -> bool:
    try:
        return all(record.inputs[name] == mark for name, mark in _fingerprints(job).items())
    except InputError:
        return False


def _named(job: SlideJob, line: str) -> str:
    names = job.slide.name, str(job.slide), job.source, str(job.annotation)
    return line if any(name in line for name in names) else f"{job.slide}: {line}"


def _describe(
    jobs: list[SlideJob], config: SlideDataset, record: Record, notes: list[str], failures: list[str], name: str
) -> dict:
    """What is known of the dataset before its parts are joined."""
    return {
        "name": name,
        "command": COMMAND,
        "version": VERSION,
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "seed": config.rules.seed,
        "slides": [
            {
                "source": job.source,
                "file": str(job.slide.relative_to(job.root)),
                "annotation": job.annotation_name,
                "mpp": job.mpp,
                "bytes": job.slide_bytes,
                "sample": fingerprint(job.slide, whole=False, dated=False),
                "annotation_sha256": record.inputs.get(f"annotation {job.annotation_name}", ""),
            }
            for job in jobs
        ],
        "notes": [_without_folders(note, jobs) for note in notes],
        "failures": [_without_folders(failure, jobs) for failure in failures],
    }


def _join_parts(
    jobs: list[SlideJob], table: TissueTable, config: SlideDataset, aside: Path, description: dict, license: License
) -> Result:
    shutil.rmtree(aside / "data", ignore_errors=True)
    (aside / DESCRIPTION).unlink(missing_ok=True)  # of a run that was killed here, when other slides failed
    write_text(aside / "tissue.toml", table.to_toml())
    reports = [read_json(path) for job in jobs if (path := aside / "parts" / f"{job.part}.json").is_file()]
    notes = [_without_folders(note, jobs) for report in reports for note in report["notes"]]
    written = sum(
        write_shards(_part_rows([job for job in jobs if job.split == split], aside / "parts"), table, aside, split)
        for split in sorted({job.split for job in jobs})
    )
    if not written:
        left_out = sum((Counter(report["left_out"]) for report in reports), Counter())
        for name in ("parts", "data", OVERLAYS):  # so that another command may begin
            shutil.rmtree(aside / name, ignore_errors=True)
        (aside / "tissue.toml").unlink()
        in_all = explain_left_out(left_out, config.rules) if len(jobs) > 1 else ""
        reasons = [*description["failures"][:1], *notes[:3], in_all]
        raise InputError(f"no patch of {counted(len(jobs), 'slide')} was taken: {'; '.join(filter(None, reasons))}")
    summaries = summarize(aside)
    description = description | {
        "notes": description["notes"] + notes + missing_types(summaries, table),
        "counts": {s.name: {"patches": s.patches, "cases": s.cases} for s in summaries},
        "sha256": content_hash(aside),
        **license.said(),
    }
    write_description(aside, description)
    write_json(aside / PATHS, _paths(jobs))
    write_card(aside, summaries, description)
    return Result(description, summaries)


def _paths(jobs: list[SlideJob]) -> dict[str, str]:
    annotations = next((job.annotations for job in jobs if job.annotations is not None), None)
    return {"slides": str(jobs[0].root)} | ({"annotations": str(annotations)} if annotations is not None else {})


def _without_folders(line: str, jobs: list[SlideJob]) -> str:
    """The line with file names relative to the folders of slides and annotations: the dataset may go elsewhere."""
    for folder in {str(job.root) for job in jobs} | {str(job.annotations) for job in jobs if job.annotations}:
        line = line.replace(f"{folder}/", "").replace(folder, Path(folder).name)
    return line


def _part_rows(jobs: list[SlideJob], folder: Path) -> Iterator[dict]:
    for job in jobs:
        if (folder / job.part).is_file():
            for batch in read_batches(folder / job.part):
                yield from batch.to_pylist()
