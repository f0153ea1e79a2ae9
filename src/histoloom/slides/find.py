"""Which files below a folder are slides: one walk for every command that reads slides.

A slide may be many files: of a DICOM series (one SeriesInstanceUID) the first file stands for the slide, and images
that a VMS or MRXS index names belong to it. A picture that has the name of a slide in its folder is the thumbnail,
label or mask of that slide.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from histoloom.errors import InputError
from histoloom.slides.dicom import is_dicom, series_uid
from histoloom.text import canonical
from histoloom.walk import Found, find_files, is_hidden, suffix_of

SCANNER_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm", ".tif", ".tiff", ".ptif",
    ".ptiff", ".qptiff", ".btf", ".tf2", ".tf8",
)  # fmt: skip
SLIDE_SUFFIXES = (*SCANNER_SUFFIXES, ".png", ".jpg", ".jpeg", ".webp", ".bmp")
_RELATED = re.compile(r"[ ._-]*(thumb|thumbnails?|overview|macro|labels?|map|preview|masks?|overlay)$")


@dataclass(frozen=True)
class FoundSlide:
    """A slide: the file that is opened, the name that it shares with its annotation, and its further files."""

    path: Path
    name: str
    files: tuple[Path, ...] = ()


def find_slides(source: Path) -> tuple[list[FoundSlide], list[str]]:
    """The slide at `source`, or all slides below it, in order of path, with a note on each kind that was left out.

    Linked folders are entered. Raises InputError where there is no such file or folder.
    """
    if source.is_file():
        return [_slide_alone(source)], []
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give a slide or a folder of slides")
    found = find_files(source, is_slide_file, "slides", follow_links=True)
    return _grouped(found), found.notes


def is_slide_file(path: Path) -> bool:
    """True for the suffixes of slides, and for DICOM files without a suffix, as archives export them."""
    if suffix_of(path) in SLIDE_SUFFIXES:
        return True
    return not path.suffix.strip(".0123456789") and path.is_file() and is_dicom(path)


def stem(slide: Path) -> str:
    """The name that a slide shares with its annotation: without suffix; that of its folder for a DICOM slide."""
    return slide.parent.name if suffix_of(slide) == ".dcm" else base_name(slide)


def base_name(path: Path) -> str:
    """The name of a file without its suffix, and without the `.ome` of an OME-TIFF."""
    name = path.name[: -len(path.suffix)] if path.suffix else path.name
    return name[:-4] if canonical(name).endswith(".ome") else name


def _grouped(found: Found) -> list[FoundSlide]:
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in found.files:
        folders[path.parent].append(path)
    slides: list[FoundSlide] = []
    for folder, paths in folders.items():
        dicom = [path for path in paths if suffix_of(path) == ".dcm" or suffix_of(path) not in SLIDE_SUFFIXES]
        others = [path for path in paths if path not in set(dicom)]
        slides += _series(folder, dicom)
        indexed = [path for path in others if suffix_of(path) in (".vms", ".vmu")]
        if indexed:  # the JPEGs next to it are its pixels
            pixels = [path for path in others if suffix_of(path) in (".jpg", ".jpeg", ".opt")]
            others = [path for path in others if path not in set(pixels)]
            slides += [FoundSlide(path, base_name(path), tuple(pixels)) for path in indexed]
        others = [path for path in others if path not in set(indexed)]
        related = _related(others)
        found.leave_out("pictures next to the slide of their name (thumbnails, labels, masks) were left out", related)
        slides += [_slide_alone(path) for path in others if path not in set(related)]
    return sorted(slides, key=lambda slide: slide.path)


def _series(folder: Path, paths: list[Path]) -> list[FoundSlide]:
    """DICOM files by series; those that name none are one slide."""
    series: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        series[series_uid(path)].append(path)
    names = [folder.name] if len(series) == 1 else [base_name(files[0]) for files in series.values()]
    return [FoundSlide(files[0], name, tuple(files[1:])) for name, files in zip(names, series.values(), strict=True)]


def _related(paths: Iterable[Path]) -> list[Path]:
    """Pictures with the name of a slide from a scanner, and masks with its name and `_mask`."""
    paths = list(paths)
    slides = {canonical(base_name(path)): path for path in paths if suffix_of(path) in SCANNER_SUFFIXES}
    related = []
    for path in paths:
        name, is_picture = canonical(base_name(path)), suffix_of(path) not in SCANNER_SUFFIXES
        whole = canonical(base_name(Path(base_name(path))))  # a.svs.png
        end = _RELATED.search(name)
        named = ({name, whole} if is_picture else set()) | ({name[: end.start()]} if end else set())
        if any(slides.get(other, path) != path for other in named):
            related.append(path)
    return related


def _slide_alone(path: Path) -> FoundSlide:
    if suffix_of(path) == ".mrxs" and path.with_suffix("").is_dir():
        return FoundSlide(
            path, base_name(path), tuple(sorted(p for p in path.with_suffix("").iterdir() if p.is_file()))
        )
    if suffix_of(path) == ".dcm" or (suffix_of(path) not in SLIDE_SUFFIXES and is_dicom(path)):
        uid = series_uid(path)
        near = [other for other in sorted(path.parent.iterdir()) if is_slide_file(other) and not is_hidden(other.name)]
        same = [other for other in near if other != path and uid and series_uid(other) == uid]
        is_one = all(series_uid(other) in ("", uid) for other in near)
        return FoundSlide(path, path.parent.name if is_one else base_name(path), tuple(same))
    return FoundSlide(path, base_name(path))
