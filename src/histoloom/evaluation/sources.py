"""The images of one side, from a patch dataset, from woven patches, or from a plain folder of images."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.inputs import content_id
from histoloom.errors import ImageError, InputError
from histoloom.generation.woven_patch import CropUse
from histoloom.generation.woven_reader import read_woven
from histoloom.patches.folder import SUFFIXES
from histoloom.patches.slide_jobs import SLIDE_SUFFIXES
from histoloom.patches.store import SCALE_TOLERANCE, common_mpp, iter_rows, load_patches, positions, read_table, splits
from histoloom.pictures import open_picture, opened_picture, rgb_pixels
from histoloom.shown import looks_like_labels
from histoloom.text import canonical
from histoloom.tissue import TissueTable, TissueType
from histoloom.walk import find_files, is_hidden, suffix_of

# What a row of woven patches says of their making, besides the seed, map and crops of each.
MADE = (
    "version",
    "model_hash",
    "conditioning",
    "scheduler",
    "steps",
    "map_guidance",
    "crop_guidance",
    "guidance_interval",
)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images `n h w 3` with what is known of them; `semantic_maps` and `table` are none for a plain folder."""

    where: str
    kind: str  # patch dataset, woven patches, image folder
    split: str  # empty where there is none
    file_format: str  # of the images, such as PNG, or JPEG (lossy)
    images: UInt8[np.ndarray, "n h w 3"]
    semantic_maps: UInt8[np.ndarray, "n h w"] | None
    cases: list[str]
    names: list[str]
    table: TissueTable | None = None
    made: dict[str, str] = field(default_factory=dict)  # how woven patches were: model, sampler, guidance
    crops: list[list[CropUse]] = field(default_factory=list)  # of each woven patch; empty for images of other kinds
    mpp: float | None = None  # micrometers per pixel; None if unknown or mixed
    made_from: str = ""  # format of the pictures or slides that a dataset was cut from, where its rows tell
    hidden: tuple[int, ...] = ()  # types that the maps leave out
    whole_maps: UInt8[np.ndarray, "n h w"] | None = None  # before types were left out; None where none were
    notes: tuple[str, ...] = ()  # one line for each kind of file or image that was left out

    def __len__(self) -> int:
        return len(self.names)

    @property
    def kept_as(self) -> str:
        """The format for a report: of the images, and of what they were made from."""
        kept = f"{self.file_format} (in Parquet)" if self.kind == "patch dataset" else self.file_format
        return f"{kept}, made from {self.made_from}" if self.made_from else kept

    @property
    def label(self) -> str:
        """The name of the folder, without the path to it, for what may be passed on."""
        return Path(self.where).name or self.where

    @property
    def maps(self) -> UInt8[np.ndarray, "n h w"]:
        """The maps of a set that has them; raises InputError for one that has none."""
        if self.semantic_maps is None:
            raise InputError(f"{self.where}: has no maps; give a patch dataset or woven patches")
        return self.semantic_maps

    @property
    def known_table(self) -> TissueTable:
        """The tissue table of a set that has one; raises InputError for one that has none."""
        if self.table is None:
            raise InputError(f"{self.where}: has no tissue table; give a patch dataset or woven patches")
        return self.table

    @property
    def maps_as_read(self) -> UInt8[np.ndarray, "n h w"] | None:
        """The maps before types were left out of them."""
        return self.semantic_maps if self.whole_maps is None else self.whole_maps

    @property
    def map_ids(self) -> list[str]:
        """The ids by which woven patches name these maps."""
        maps = self.maps_as_read
        return [] if maps is None else [content_id(semantic_map) for semantic_map in maps]

    @property
    def cases_are_known(self) -> bool:
        """Whether images share cases; else each counts as a case of its own."""
        return len(set(self.cases)) < len(self)

    def distinct(self) -> "ImageSet":
        """The images without those that repeat an earlier one, pixel by pixel."""
        first = {key: i for i, key in reversed(list(enumerate(self.keys())))}
        return self if len(first) == len(self) else self.select(sorted(first.values()))

    def fingerprint(self) -> str:
        """A hash of all that a figure may depend on: pixels, maps, tissue types, cases, names, crops."""
        digest = hashlib.sha256(b"".join(self.keys()))
        if self.semantic_maps is not None:
            digest.update(np.ascontiguousarray(self.semantic_maps).data)
        if self.table is not None:
            digest.update(
                json.dumps([(tissue.id, tissue.name, tissue.aliases) for tissue in self.table.types]).encode()
            )
        digest.update(json.dumps([self.cases, self.names, [list(map(str, of)) for of in self.crops]]).encode())
        return digest.hexdigest()

    def select(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at `indices`, in that order; raises InputError as `Patches.select` does."""
        at = positions(indices, len(self))
        maps, whole = (None if of is None else of[at] for of in (self.semantic_maps, self.whole_maps))
        names = [self.cases[i] for i in at], [self.names[i] for i in at]
        crops = [self.crops[i] for i in at] if self.crops else []
        return replace(
            self, images=self.images[at], semantic_maps=maps, cases=names[0], names=names[1], crops=crops,
            whole_maps=whole,
        )  # fmt: skip

    def joined(self, other: "ImageSet") -> "ImageSet":
        """The images and maps of both, without what is known of crops; raises InputError for a set without maps."""
        return replace(
            self,
            images=np.concatenate([self.images, other.images]),
            semantic_maps=np.concatenate([self.maps, other.maps]),
            whole_maps=None,
            cases=self.cases + other.cases,
            names=self.names + other.names,
            crops=[],
        )

    def keys(self) -> list[bytes]:
        """A hash of the pixels of each image: equal where images are the same."""
        return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in self.images]


def load_images(folder: Path | str, split: str | None = None) -> ImageSet:
    """All images of `folder`, which share one size; of a dataset those of `split` (default: val where there is one).

    In a plain folder a sub-folder is a case; an image right in it is one of this folder alone, since two folders may
    number their images alike. Raises InputError or ImageError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a patch dataset, woven patches, or a folder of images")
    if (folder / "tissue.toml").is_file() and (folder / "data").is_dir():
        return _dataset(folder, split)
    if split is not None:
        raise InputError(f"{folder}: is not a patch dataset, so it has no split {split!r}; leave the split out")
    if (folder / "index.parquet").is_file():
        return _woven(folder)
    return _plain(folder)


def training_images(folder: Path | str | None, real: ImageSet) -> ImageSet | None:
    """What copies are searched in: `folder` (its split train, where it has splits), or split train of the real dataset,
    or none."""
    if folder is None:
        is_other = real.kind == "patch dataset" and real.split != "train" and "train" in splits(real.where)
        return load_images(real.where, "train") if is_other else None
    return load_images(folder, "train" if splits(folder) else None)


def comparable(real: ImageSet, other: ImageSet) -> None:
    """Raise ImageError or InputError unless both sets have one size, one scale and one tissue table."""
    compare_sizes(real, other)
    compare_scales(real, other)
    compare_tables(real, other)


def compare_sizes(real: ImageSet, fake: ImageSet) -> None:
    """Raise ImageError where sizes differ: a resized image is another image to every metric."""
    if real.images.shape[1:] != fake.images.shape[1:]:
        (height, width), (other_height, other_width) = real.images.shape[1:3], fake.images.shape[1:3]
        raise ImageError(
            f"{fake.where}: images are {other_width} x {other_height} px where those of {real.where} are {width} x "
            f"{height}; weave or import both at one size and magnification"
        )


def compare_scales(real: ImageSet, other: ImageSet) -> None:
    """Raise ImageError where both scales are known and differ: tissue of another scale is other tissue to a metric."""
    if real.mpp is not None and other.mpp is not None and abs(other.mpp / real.mpp - 1) > SCALE_TOLERANCE:
        raise ImageError(
            f"{other.where}: has {other.mpp:.4g} um per pixel where {real.where} has {real.mpp:.4g}; weave or import "
            "both at one mpp"
        )


def compare_tables(real: ImageSet, other: ImageSet) -> None:
    """Raise InputError where an id of `other` is not an id of `real`, or another tissue there: rows per type and map
    fidelity would be wrong in silence. Sets without maps have no table, and pass; so do types that no map shows."""
    if real.table is None or other.table is None:
        return
    known = {t.id: t for t in real.table.types}
    shown = set(known) if other.semantic_maps is None else {*known, *np.unique(other.semantic_maps).tolist()}
    for tissue in other.table.types:
        same = known.get(tissue.id)
        if tissue.id not in shown:
            continue
        if same is None or names_of(tissue).isdisjoint(names_of(same)):
            raise InputError(
                f"{other.where}/tissue.toml: id {tissue.id} is {tissue.name!r} and in {real.where}/tissue.toml "
                f"{repr(same.name) if same else 'no tissue'}; bring both to one table, name the "
                "folders of one model, or leave the type out (--hide)"
            )


def shared_images(real: ImageSet, fake: ImageSet) -> list[int]:
    """Indices of fakes that are real images, pixel by pixel; raises InputError where all are: then `fake` is `real`."""
    known = set(real.keys())
    found = [i for i, key in enumerate(fake.keys()) if key in known]
    if len(found) == len(fake):
        raise InputError(
            f"{fake.where}: all {len(fake)} images are images of {real.where}, pixel by pixel: this is the real "
            "folder, not a synthetic one; name the folder of the woven patches as fake"
        )
    return found


def num_duplicates(images: ImageSet) -> int:
    """How many images repeat an earlier one, pixel by pixel."""
    return sum(count - 1 for count in Counter(images.keys()).values())


def _dataset(folder: Path, split: str | None) -> ImageSet:
    known = splits(folder)
    chosen = split or ("val" if "val" in known else next(iter(known), "train"))
    patches = load_patches(folder, chosen)
    cut_from = {Path(source).suffix.lower() for source in patches.sources}
    return ImageSet(
        str(folder), "patch dataset", chosen, _encodings(folder, chosen), patches.images, patches.semantic_maps,
        patches.cases, patches.names, read_table(folder), mpp=common_mpp(patches.mpp),
        made_from=_formats(cut_from) if cut_from <= set(SLIDE_SUFFIXES) else "",
    )  # fmt: skip


def _encodings(folder: Path, split: str) -> str:
    """How the images of a dataset are encoded, as their bytes say: a foreign one need not hold PNG."""
    found = set()
    for row in iter_rows(folder, split, ["image"]):
        with opened_picture(row["image"]["bytes"], f"{folder}, split {split}") as picture:
            found.add(picture.format or "unknown")
    return _formats(found)


def _formats(names: Iterable[str]) -> str:
    """Formats by the names or suffixes that they go by, such as PNG, or JPEG (lossy); WebP and TIFF may be either."""
    known = {"JPG": "JPEG (lossy)", "JPEG": "JPEG (lossy)", "MPO": "JPEG (lossy)", "TIF": "TIFF"}
    plain = {name.removeprefix(".").upper() for name in names}
    return ", ".join(sorted({known.get(name, name) for name in plain}))


def _woven(folder: Path) -> ImageSet:
    woven = read_woven(folder)
    names, maps = [row["image"] for row in woven.rows], [row["map_source"] for row in woven.rows]
    made = {key: ", ".join(sorted({str(row[key]) for row in woven.rows})) for key in MADE}
    crops = [[CropUse(**crop) for crop in row["crops"]] for row in woven.rows]
    return ImageSet(
        str(folder), "woven patches", "", "PNG", woven.images, woven.semantic_maps, maps, names, woven.table, made,
        crops, common_mpp(np.array([row.get("mpp") for row in woven.rows], np.float64)),
    )  # fmt: skip


def _plain(folder: Path) -> ImageSet:
    found = find_files(folder, lambda path: suffix_of(path) in SUFFIXES, "images")
    paths, notes = found.files, tuple(f"{folder}: {note}" for note in found.notes)
    if not paths:
        more = f" ({'; '.join(found.notes)})" if notes else ""
        raise InputError(f"{folder}: holds no images ({', '.join(s[1:] for s in SUFFIXES)}){more}; name another folder")
    images, formats = map(list, zip(*(_read_plain(path, folder) for path in paths), strict=True))
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            (height, width), (first_height, first_width) = image.shape[:2], images[0].shape[:2]
            raise ImageError(
                f"{path}: is {width} x {height} px where {paths[0].name} is {first_width} x {first_height}; cut all "
                "images to one size, for instance with `histoloom import --size`"
            )
    cases = [f"{folder}/{p.name}" if p.parent == folder else p.parent.relative_to(folder).as_posix() for p in paths]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return ImageSet(
        str(folder), "image folder", "", _formats(formats), np.stack(images), None, cases, names, notes=notes
    )


def _read_plain(path: Path, folder: Path) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
    """An image of a plain folder, and its format; raises ImageError for a label map, which is none."""
    picture, coding = open_picture(path)
    if looks_like_labels(picture) and (coding.kind != "rgb" or _twins(path, folder)):
        others = _siblings(path, folder)
        named = f", such as {others[0]}" if len(others) == 1 else ""
        raise ImageError(f"{path}: is a label map, not an H&E image; name the folder of the images alone{named}")
    if fault := coding.image_fault():
        raise ImageError(f"{path}: {fault}")
    return rgb_pixels(picture), picture.format or "unknown"


def _siblings(path: Path, folder: Path) -> list[Path]:
    """The folders in `folder` that do not hold `path`."""
    return sorted(d for d in folder.iterdir() if d.is_dir() and not is_hidden(d.name) and d not in path.parents)


def _twins(path: Path, folder: Path) -> list[Path]:
    """The files of the same name, but for the suffix, at the same place in the sibling folders of that of `path`."""
    below = path.relative_to(folder).parts[1:]
    places = [d.joinpath(*below).parent for d in _siblings(path, folder)] if below else []
    return [twin for place in places if place.is_dir() for twin in place.iterdir() if twin.stem == path.stem]


def names_of(tissue: TissueType) -> set[str]:
    """The name of a type and its aliases, as they are compared."""
    return {canonical(name) for name in (tissue.name, *tissue.aliases)}
