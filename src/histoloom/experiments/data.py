"""A recipe's patches: opened, imported from pictures, or cut from slides where that was not done yet."""

import os
from pathlib import Path

from histoloom.discovery.levels import LEVELS, Levels, read_levels
from histoloom.distributed import Workers
from histoloom.errors import ConfigError
from histoloom.experiments.recipe import DataSource
from histoloom.experiments.stages import MakeBar
from histoloom.patches.folder import find_pictures
from histoloom.patches.importer import import_pictures, is_made_from
from histoloom.patches.slide_jobs import find_jobs
from histoloom.patches.store import Patches, has_pixels, load_patches
from histoloom.tissue import TissueTable
from histoloom.training.denoiser import DenoiserTraining


def open_dataset(data: DataSource, folder: Path, make_bar: MakeBar) -> Path:
    """The folder of the recipe's patches, imported or cut first where they are not yet there."""
    if data.dataset:
        return Path(data.dataset)
    table, out = TissueTable.load(data.tissue), folder / "dataset"
    if data.slides:
        _cut(data, table, out, make_bar)
        return out
    pictures = find_pictures(Path(data.source), Path(data.maps) if data.maps else None, data.pictures)
    if not is_made_from(out, pictures, table, data.pictures):
        with make_bar("importing", len(pictures), "images") as bar:
            import_pictures(pictures, table, data.pictures, out, advance=bar.advance)
    return out


def _cut(data: DataSource, table: TissueTable, out: Path, make_bar: MakeBar) -> None:
    """Cut the slides on all processors, where that was not done yet."""
    from histoloom.patches.from_slides import extract_slides, made_from  # here: needs histoloom[slides]

    annotations, listing = (Path(name) if name else None for name in (data.annotations, data.listing))
    jobs, notes = find_jobs(Path(data.slides), annotations, data.cut, listing)
    if made_from(out, jobs, table, data.cut) is None:
        workers = Workers(min(os.cpu_count() or 1, len(jobs)))
        with make_bar("slides", len(jobs), "slides") as bar:
            extract_slides(jobs, notes, table, data.cut, out, workers, advance=bar.advance)


def open_split(dataset: Path, split: str) -> Patches:
    """The patches of a dataset; the pixels of an index come from its slides."""
    if has_pixels(dataset, split):
        return load_patches(dataset, split)
    from histoloom.patches.places import PlaceReader  # here: needs histoloom[slides]

    return load_patches(dataset, split, PlaceReader(dataset).read)


def open_levels(config: DenoiserTraining, dataset: Path, table: TissueTable) -> Levels | None:
    """How the types of the dataset are nested, where the recipe has a curriculum."""
    if config.curriculum is None:
        return None
    path = Path(config.curriculum.levels or dataset / LEVELS)
    levels = read_levels(path)
    if unknown := sorted(set(table.ids) - set(levels.of[-1].tolist())):
        raise ConfigError(f"{path}: knows no type {unknown[0]}, which {dataset} has; take the levels of these types")
    return levels
