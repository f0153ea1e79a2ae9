"""Patches from one's own pictures: an image folder and a map folder, or a `manifest.csv` that names both.

Images larger than a patch are cut into a centred grid of patches without overlap. No path leaves the folder it was
found in, so a foreign manifest reads nothing but its own data.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from histoloom.errors import ConfigError, ImageError, InputError
from histoloom.patches.heterogeneity import class_fractions, entropy
from histoloom.patches.maps import BROKEN, MapReader, read_image
from histoloom.patches.split import check_split, split_by_case
from histoloom.patches.store import encode_png
from histoloom.tissue import UNLABELLED, TissueTable

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
SPLITS = ("train", "val", "test")
DEFAULT_VAL_SHARE = 0.15


@dataclass(frozen=True)
class FolderImport:
    """How pictures become patches."""

    trim: int = 0  # px cut from every edge of image and map, before anything else
    size: int | None = None  # edge of a patch in px; none: an image is one patch, and all must be squares of one size
    case_column: str = "case_id"  # of the manifest
    case_pattern: str | None = None  # searched in the file name; its one group is the case; wins over the column
    map_suffix: str = ""  # a.png goes with the map a{map_suffix}.png
    val_share: float | None = None  # of the patches, by case; none: the manifest's split column, else 0.15
    seed: int = 0  # of the split
    mpp: float | None = None  # micrometres per pixel; none: unknown
    unlabelled: tuple[str, ...] = ()  # map values ("0") or colours ("#000000") that mean no label, beside 255

    def __post_init__(self):
        if self.trim < 0 or (self.size is not None and self.size < 1):
            raise ConfigError(f"trim is {self.trim} and size {self.size}; trim is 0 or more, size 1 or more")
        if self.val_share is not None and not 0 <= self.val_share < 1:
            raise ConfigError(f"val_share is {self.val_share}; it lies in 0 to 1 (1 excluded)")
        if self.mpp is not None and not 0 < self.mpp < float("inf"):
            raise ConfigError(f"mpp is {self.mpp}; it is a positive number of micrometres per pixel")
        if self.case_pattern is not None and _groups(self.case_pattern) != 1:
            raise ConfigError(f"case_pattern {self.case_pattern!r} needs exactly one group, as in '^(P[0-9]+)_'")


@dataclass(frozen=True)
class Picture:
    """An image with its map: what it is called, whose it is, how large, where its patches lie."""

    image: Path
    map: Path
    source: str  # the image, relative to the data root
    case: str
    split: str  # empty until assigned
    width: int = 0
    height: int = 0
    places: tuple[tuple[int, int], ...] = ()  # x, y of the top-left corner of each patch
    size: int = 0  # edge of its patches in px


def find_pictures(source: Path, maps: Path | None, config: FolderImport) -> list[Picture]:
    """Pictures of an image folder (with `maps`) or a manifest, checked by their headers, with places and splits.

    A folder is walked in order of name, a manifest in its own order. Raises InputError naming file and cure.
    """
    if source.is_dir():
        if maps is None:
            raise InputError(f"{source}: is a folder of images; name the folder of their maps with --maps")
        pictures = _from_folders(source, maps, config)
    elif maps is not None and not source.exists():
        raise InputError(f"{source}: no such folder of images; check the path")
    elif maps is not None:
        raise InputError(f"{source}: a manifest names the maps itself; leave out --maps, or give an image folder")
    else:
        pictures = _from_manifest(source, config)
    pictures = _plan([_measure(picture) for picture in pictures], config)
    if not any(picture.places for picture in pictures):
        raise InputError(
            f"{source}: every image is smaller than {config.size} px after trimming; ask for a smaller --size"
        )
    return _assign_splits(pictures, config)


def patch_rows(pictures: Iterable[Picture], table: TissueTable, config: FolderImport) -> Iterator[dict]:
    """Rows of `patches.schema` for each patch that holds at least one labelled pixel, in the order of `pictures`.

    Images are decoded and written again as lossless PNG. Raises ImageError and TissueError naming the file.
    """
    reader = MapReader(table, config.unlabelled)
    for picture in pictures:
        image, semantic_map = read_image(picture.image), reader.read(picture.map)
        for x, y in picture.places:
            window = slice(y, y + picture.size), slice(x, x + picture.size)
            if (semantic_map[window] == UNLABELLED).all():
                continue
            fractions = class_fractions(semantic_map[window], table.num_ids)
            yield {
                "image": encode_png(image[window]),
                "semantic_map": encode_png(semantic_map[window]),
                "source": picture.source,
                "x": x,
                "y": y,
                "size": picture.size,
                "mpp": config.mpp,
                "fractions": fractions.tolist(),
                "entropy": float(entropy(fractions[None])[0]),
                "case": picture.case,
                "split": picture.split,
            }


def dropped_share(pictures: Iterable[Picture]) -> float:
    """Share of all pixels that lie in no patch: trimmed, or left over where the grid ends."""
    pictures = list(pictures)
    area = sum(picture.width * picture.height for picture in pictures)
    return 1 - sum(len(picture.places) * picture.size**2 for picture in pictures) / area


def input_hash(pictures: Iterable[Picture]) -> str:
    """SHA-256 over names, cases, splits and bytes of all images and maps: what a dataset was made from."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update("\0".join((picture.source, picture.case, picture.split, "")).encode())
        for path in (picture.image, picture.map):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _from_folders(images: Path, maps: Path, config: FolderImport) -> list[Picture]:
    if not maps.is_dir():
        raise InputError(f"{maps}: no such folder of maps")
    same = images.resolve() == maps.resolve()
    if same and not config.map_suffix:
        raise InputError(
            f"{images}: images and maps share the folder; tell them apart with --map-suffix, such as _mask"
        )
    masks: dict[str, Path] = {}
    for path in _walk(maps):
        if (other := masks.setdefault(_key(path, maps), path)) != path and not same:
            raise InputError(f"{path}: stands beside {other.name}; keep one map per name")
    if same:
        found = [path for path in _walk(images) if not path.stem.endswith(config.map_suffix)]
    else:  # the maps may lie in a folder below the images
        found = [path for path in _walk(images) if not path.absolute().is_relative_to(maps.absolute())]
    if not found:
        raise InputError(f"{images}: no images ({', '.join(s[1:] for s in SUFFIXES)}) in it; name another folder")
    taken: dict[str, Path] = {}
    for path in found:
        key = _key(path, images)
        if (other := taken.setdefault(key, path)) != path:
            raise InputError(f"{path}: shares its map with {other.name}; keep one image per map")
        if key + config.map_suffix not in masks:
            raise InputError(
                f"{path}: has no map {maps / (key + config.map_suffix)}.*; add it, take the image away, or say how "
                "the names of maps differ with --map-suffix"
            )
    names = [path.relative_to(images).as_posix() for path in found]
    cases = _cases(names, [None] * len(names), config)
    return [
        Picture(_inside(path, images), _inside(masks[_key(path, images) + config.map_suffix], maps), name, case, "")
        for path, name, case in zip(found, names, cases, strict=True)
    ]


def _from_manifest(manifest: Path, config: FolderImport) -> list[Picture]:
    rows, root = _manifest_rows(manifest), manifest.parent
    names = [row["image"] for row in rows.values()]
    cases = _cases(names, [row.get(config.case_column) for row in rows.values()], config)
    has_splits = config.val_share is None and any(row.get("split") for row in rows.values())
    pictures = []
    for (line, row), case in zip(rows.items(), cases, strict=True):
        where, split = f"{manifest} line {line}", row["split"] if has_splits else ""
        if not case:
            raise InputError(f"{where}: {config.case_column} is empty; fill it in, or find cases with --case-pattern")
        if has_splits and split not in SPLITS:
            raise InputError(f"{where}: split is {split!r}; write train, val or test, or draw one with --val-share")
        image, semantic_map = (_inside(root / row[key], root, where) for key in ("image", "map"))
        pictures.append(Picture(image, semantic_map, row["image"], case, split))
    return pictures


def _manifest_rows(manifest: Path) -> dict[int, dict[str, str]]:
    """Rows by the line they end on, their image paths relative and in one spelling."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            numbered = ((reader.line_num, row) for row in reader)
            rows = {line: {key: value.strip() for key, value in row.items() if key} for line, row in numbered}
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{manifest}: neither a folder of images nor a readable manifest.csv ({error})") from None
    if missing := [column for column in ("image", "map") if column not in columns]:
        raise InputError(f"{manifest}: lacks the column {missing[0]!r}; a manifest has at least the columns image, map")
    if not rows:
        raise InputError(f"{manifest}: has no rows below its header; list an image and its map on each")
    seen: dict[str, int] = {}
    for line, row in rows.items():
        where = f"{manifest} line {line}"
        if not row["image"] or not row["map"]:
            raise InputError(f"{where}: image or map is empty; name both, relative to {manifest.parent}")
        if Path(row["image"]).is_absolute():
            raise InputError(f"{where}: {row['image']} is an absolute path; write it relative to {manifest.parent}")
        row["image"] = Path(os.path.normpath(row["image"])).as_posix()
        if (other := seen.setdefault(row["image"], line)) != line:
            raise InputError(f"{where}: {row['image']} is on line {other} already; keep one of the two rows")
    return rows


def _cases(names: list[str], column: list[str | None], config: FolderImport) -> list[str]:
    if config.case_pattern is not None:
        return [_case_by_pattern(name, config.case_pattern) for name in names]
    if None not in column:
        return column
    # Without a rule, a folder below the folder that all images share is a case, and so is an image right in it.
    shared = Path(os.path.commonpath([Path(name).parent for name in names]))
    below = [Path(name).relative_to(shared) for name in names]
    return [path.stem if path.parent == Path() else path.parent.as_posix() for path in below]


def _case_by_pattern(name: str, pattern: str) -> str:
    match = re.search(pattern, Path(name).name)
    if match is None or not match[1]:
        raise InputError(f"{name}: the case pattern {pattern!r} finds nothing in its name; widen the pattern")
    return match[1]


def _measure(picture: Picture) -> Picture:
    sizes = []
    for path in (picture.image, picture.map):
        if not path.is_file():
            raise InputError(f"{path}: no such file; add it, or take its row or partner away")
        try:
            with Image.open(path) as opened:
                sizes.append(opened.size)
        except BROKEN as error:
            raise ImageError(f"{path}: cannot read the picture ({error}); replace the file or leave it out") from None
    (width, height), (map_width, map_height) = sizes
    if sizes[0] != sizes[1]:
        raise ImageError(
            f"{picture.map}: is {map_width} x {map_height} px but its image {picture.image.name} is {width} x "
            f"{height}; export both at one size"
        )
    return replace(picture, width=width, height=height)


def _plan(pictures: list[Picture], config: FolderImport) -> list[Picture]:
    planned = []
    for picture in pictures:
        width, height = picture.width - 2 * config.trim, picture.height - 2 * config.trim
        if min(width, height) < 1:
            raise ImageError(f"{picture.image}: nothing is left of it after trimming {config.trim} px; trim less")
        size = config.size or _edge(width, height, planned, picture)
        xs, ys = _starts(width, size, config.trim), _starts(height, size, config.trim)
        planned.append(replace(picture, size=size, places=tuple((x, y) for y in ys for x in xs)))
    return planned


def _edge(width: int, height: int, planned: list[Picture], picture: Picture) -> int:
    size = planned[0].size if planned else width
    if not width == height == size:
        raise ImageError(
            f"{picture.image}: is {width} x {height} px after trimming where {size} x {size} is expected; cut "
            "patches of one size with --size"
        )
    return size


def _starts(length: int, size: int, trim: int) -> range:
    first = trim + length % size // 2 if length >= size else 0
    return range(first, first + length // size * size, size)


def _assign_splits(pictures: list[Picture], config: FolderImport) -> list[Picture]:
    cases = [picture.case for picture in pictures]
    if not all(picture.split for picture in pictures):
        share = DEFAULT_VAL_SHARE if config.val_share is None else config.val_share
        splits = split_by_case(cases, share, config.seed, [len(picture.places) for picture in pictures])
        pictures = [replace(picture, split=split) for picture, split in zip(pictures, splits, strict=True)]
    check_split(cases, [picture.split for picture in pictures])
    return pictures


def _walk(folder: Path) -> list[Path]:
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.startswith("."))
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES)


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _inside(path: Path, root: Path, where: str | None = None) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{where or path}: {path.name} leads out of {root} to {path.resolve()}; copy the file into the folder, and "
            "name it by a relative path"
        )
    return path


def _groups(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"case_pattern {pattern!r} is no regular expression ({error})") from None
