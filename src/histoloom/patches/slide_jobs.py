"""Which slides a dataset is made of: each with its annotation, its case and its split.

A job knows the size of its slide and the hash of its annotation, so that a run resumes, or is taken for done, only on
the files it began with.
"""

import csv
import fnmatch
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from histoloom.errors import ConfigError, InputError
from histoloom.patches.rules import SlideDataset, SlideList
from histoloom.patches.split import split_by_case

SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".tif", ".tiff",
    ".png", ".jpg", ".jpeg", ".webp", ".bmp",
)  # fmt: skip
ANNOTATION_SUFFIXES = (
    ".geojson", ".geojson.gz", ".json", ".xml", ".tif", ".tiff", ".png", "_mask.tif", "_mask.tiff", "_mask.png",
)  # fmt: skip


@dataclass(frozen=True)
class SlideJob:
    """One slide and its annotation, if any; `source` is the slide's path relative to the folder of slides."""

    slide: Path
    annotation: Path | None
    source: str
    case: str
    split: str
    slide_bytes: int
    annotation_sha256: str

    @property
    def part(self) -> str:
        """File name of the finished part."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16] + ".parquet"


def find_jobs(
    slides: Path, annotations: Path | None, config: SlideDataset, listing: Path | None = None
) -> tuple[list[SlideJob], list[str]]:
    """The slides in order of name, each with the annotation of its name, and a note on each kind that is left out.

    `listing` is a CSV file that names the slides to take (`config.listed`). Raises InputError where nothing fits
    together, ConfigError for a case pattern that does not fit a name.
    """
    slides = slides.absolute()
    paths = [slides] if slides.is_file() else _slides_in(slides)
    root = slides.parent if slides.is_file() else slides
    if not paths:
        raise InputError(f"{slides}: no slides here; give a slide or a folder of them")
    notes: list[str] = []
    listed = _read_listing(listing, config.listed) if listing is not None else {stem(path): "" for path in paths}
    missing = sorted(set(listed) - {stem(path) for path in paths})
    _note(notes, missing, len(listed), f"listed in {listing} are not in {slides} (add them, or take them off the list)")
    left_out = {p for p in paths if any(fnmatch.fnmatch(p.name, pattern) for pattern in config.leave_out)}
    _note(notes, [p.name for p in paths if p in left_out], len(paths), "are to be left out")
    taken = [path for path in paths if stem(path) in listed and path not in left_out]
    found = {path: _annotation_of(path, root, annotations) for path in taken}
    if not config.unannotated:
        without = [path for path in taken if found[path] is None]
        _note(notes, [p.name for p in without], len(taken), f"have no annotation of their name in {annotations}")
        taken = [path for path in taken if found[path] is not None]
    if not taken:
        raise InputError(_nothing(slides, annotations, listing, paths[0]))
    _check_one_each(found[path] for path in taken)
    cases = [listed[stem(path)] or _case(path, config.case_pattern) for path in taken]
    split = split_by_case(cases, config.val_share, config.rules.seed)
    return [
        SlideJob(
            path, found[path], str(path.relative_to(root)), case, part, path.stat().st_size, file_sha256(found[path])
        )
        for path, case, part in zip(taken, cases, split, strict=True)
    ], notes


def stem(slide: Path) -> str:
    """The name that a slide shares with its annotation: without suffix; that of its folder for a DICOM slide."""
    return (
        slide.parent.name if slide.suffix.lower() == ".dcm" else slide.name[: -len(slide.suffix)].removesuffix(".ome")
    )


def file_sha256(path: Path | None) -> str:
    """SHA-256 of a file; "" for none. Raises InputError where it cannot be read."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _slides_in(folder: Path) -> list[Path]:
    """All slides below a folder; of the many files of a DICOM slide the first, and no image that a VMS file names."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a slide or a folder of them")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SLIDE_SUFFIXES and p.is_file())
    dicom = {path.parent: path for path in reversed(paths) if path.suffix.lower() == ".dcm"}
    indexed = {path.parent for path in paths if path.suffix.lower() in (".vms", ".vmu")}
    return [
        path
        for path in paths
        if not (path.suffix.lower() == ".dcm" and dicom[path.parent] != path)
        and not (path.parent in indexed and path.suffix.lower() in (".jpg", ".jpeg"))
    ]


def _annotation_of(slide: Path, root: Path, folder: Path | None) -> Path | None:
    """The file of the slide's name in `folder`, in the same place below it as the slide's or at its top."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of the annotations")
    homes = (folder.absolute() / slide.parent.relative_to(root), folder.absolute())
    candidates = (home / f"{stem(slide)}{suffix}" for home in homes for suffix in ANNOTATION_SUFFIXES)
    return next((path for path in candidates if path.is_file() and path != slide), None)


def _check_one_each(annotations: Iterable[Path | None]) -> None:
    seen: set[Path] = set()
    for path in annotations:
        if path in seen:
            raise InputError(f"{path}: belongs to two slides of one name; rename one, or order both in subfolders")
        seen |= {path} - {None}


def _read_listing(path: Path, config: SlideList) -> dict[str, str]:
    """Case (or nothing) by the stem of the slide, for the rows that hold all conditions."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); give the file that lists the slides") from None
    conditions = [tuple(condition.split("=", 1)) for condition in config.where]
    columns = set(rows[0]) if rows else set()
    for column in (config.slide, *([config.case] if config.case else []), *(name for name, _ in conditions)):
        if column not in columns:
            raise InputError(f"{path}: has no column {column!r}; known: {', '.join(filter(None, columns)) or 'none'}")
    chosen = [row for row in rows if all(row[name] == value for name, value in conditions)]
    if not chosen:
        raise InputError(f"{path}: no row holds {' and '.join(config.where)}; look at the spelling of the values")
    return {_listed_stem(row[config.slide] or ""): row[config.case] if config.case else "" for row in chosen}


def _listed_stem(name: str) -> str:
    return stem(Path(name)) if Path(name).suffix.lower() in SLIDE_SUFFIXES else name


def _case(slide: Path, pattern: str | None) -> str:
    if pattern is None:
        return stem(slide)
    found = re.search(pattern, slide.name)
    if found is None or not found[1]:
        raise ConfigError(f"case pattern {pattern!r} finds no case in {slide.name!r}; it needs one for every slide")
    return found[1]


def _note(notes: list[str], names: list[str], total: int, what: str) -> None:
    if names:
        notes.append(f"{len(names)} of {total} slides {what}: {names[0]}{', ...' if len(names) > 1 else ''}")


def _nothing(slides: Path, annotations: Path | None, listing: Path | None, first: Path) -> str:
    if annotations is None:
        return f"{slides}: no slide is left without annotations; give their folder, or take slides unannotated"
    listed = f" and in {listing}" if listing else ""
    return f"{annotations}: no file here{listed} is named as a slide, such as {stem(first)}.geojson; rename them"
