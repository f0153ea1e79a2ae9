"""Which slides a dataset is made of: each with its annotation, its case, its split, and its mpp where a list names one.

Names of slides, annotations and cases are compared without regard to case, blanks and the form of their umlauts.
"""

import fnmatch
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from histoloom.errors import ConfigError, InputError
from histoloom.patches.cases import case_hints, is_missing, same_spelling
from histoloom.patches.rules import SlideDataset, SlideList
from histoloom.patches.split import split_by_case
from histoloom.patches.table_files import column_named, read_csv
from histoloom.slides.find import SLIDE_SUFFIXES, FoundSlide, base_name, find_slides, stem
from histoloom.text import canonical, counted, printable, shorten, tidy
from histoloom.walk import find_files, source_name, suffix_of

__all__ = ["SLIDE_SUFFIXES", "SlideJob", "find_jobs", "stem"]

ANNOTATION_SUFFIXES = (
    ".geojson", ".geojson.gz", ".json", ".json.gz", ".xml", ".asap", ".tif", ".tiff", ".png",
)  # fmt: skip
_MASK_ENDS = ("", "_mask", "-mask", "_labels", "-labels", "_annotations", "_annotation")


@dataclass(frozen=True)
class SlideJob:
    """One slide and its annotation, if any; `source` is the slide's path relative to the folder of slides, `root`."""

    slide: Path
    annotation: Path | None
    source: str
    case: str
    split: str
    root: Path
    annotations: Path | None = None  # the folder of annotations
    annotation_name: str = ""  # path of the annotation relative to that folder
    mpp: float | None = None  # micrometers per level-0 pixel, where a list names them
    files: tuple[Path, ...] = field(default=())  # further files of the slide

    @property
    def slide_bytes(self) -> int:
        """Size of the file that is opened."""
        return self.slide.stat().st_size

    @property
    def part(self) -> str:
        """File name of the finished part."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16] + ".parquet"

    def __str__(self) -> str:
        return str(self.slide)


@dataclass(frozen=True)
class _Listed:
    name: str  # as the list spells it
    case: str
    mpp: float | None
    where: str  # file and line

    @property
    def key(self) -> str:
        """The comparable name of the slide, without folders."""
        name = Path(self.name).name
        is_slide = suffix_of(Path(name)) in SLIDE_SUFFIXES and suffix_of(Path(name)) != ".dcm"
        return canonical(base_name(Path(name)) if is_slide else name)


def find_jobs(
    slides: Path, annotations: Path | None, config: SlideDataset, listing: Path | None = None
) -> tuple[list[SlideJob], list[str]]:
    """The slides in order of name, each with the annotation of its name, and a note on each kind that is left out.

    `listing` is a CSV file that names the slides to take (`config.listed`). Raises InputError where nothing fits
    together, ConfigError for a case pattern that does not fit a name.
    """
    slides = slides.absolute()
    found, notes = find_slides(slides)
    root = slides.parent if slides.is_file() else slides
    if not found:
        raise InputError(f"{slides}: no slides here; give a slide or a folder of slides{_reasons(notes)}")
    if listing is None and (config.listed.case or config.listed.mpp or config.listed.where):
        raise ConfigError("columns and conditions of a list of slides have no effect without one; give the list")
    listed = _read_listing(listing, config.listed) if listing is not None else None
    entry_of: dict[FoundSlide, _Listed] = {}
    taken = found
    if listed is not None:
        entry_of, missing = _match(listed, found, root)
        taken = [slide for slide in found if slide in entry_of]
        if not taken:
            named = ", ".join(shorten(name, 40) for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
            these = counted(len(listed), "slide")
            raise InputError(f"{listing}: none of its {these} ({named}) is in {slides}{_reasons(notes)}")
        note = f"listed in {listing} are not in {slides} (add them, or take them off the list)"
        _note(notes, missing, len({entry.name for entry in listed}), note)
    left_out = {s for s in taken if any(_has_name(s, pattern) for pattern in config.leave_out)}
    _note(notes, [s.path.name for s in taken if s in left_out], len(taken), "are to be left out")
    if idle := [pattern for pattern in config.leave_out if not any(_has_name(s, pattern) for s in taken)]:
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        notes.append(f"no slide here has a name to be left out: {', '.join(map(shorten, idle[:3]))}{more}")
    taken = [slide for slide in taken if slide not in left_out]
    homes = _Annotations(annotations, root, config.annotation_suffix)
    drawn = {slide: homes.of(slide) for slide in taken}
    if not config.unannotated:
        without = [slide for slide in taken if drawn[slide] is None]
        if annotations is not None:
            note = f"have no annotation of their name in {annotations}"
            _note(notes, [s.path.name for s in without], len(taken), note)
        taken = [slide for slide in taken if drawn[slide] is not None]
    notes += homes.notes
    if not taken:
        raise InputError(_nothing(slides, annotations, found[0], notes))
    _check_one_each((slide, drawn[slide]) for slide in taken)
    entries = [entry_of.get(slide) for slide in taken]
    cases = [
        _case(slide, config) if entry is None or is_missing(entry.case) else entry.case
        for slide, entry in zip(taken, entries, strict=True)
    ]
    cases, joined = same_spelling(cases)
    notes += joined
    if config.case_pattern is None and not config.listed.case:
        notes += _shared_names(taken, cases)
    if config.case_pattern is None and not config.listed.case:
        notes += case_hints(cases)
    split = split_by_case(cases, config.val_share, config.rules.seed)
    return [
        SlideJob(
            slide=slide.path,
            annotation=drawn[slide],
            source=source_name(slide.path, root),
            case=case,
            split=part,
            root=root,
            annotations=annotations.absolute() if annotations is not None else None,
            annotation_name=homes.name_of(drawn[slide]),
            mpp=entry.mpp if entry else None,
            files=slide.files,
        )
        for slide, entry, case, part in zip(taken, entries, cases, split, strict=True)
    ], notes


class _Annotations:
    """The files of a folder of annotations, by folder and comparable name."""

    def __init__(self, folder: Path | None, root: Path, suffix: str):
        self.folder, self._root, self.notes = folder.absolute() if folder is not None else None, root, []
        self._ends = (suffix,) if suffix else tuple(end + s for s in ANNOTATION_SUFFIXES for end in _MASK_ENDS)
        self._files: dict[tuple[Path, str], Path] = {}
        if self.folder is None:
            return
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folder of the annotations")
        found = find_files(self.folder, lambda path: True, "annotations", follow_links=True)
        for path in found.files:
            self._files.setdefault((path.parent, canonical(path.name)), path)

    def of(self, slide: FoundSlide) -> Path | None:
        """The file of the slide's name, in the same place below the folder as the slide's or at its top."""
        if self.folder is None:
            return None
        homes = (self.folder / slide.path.parent.relative_to(self._root), self.folder)
        names = dict.fromkeys((slide.name, base_name(slide.path), slide.path.name))  # also a.svs.geojson
        candidates = ((home, canonical(f"{name}{end}")) for home in homes for end in self._ends for name in names)
        paths = [self._files[key] for key in dict.fromkeys(candidates) if key in self._files]
        paths = [path for path in paths if path != slide.path]
        if len({path.parent for path in paths[:2]}) == 1 and len(paths) > 1 and paths[1].parent == paths[0].parent:
            self.notes.append(f"{paths[0]}: is taken, and {paths[1].name} of the same slide is not")
        return paths[0] if paths else None

    def name_of(self, path: Path | None) -> str:
        """The path relative to the folder, as it is recorded."""
        return path.relative_to(self.folder).as_posix() if path is not None and self.folder is not None else ""


def _keys(slide: FoundSlide) -> set[str]:
    """The names by which a list may name a slide."""
    return {canonical(name) for name in (slide.name, base_name(slide.path), slide.path.name)}


def _check_one_each(pairs: Iterable[tuple[FoundSlide, Path | None]]) -> None:
    seen: dict[Path, FoundSlide] = {}
    for slide, path in pairs:
        if path is not None and (other := seen.setdefault(path, slide)) is not slide:
            raise InputError(
                f"{path}: belongs to two slides of one name, {other.path.name} and {slide.path.name}; leave one out "
                f"with --leave-out '{slide.path.name}', or order slides and annotations in subfolders"
            )


def _match(listed: list[_Listed], found: list[FoundSlide], root: Path) -> tuple[dict[FoundSlide, _Listed], list[str]]:
    """What the list says of each slide that it names, and the names without a slide.

    Of slides of one name, those are meant whose folders agree best with the folders in the list. Where none agrees, the
    list was made elsewhere, and the name alone counts. Raises InputError where two rows say different things of a
    slide.
    """
    named: dict[str, list[FoundSlide]] = defaultdict(list)
    for slide in found:
        for key in _keys(slide):
            named[key].append(slide)
    entries: dict[FoundSlide, _Listed] = {}
    for entry in listed:
        of_name = named.get(entry.key, [])
        shared = [_shared_folders(Path(entry.name).parent, slide.path.parent.relative_to(root)) for slide in of_name]
        for slide, share in zip(of_name, shared, strict=True):
            if share != max(shared):
                continue
            other = entries.setdefault(slide, entry)
            if (canonical(other.case), other.mpp) != (canonical(entry.case), entry.mpp):
                raise InputError(
                    f"{entry.where}: slide {shorten(entry.name)} is listed before with another case or mpp "
                    f"({shorten(other.case)!r}, now {shorten(entry.case)!r}); keep one of the rows"
                )
    return entries, sorted({entry.name for entry in listed if entry.key not in named})


def _shared_folders(one: Path, other: Path) -> tuple[int, bool]:
    """How many folders two paths share from their ends upwards, and whether one of them has no other folders."""
    a, b = ([canonical(part) for part in reversed(path.parts)] for path in (one, other))
    pairs = zip(a, b, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared, shared == min(len(a), len(b))


def _read_listing(path: Path, config: SlideList) -> list[_Listed]:
    """What the rows that hold all conditions say."""
    columns_of_file, rows = read_csv(path, "slides")
    conditions = [tuple(tidy(part) for part in condition.split("=", 1)) for condition in config.where]
    names = (config.slide, config.case, config.mpp, *(name for name, _ in conditions))
    columns = {name: column_named(name, columns_of_file, path) for name in names if name}
    chosen = {
        line: row
        for line, row in rows.items()
        if all(canonical(row[columns[name]]) == canonical(value) for name, value in conditions)
    }
    if not chosen:
        raise InputError(f"{path}: no row holds {' and '.join(config.where)}; look at the spelling of the values")
    listed = []
    for line, row in chosen.items():
        where, case = f"{path} line {line}", row[columns[config.case]] if config.case else ""
        mpp = _mpp(row[columns[config.mpp]], where) if config.mpp else None
        listed.append(_Listed(row[columns[config.slide]], case, mpp, where))
    return listed


def _mpp(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text.replace(",", "."))
    except ValueError:
        mpp = math.nan
    if not (math.isfinite(mpp) and mpp > 0):
        raise InputError(f"{where}: mpp is {shorten(text)!r}; write micrometers per pixel, such as 0.25")
    return mpp


def _has_name(slide: FoundSlide, pattern: str) -> bool:
    """Whether a pattern fits the name of a slide, with or without its suffix, in any case of letters."""
    names = (slide.path.name, slide.name)
    return any(fnmatch.fnmatchcase(canonical(name), canonical(pattern)) for name in names)


def _case(slide: FoundSlide, config: SlideDataset) -> str:
    if config.case_pattern is None:
        return printable(tidy(slide.name))
    found = re.search(config.case_pattern, slide.path.name)
    if found is None or not found[1]:
        raise ConfigError(
            f"case pattern {config.case_pattern!r} finds no case in {slide.path.name!r}; it needs one for every slide"
        )
    return printable(found[1])


def _shared_names(slides: list[FoundSlide], cases: list[str]) -> list[str]:
    """A note where slides of several folders count as one case because they have one name."""
    homes: dict[str, set[Path]] = {}
    for slide, case in zip(slides, cases, strict=True):
        homes.setdefault(case, set()).add(slide.path.parent)
    shared = [case for case, folders in homes.items() if len(folders) > 1]
    if not shared:
        return []
    return [
        f"{len(shared)} names are those of slides in several folders, which count as one case each: "
        f"{shorten(shared[0])}; name cases with --case-pattern or a list if they are other patients"
    ]


def _note(notes: list[str], names: Sequence[str], total: int, what: str) -> None:
    if names:
        shown = shorten(names[0])
        notes.append(f"{len(names)} of {total} slides {what}: {shown}{', ...' if len(names) > 1 else ''}")


def _reasons(notes: list[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _nothing(slides: Path, annotations: Path | None, first: FoundSlide, notes: list[str]) -> str:
    if annotations is None:
        return (
            f"{slides}: no slide is left; give the folder of the annotations, or take slides without (--unannotated)"
            f"{_reasons(notes)}"
        )
    return (
        f"{annotations}: no file here is named as a slide, such as {first.name}.geojson; rename them, or give "
        f"--annotation-suffix{_reasons(notes)}"
    )
