"""A recipe's patches: opened, imported from pictures, or cut from slides if that was not done yet."""

import os
from collections.abc import Callable
from pathlib import Path

from histoloom.discovery.levels import LEVELS, Levels, read_levels
from histoloom.distributed import Workers
from histoloom.errors import ConfigError, TissueError
from histoloom.experiments.recipe import DataSource
from histoloom.patches.dataset import check_license, read_description
from histoloom.patches.folder import find_pictures
from histoloom.patches.importer import import_pictures, is_made_from
from histoloom.patches.lumens import add_lumens, with_lumens
from histoloom.patches.slide_jobs import find_jobs
from histoloom.patches.store import Patches, count_patches, has_pixels, load_patches, splits
from histoloom.progress import Progress, silent
from histoloom.tissue import TissueTable
from histoloom.training.denoiser import DenoiserTraining

OUTLINED = "outlined"  # folder of a run: its patches with lumens


def open_dataset(
    data: DataSource,
    folder: Path,
    check: Callable[[int, TissueTable], None] = lambda edge, table: None,
    progress: Progress = silent,
) -> Path:
    """The folder of the recipe's patches, imported or cut into `folder`/dataset first if they are not there yet.

    Where the recipe asks for lumens, their outlines are added in `folder`/outlined. `check(edge, table)` is called with
    the edge of the patches in pixels before that work begins, and may refuse it.
    """
    dataset = _open_plain(data, folder, check, progress)
    if data.lumens is None:
        return dataset
    total = 2 * sum(count_patches(dataset, split) for split in splits(dataset))
    with progress("finding lumens", total, "patches") as bar:
        add_lumens(dataset, folder / OUTLINED, data.lumens, bar)
    return folder / OUTLINED


def _open_plain(data: DataSource, folder: Path, check: Callable[[int, TissueTable], None], progress: Progress) -> Path:
    if data.dataset:
        return Path(data.dataset)
    table, out = TissueTable.load(data.tissue), folder / "dataset"
    wider = with_lumens(table, data.lumens)
    if data.slides:
        check(data.cut.rules.size, wider)
        _cut_slides(data, table, out, progress)
        return out
    notes = list[str]()
    pictures = find_pictures(Path(data.source), Path(data.maps) if data.maps else None, data.pictures, notes=notes)
    check(pictures[0].size, wider)
    if not is_made_from(out, pictures, table, data.pictures):
        with progress("importing", len(pictures), "images") as bar:
            import_pictures(pictures, table, data.pictures, out, data.terms, bar, notes)
    check_license(read_description(out) or {}, data.terms, out)
    return out


def open_split(dataset: Path, split: str, most: int | None = None) -> Patches:
    """The patches of a dataset, or `most` that are spread over them; the pixels of an index come from its slides."""
    if has_pixels(dataset, split):
        return load_patches(dataset, split, most=most)
    from histoloom.patches.places import PlaceReader  # here: needs histoloom[slides]

    return load_patches(dataset, split, PlaceReader(dataset).read, most=most)


def open_levels(config: DenoiserTraining, dataset: Path, table: TissueTable) -> Levels | None:
    """How the types of the dataset are nested, for a recipe with a curriculum; raises ConfigError."""
    if config.curriculum is None:
        return None
    path = Path(config.curriculum.levels or dataset / LEVELS)
    levels = read_levels(path)
    if unknown := sorted(set(table.ids) - set(levels.of[-1].tolist())):
        raise ConfigError(f"{path}: does not know type {unknown[0]} of {dataset}; use the levels of the same types")
    return levels


def hidden_types(config: DenoiserTraining, table: TissueTable) -> tuple[int, ...]:
    """Ids of the types that maps may leave out; raises ConfigError for a name that the table does not have."""
    try:
        return tuple(sorted({table.find(name).id for name in config.hidden}))
    except TissueError as error:
        raise ConfigError(f"denoiser hidden: {error}") from None


def _cut_slides(data: DataSource, table: TissueTable, out: Path, progress: Progress) -> None:
    """Cut the slides on all processors, unless that was done."""
    from histoloom.patches.from_slides import extract_slides, made_from  # here: needs histoloom[slides]

    annotations, listing = (Path(name) if name else None for name in (data.annotations, data.listing))
    jobs, notes = find_jobs(Path(data.slides), annotations, data.cut, listing)
    if made_from(out, jobs, table, data.cut) is None:
        workers = Workers(min(os.cpu_count() or 1, len(jobs)))
        with progress("slides", len(jobs), "slides") as bar:
            extract_slides(jobs, notes, table, data.cut, out, workers, data.terms, bar)
    check_license(read_description(out) or {}, data.terms, out)
