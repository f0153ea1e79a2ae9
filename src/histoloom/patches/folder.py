"""Patches from one's own pictures: an image folder and a map folder, or a `manifest.csv` that names both.

Images may be resampled to another magnification. Those larger than a patch are cut in a centered grid. No path leaves
the folder that was named, so a foreign manifest reads nothing but its own data.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from histoloom.config import check_numbers
from histoloom.errors import ConfigError, ImageError, InputError
from histoloom.patches.cases import case_hints, is_missing, same_spelling
from histoloom.patches.grid import Grid
from histoloom.patches.heterogeneity import class_fractions, entropy
from histoloom.patches.manifest import manifest_rows
from histoloom.patches.maps import MapReader, Tally
from histoloom.patches.rules import check_case_pattern, check_seed
from histoloom.patches.split import check_split, split_by_case
from histoloom.patches.store import encode_png
from histoloom.pictures import IMAGE_SUFFIXES, MAX_PIXELS, opened_picture, read_image
from histoloom.text import canonical, counted, printable, shorten
from histoloom.tissue import UNLABELLED, TissueTable
from histoloom.walk import Found, find_files, source_name, suffix_of

SUFFIXES = IMAGE_SUFFIXES
SPLITS = ("train", "val", "test")
DEFAULT_VAL_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class FolderImport:
    """How pictures become patches."""

    trim: int = 0  # px cut from every edge of image and map, before anything else
    size: int | None = None  # edge of a patch in px; none: an image is one patch, and all must be squares of one size
    stride: int | None = None  # px from one patch to the next; less than `size` lets patches overlap; none: `size`
    case_column: str = "case_id"  # of the manifest
    case_pattern: str | None = None  # searched in the file name; its one group is the case; wins over the column
    map_suffix: str = ""  # a.png goes with the map a{map_suffix}.png
    val_share: float | None = None  # of the patches, by case; none: the manifest's split column, else 0.15
    seed: int = 0  # of the split
    mpp: float | None = None  # micrometers per pixel of the images; none: unknown
    to_mpp: float | None = None  # micrometers per pixel of the patches; none: those of the images
    unlabelled: tuple[str, ...] = ()  # map values ("0") or colors ("#000000") that mean no label, besides 255

    def __post_init__(self):
        check_numbers(self)
        if not 0 <= self.trim <= 2**17 or (self.size is not None and not 1 <= self.size <= 2**17):
            raise ConfigError(f"trim is {self.trim} and size {self.size}; trim is 0 or more, size 1 or more")
        if self.val_share is not None and not 0 <= self.val_share < 1:
            raise ConfigError(f"val_share is {self.val_share}; it must be at least 0 and below 1")
        if self.stride is not None and (self.size is None or not 1 <= self.stride <= 2**17):
            raise ConfigError(f"stride is {self.stride}; it is 1 or more, and needs the size of a patch")
        for name in ("mpp", "to_mpp"):
            value = getattr(self, name)
            if value is not None and not 0.001 <= value <= 1000:
                raise ConfigError(f"{name} is {value}; give micrometers per pixel in [0.001, 1000]")
        if self.to_mpp is not None and self.mpp is None:
            raise ConfigError(f"to_mpp is {self.to_mpp}, but the mpp of the images is unknown; give that, too")
        try:
            check_case_pattern(self.case_pattern)
        except ConfigError as error:
            raise ConfigError(f"case_pattern: {error}") from None
        check_seed(self.seed)

    @property
    def scale(self) -> float:
        """Pixels of an image per pixel of a patch."""
        return 1.0 if self.mpp is None or self.to_mpp is None else self.to_mpp / self.mpp


@dataclass(frozen=True)
class Picture:
    """An image with its map, its name, its case, its size, and the grid of its patches."""

    image: Path
    map: Path
    source: str  # the image, relative to the data root
    case: str
    split: str  # empty until assigned
    width: int = 0
    height: int = 0
    grid: Grid | None = None  # none until planned

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """x and y of each patch in its grid."""
        return self.grid.places if self.grid else ()

    @property
    def size(self) -> int:
        """Edge of a patch in px; 0 until planned."""
        return self.grid.size if self.grid else 0


def find_pictures(
    source: Path, maps: Path | None, config: FolderImport, root: Path | None = None, notes: list[str] | None = None
) -> list[Picture]:
    """Pictures of an image folder (with `maps`) or a manifest, checked by their headers, with places and splits.

    A folder is walked in order of name, a manifest in its own order. Files that a manifest names are below `root`,
    by default the folder of the manifest. `notes` gets one line for each kind of file that is left out. Raises
    InputError naming file and cure.
    """
    notes = [] if notes is None else notes
    if source.is_dir():
        if maps is None:
            raise InputError(f"{source}: is a folder of images; name the folder of their maps with --maps")
        if root is not None:
            raise InputError(f"{source}: --root is for manifests; a folder of images needs none")
        pictures = _from_folders(source, maps, config, notes)
    elif maps is not None and not source.exists():
        raise InputError(f"{source}: no such folder of images; check the path")
    elif maps is not None:
        raise InputError(f"{source}: a manifest names the maps itself; leave out --maps, or give an image folder")
    else:
        pictures = _from_manifest(source, config, root)
    cases, joined = same_spelling([picture.case for picture in pictures])
    notes += joined
    if config.case_pattern is None:
        notes += case_hints(cases)
    pictures = [replace(picture, case=case) for picture, case in zip(pictures, cases, strict=True)]
    pictures = _plan([_measure(picture) for picture in pictures], config)
    if not any(picture.places for picture in pictures):
        raise InputError(
            f"{source}: every image is smaller than {config.size} px after trimming; ask for a smaller --size"
        )
    return _assign_splits(pictures, config)


def patch_rows(
    pictures: Iterable[Picture], table: TissueTable, config: FolderImport, tally: Tally | None = None
) -> Iterator[dict]:
    """Rows of `patches.schema` for each patch that holds at least one labeled pixel, in the order of `pictures`.

    Images are decoded and written again as lossless PNG; `tally` counts what the maps hold. Raises ImageError and
    TissueError naming the file.
    """
    reader = MapReader(table, config.unlabelled)
    reader.tally = tally if tally is not None else reader.tally
    for picture in pictures:
        grid = picture.grid
        assert grid is not None, "find_pictures plans every picture"
        image, semantic_map = grid.resampled(read_image(picture.image), reader.read(picture.map))
        for x, y in grid.places:
            window = slice(y, y + grid.size), slice(x, x + grid.size)
            left, top, edge = grid.at_level_0(x, y)
            if (semantic_map[window] == UNLABELLED).all():
                continue
            fractions = class_fractions(semantic_map[window], table.num_ids)
            yield {
                "image": encode_png(image[window]),
                "semantic_map": encode_png(semantic_map[window]),
                "source": picture.source,
                "x": left,
                "y": top,
                "size": edge,
                "mpp": config.to_mpp or config.mpp,
                "fractions": fractions.tolist(),
                "entropy": float(entropy(fractions[None])[0]),
                "case": picture.case,
                "split": picture.split,
            }


def dropped_share(pictures: Iterable[Picture]) -> float:
    """Share of all pixels that are in no patch: trimmed, or left over where the grid ends."""
    pictures = list(pictures)
    area = sum(picture.width * picture.height for picture in pictures)
    return 1 - sum(picture.grid.covered for picture in pictures if picture.grid) / area


def _from_folders(images: Path, maps: Path, config: FolderImport, notes: list[str]) -> list[Picture]:
    if not maps.is_dir():
        raise InputError(f"{maps}: no such folder of maps")
    same = images.resolve() == maps.resolve()
    if same and not config.map_suffix:
        raise InputError(
            f"{images}: images and maps share the folder; tell them apart with --map-suffix, such as _mask"
        )
    of_maps = _walk(maps)
    if same:
        end = canonical(config.map_suffix)
        found = [path for path in of_maps.files if not canonical(path.stem).endswith(end)]
        drawn = [path for path in of_maps.files if path not in set(found)]
        notes += of_maps.notes
    else:  # the maps may be in a folder below the images
        of_images = _walk(images)
        found = [path for path in of_images.files if not path.absolute().is_relative_to(maps.absolute())]
        drawn = of_maps.files
        notes += of_images.notes + [note for note in of_maps.notes if note not in of_images.notes]
    if not found:
        raise InputError(f"{images}: no images ({', '.join(s[1:] for s in SUFFIXES)}) in it; name another folder")
    pairs = _pair(found, images, drawn, maps, config.map_suffix)
    if unused := [path for path in drawn if path not in set(pairs.values())]:
        belong = counted(len(unused), "map belongs", "maps belong")
        notes.append(f"{belong} to no image: {shorten(unused[0].name)}{', ...' * (len(unused) > 1)}")
    names = [source_name(path, images) for path in found]
    cases = _cases(names, [None] * len(names), config)
    return [
        Picture(_inside(path, images), _inside(pairs[path], maps), name, case, "")
        for path, name, case in zip(found, names, cases, strict=True)
    ]


def _pair(found: list[Path], images: Path, drawn: list[Path], maps: Path, map_suffix: str) -> dict[Path, Path]:
    """The map of each image: of its very name, else the only one whose name differs in case, blanks or umlauts."""
    exact: dict[str, Path] = {}
    alike: dict[str, list[Path]] = {}
    for path in drawn:
        key = _key(path, maps)
        if (other := exact.setdefault(key, path)) != path:
            raise InputError(f"{path}: has the name of {other.name}; keep one map per name")
        alike.setdefault(canonical(key), []).append(path)
    pairs: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path in found:
        wanted = _key(path, images) + map_suffix
        some = alike.get(canonical(wanted), [])
        chosen = exact.get(wanted) or (some[0] if len(some) == 1 else None)
        if chosen is None:
            raise InputError(
                f"{path}: has no map {maps / wanted}.*; add it, take the image away, or say how the names of maps "
                "differ with --map-suffix"
            )
        if (other := taken.setdefault(chosen, path)) != path:
            raise InputError(f"{path}: shares its map with {other.name}; keep one image per map")
        pairs[path] = chosen
    return pairs


def _from_manifest(manifest: Path, config: FolderImport, root: Path | None) -> list[Picture]:
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of the files in {manifest} with --root")
    root = root or manifest.parent
    if config.map_suffix:
        raise ConfigError(f"--map-suffix has no effect on {manifest}, which names each map; leave it out")
    chosen = () if config.case_column == FolderImport.case_column else (config.case_column,)
    rows = manifest_rows(manifest, root, *chosen)
    names = [row["image"] for row in rows.values()]
    cases = _cases(names, [row.get(config.case_column) for row in rows.values()], config)
    has_splits = config.val_share is None and any(row.get("split") for row in rows.values())
    pictures = []
    for (line, row), case in zip(rows.items(), cases, strict=True):
        where, split = f"{manifest} line {line}", canonical(row["split"]) if has_splits else ""
        if not case or (case == row.get(config.case_column) and is_missing(case)):
            shown = shorten(repr(case)) if case else "empty"
            raise InputError(f"{where}: {config.case_column} is {shown}; fill it in, or find cases with --case-pattern")
        if has_splits and split not in SPLITS:
            raise InputError(
                f"{where}: split is {shorten(row['split'])!r}; write train, val or test, or draw one with --val-share"
            )
        image, semantic_map = (_inside(root / row[key], root, where) for key in ("image", "map"))
        pictures.append(Picture(image, semantic_map, printable(row["image"]), case, split))
    return pictures


def _cases(names: list[str], column: Sequence[str | None], config: FolderImport) -> list[str]:
    if config.case_pattern is not None:
        return [_case_by_pattern(name, config.case_pattern) for name in names]
    named = [case for case in column if case is not None]
    if len(named) == len(names):
        return named
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
        with opened_picture(path) as opened:
            sizes.append(opened.size)
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
        width, height = (round(length / config.scale) for length in (width, height))
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            raise ImageError(
                f"{picture.image}: would be {width} x {height} px at {config.to_mpp:g} mpp; check --mpp and --to-mpp"
            )
        size = config.size or _edge(width, height, planned, picture)
        planned.append(
            replace(picture, grid=Grid(config.trim, config.scale, width, height, size, config.stride or size))
        )
    return planned


def _edge(width: int, height: int, planned: list[Picture], picture: Picture) -> int:
    size = planned[0].size if planned else width
    if not width == height == size:
        raise ImageError(
            f"{picture.image}: is {width} x {height} px after trimming and resampling where {size} x {size} is "
            "expected; cut patches of one size with --size"
        )
    return size


def _assign_splits(pictures: list[Picture], config: FolderImport) -> list[Picture]:
    cases = [picture.case for picture in pictures]
    if not all(picture.split for picture in pictures):
        share = DEFAULT_VAL_SHARE if config.val_share is None else config.val_share
        splits = split_by_case(cases, share, config.seed, [len(picture.places) for picture in pictures])
        pictures = [replace(picture, split=split) for picture, split in zip(pictures, splits, strict=True)]
    check_split(cases, [picture.split for picture in pictures])
    return pictures


def _walk(folder: Path) -> Found:
    return find_files(folder, lambda path: suffix_of(path) in SUFFIXES, "images")


def _key(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())


def _inside(path: Path, root: Path, where: str | None = None) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{where or path}: {path.name} leads out of {root} to {path.resolve()}; copy the file into the folder, and "
            "name it by a relative path, or name the folder of all files with --root"
        )
    return path
