"""Crop banks: folders of pictures, one per tissue type; one more level groups pictures that go together.

    BANK/stroma/a.png                    each crop on its own
    BANK/stain-07/stroma/a.png           crops of one folder share a stain; a patch takes all its crops from one folder

A model can weave a bank from maps alone; such a bank holds no patient's pixels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from histoloom.conditioning.crops import draw_box, present_types, typical_box
from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError, TissueError
from histoloom.generation.settings import BankConfig
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.preview import pictures_html
from histoloom.pictures import IMAGE_SUFFIXES, read_image, write_picture
from histoloom.progress import SILENT, Bar
from histoloom.text import counted
from histoloom.tissue import TissueTable
from histoloom.walk import Found, find_files, is_hidden, source_name, suffix_of

PER_TYPE = 2  # crops of a type that a patch takes, where the bank has them
WOVEN_EDGES = (96, 72)  # px of the crops cut from each woven patch
SETS_SHOWN = 4  # of a bank in a notebook
GLASS = 225  # of 255: a woven crop of this mean is bare glass, and shows no stain


@dataclass(frozen=True, repr=False)
class CropBank:
    """Sets of crops that go together, by name; `notes` has one line for each kind of file that was left out."""

    sets: dict[str, list[Crop]]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<CropBank: {counted(len(self.sets), 'set')}, {counted(sum(map(len, self.sets.values())), 'crop')}>"

    def _repr_html_(self) -> str:
        shown = list(self.sets.values())[:SETS_SHOWN]
        return pictures_html(repr(self), [[(crop.source, crop.pixels) for crop in crops] for crops in shown])

    def draw(self, semantic_map: UInt8[np.ndarray, "h w"], rng: np.random.Generator) -> list[Crop]:
        """Crops for the types on a map, from one of the sets that cover most of it; other types go without.

        An empty bank has none.
        """
        if not self.sets:
            return []
        wanted = present_types(semantic_map)
        shares = np.bincount(semantic_map.ravel(), minlength=256)
        covered = {
            name: sum(int(shares[t]) for t in {c.tissue for c in crops} & set(wanted))
            for name, crops in self.sets.items()
        }
        best = [name for name, share in covered.items() if share == max(covered.values())]
        chosen = self.sets[best[int(rng.integers(len(best)))]]
        drawn = []
        for tissue in wanted:
            mine = [crop for crop in chosen if crop.tissue == tissue]
            drawn += [mine[i] for i in sorted(rng.permutation(len(mine))[:PER_TYPE])]
        return drawn

    def counts(self, table: TissueTable) -> dict[str, int]:
        """How many crops there are of each type of `table`, by name."""
        found = Counter(crop.tissue for crops in self.sets.values() for crop in crops)
        return {tissue.name: found[tissue.id] for tissue in table.types}


def load_bank(folder: Path | str, table: TissueTable) -> CropBank:
    """Read a bank; raises InputError, ImageError or TissueError naming folder or file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of crops; give one with a folder per tissue type")
    found = find_crops(folder, table)
    notes = tuple(f"{folder}: {note}" for note in found.notes)
    if _is_set(folder, table):
        return CropBank({folder.name: _read_set(folder, found.files, table)}, notes)
    for unknown in (d for d in _folders(folder) if not _folders(d)):
        raise TissueError(f"{unknown}: is not named after a tissue type; known: {', '.join(table.names)}")
    sets = {d.name: _read_set(d, found.files, table) for d in _folders(folder)}
    if not sets:
        raise TissueError(
            f"{folder}: holds no folder that is named after a tissue type; known: {', '.join(table.names)}"
        )
    return CropBank(sets, notes)


def find_crops(folder: Path, table: TissueTable) -> Found:
    """The crops below the folder of a bank, and what is left out."""
    found = find_files(folder, lambda path: suffix_of(path) in IMAGE_SUFFIXES, "crops", follow_links=True)
    above = 1 if _is_set(folder, table) else 2
    loose = [path for path in found.files if len(path.relative_to(folder).parts) <= above]
    found.leave_out("pictures are in no folder of a tissue type, and were left out", loose)
    return found


def save_bank(bank: CropBank, table: TissueTable, folder: Path) -> None:
    """Write a bank as `load_bank` reads it; raises TissueError for a type whose name cannot name a folder."""
    for name, crop in crop_files(bank, table):
        path, named = folder / name, {tissue.id: tissue.name for tissue in table.types}[crop.tissue]
        # A table may come with a stranger's model: its names must not lead out of the folder.
        if path.parent.resolve().parent.parent != folder.resolve() or not _knows(table, path.parent.name):
            raise TissueError(f"tissue {named!r} cannot name a folder; rename it in the model's table")
        write_picture(path, Image.fromarray(crop.pixels), optimize=True)


def crop_files(bank: CropBank, table: TissueTable) -> Iterator[tuple[str, Crop]]:
    """Each crop of a bank with the file that it is saved as, relative to the folder of the bank."""
    names = {tissue.id: tissue.name for tissue in table.types}
    for name, crops in bank.sets.items():
        for number, crop in enumerate(crops):
            yield f"{name}/{names[crop.tissue]}/{number:02d}.png", crop


def weave_bank(
    pipeline: HistoloomPipeline,
    layouts: Sequence[UInt8[np.ndarray, "h w"]],
    config: BankConfig,
    bar: Bar = SILENT,
) -> CropBank:
    """Weave patches from layouts alone, without crops, and keep the `config.keep` whose stains differ most.

    Each is chosen as far as possible in mean color from those before it (Gonzalez 1985), in turns over the types that
    the layouts show, so that every type comes in several stains. Raises InputError where no layout has room for crops
    of two types.
    """
    images = pipeline(list(layouts), seed=config.seed, bar=bar)
    rng = np.random.default_rng(config.seed)
    sets: list[list[Crop]] = [
        _cut(image, layout, f"layout {i}", rng) for i, (image, layout) in enumerate(zip(images, layouts, strict=True))
    ]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, crops in enumerate(sets):
        groups.setdefault(tuple(sorted({crop.tissue for crop in crops})), []).append(index)
    groups = {types: members for types, members in sorted(groups.items()) if len(types) > 1}
    if not groups:
        raise InputError(f"no layout of {len(layouts)} has room for crops of two types; weave more, or larger ones")
    colors = np.stack([image.reshape(-1, 3).mean(axis=0) for image in images])
    orders = [[members[i] for i in farthest_first(colors[members])] for members in groups.values()]
    turns = [
        index
        for turn in range(max(map(len, orders)))
        for order in orders
        if turn < len(order)
        for index in [order[turn]]
    ]
    return CropBank({f"stain-{number:02d}": sets[index] for number, index in enumerate(turns[: config.keep])})


def farthest_first(points: Float[np.ndarray, "n d"]) -> list[int]:
    """Order in which each point is the one farthest from those before it, beginning far from the mean (Gonzalez
    1985)."""
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    order = [int(distance.argmax())]
    distance = np.linalg.norm(points - points[order[0]], axis=1)
    while len(order) < len(points):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
    return order


def _cut(image: np.ndarray, layout: np.ndarray, source: str, rng: np.random.Generator) -> list[Crop]:
    crops = []
    for tissue in present_types(layout, 0.05):
        mask, unused = layout == tissue, np.ones(layout.shape, bool)  # the same pixels twice would add nothing
        usual = image[mask].mean(axis=0)
        for edge in WOVEN_EDGES:
            box = typical_box(lambda: draw_box(mask, edge, rng, unused), image, usual)  # noqa: B023 (called here)
            if box is not None and box.of(image).mean() < GLASS:
                box.of(unused)[:] = False
                crops.append(Crop(box.of(image), tissue, source, box.x, box.y))
    return crops


def _read_set(folder: Path, pictures: Sequence[Path], table: TissueTable) -> list[Crop]:
    crops = []
    for tissue_folder in _folders(folder):
        if not _knows(table, tissue_folder.name):
            raise TissueError(f"{tissue_folder}: is not named after a tissue type; known: {', '.join(table.names)}")
        tissue = table.find(tissue_folder.name).id
        paths = [path for path in pictures if path.is_relative_to(tissue_folder)]
        crops += [Crop(read_image(path), tissue, source_name(path, folder.parent)) for path in paths]
    if not crops:
        raise InputError(f"{folder}: holds no pictures; put crops into a folder per tissue type")
    return crops


def _is_set(folder: Path, table: TissueTable) -> bool:
    return any(_knows(table, d.name) for d in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not is_hidden(d.name))


def _knows(table: TissueTable, name: str) -> bool:
    try:
        table.find(name)
    except TissueError:
        return False
    return True
