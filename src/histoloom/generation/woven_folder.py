"""A folder of woven patches, from its orders to its contact sheet and card."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from histoloom import files, records
from histoloom.distributed import ALONE, Workers
from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.generation.card import write_card
from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.generation.dataset_order import DatasetOrder
from histoloom.generation.delivered import DELIVERED, count_delivered
from histoloom.generation.order import Order
from histoloom.generation.orders import Orders, make_orders
from histoloom.generation.patches import copy_limit_of, weave_checked
from histoloom.generation.self_check import Checking, SelfCheck
from histoloom.generation.settings import Source, WeaveConfig
from histoloom.generation.weave_workers import Share, weave_elsewhere
from histoloom.generation.woven_patch import FORMAT, SOURCES, AnnotatedPatch, Dropped
from histoloom.generation.woven_reader import iter_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import SCALE_TOLERANCE
from histoloom.pictures import write_picture
from histoloom.progress import Progress, silent
from histoloom.records import Record

SHEET_ROWS = 64  # most patches on a contact sheet


@dataclass(frozen=True, eq=False)
class Work:
    """What a run weaves: its orders, their scale, the check that they must pass, its record, and its key file."""

    orders: Orders
    mpp: float | None
    check: SelfCheck | None
    record: Record
    sources: dict[str, dict[str, list[str]]]


def weave_folder(
    pipeline: HistoloomPipeline,
    source: Source,
    config: WeaveConfig,
    out: Path,
    own_bank: bool = False,
    progress: Progress = silent,
    workers: Workers = ALONE,
    checking: Checking | None = None,
) -> int:
    """Weave `source` into the folder `out`, with contact sheet and card; returns the number of its patches.

    An interrupted run resumes. `own_bank` says that the crops were woven by the model itself. The bytes do not depend
    on `workers`, each of which opens the model in its folder, but for the last bit in fp32, where workers have fewer
    threads. With `checking`, patches that fail are replaced or dropped. Raises OutputError, with the name of the file,
    where `out` was made from other maps or crops.
    """
    work = prepare(pipeline, source, config, out, own_bank, checking)
    orders, mpp = work.orders, work.mpp

    def finish(aside: Path) -> None:
        _draw_sheet(aside, orders, pipeline)
        if isinstance(source.maps, DatasetOrder):
            files.write_json(aside / DELIVERED, count_delivered(aside, source.maps, pipeline.table))
        write_card(aside, pipeline)

    with progress("weaving", len(orders), "patches") as bar:

        def resume(first: int) -> Iterator[AnnotatedPatch | Dropped]:
            bar.advance(first)
            if workers.alone:
                return weave_checked(pipeline, orders, config, first, bar, mpp, work.check)
            share = Share.of(pipeline, source, config, mpp, own_bank, checking, workers)
            return weave_elsewhere(share, first, len(orders), workers, bar)

        return write_patches(resume, pipeline.table, out, work.record, work.sources, finish)


def prepare(
    pipeline: HistoloomPipeline,
    source: Source,
    config: WeaveConfig,
    out: Path,
    own_bank: bool = False,
    checking: Checking | None = None,
) -> Work:
    """Open maps and crops; raises as `weave_folder` does."""
    mpp = scale_of(pipeline, source.mpp)
    orders = make_orders(source, pipeline.table, config.seed, mpp, own_bank)
    inputs = orders.inputs()
    record = Record(
        command="generate",
        format=FORMAT,
        settings=_settings(pipeline, source, config, mpp) | ({"check": _check_settings(checking)} if checking else {}),
        inputs={"model": pipeline.fingerprint, "model_config": config_hash(pipeline)}
        | inputs.fingerprints
        | (checking.fingerprints() if checking else {}),
    )
    refuse_changed(out, inputs.sources)
    check = checking and checking.open(orders.replacement, pipeline.table)
    return Work(orders, mpp, check, record, inputs.sources)


def scale_of(pipeline: HistoloomPipeline, mpp: float | None) -> float | None:
    """Micrometers per pixel of what is woven, None where nobody knows; raises ConfigError where maps and model differ.

    A model draws tissue at the scale that it was trained at, whatever a map means by its pixels.
    """
    if mpp is None or pipeline.mpp is None:
        return mpp or pipeline.mpp
    if abs(mpp / pipeline.mpp - 1) > SCALE_TOLERANCE:
        raise ConfigError(
            f"mpp is {mpp:g}, but the model was trained at {pipeline.mpp:g} um per pixel and draws tissue at "
            f"that scale; bring the maps to {pipeline.mpp:g}, or leave out --mpp"
        )
    return mpp


def config_hash(pipeline: HistoloomPipeline) -> str:
    """A hash of all that decides the patches besides weights: how the parts are configured, the tissue table."""
    parts = [
        pipeline.denoiser.config,
        pipeline.autoencoder.config,
        pipeline.scheduler.config,
        pipeline.config["tissue"],
    ]
    public = [
        {k: v for k, v in part.items() if not k.startswith("_")} if isinstance(part, dict) else part for part in parts
    ]
    return hashlib.sha256(json.dumps(public, sort_keys=True, default=str).encode()).hexdigest()[:16]


def refuse_changed(out: Path, sources: dict[str, dict[str, list[str]]]) -> None:
    """Raise OutputError naming a map or crop that is not the one that `out`, finished or begun, was made from."""
    for folder in (out, out.with_name(f"{out.name}{files.PARTIAL}")):
        try:
            before = records.read_json(folder / SOURCES) if (folder / SOURCES).is_file() else None
        except InputError:
            before = None  # the record decides
        if before is None or before == sources:
            continue
        then, now = _ids_by_name(before), _ids_by_name(sources)
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if changed:
            name = changed[0]
            what = "changed" if name in then and name in now else "added" if name in now else "removed"
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise OutputError(
                f"{folder}: was made from other files ({name} was {what}{more}); name another folder, or remove this "
                "one"
            )


def _ids_by_name(sources: dict) -> dict[str, str]:
    """The id of each file, by kind and name; an unexpected shape has none."""
    return {
        f"{kind}/{name}": identity
        for kind, names_of in sources.items()
        if isinstance(names_of, dict)
        for identity, names in names_of.items()
        if isinstance(names, list)
        for name in names
    }


def _settings(pipeline: HistoloomPipeline, source: Source, config: WeaveConfig, mpp: float | None) -> dict:
    """All settings that decide the patches, as they were resolved."""
    _, resolved = pipeline.resolve(config)
    maps: str | dict = "folder"
    if not isinstance(source.maps, Path):
        maps = asdict(source.maps)
    if isinstance(source.maps, DatasetOrder):  # the inputs say which maps and crops; a path names a machine
        maps = asdict(source.maps) | {"maps": None if source.maps.maps is None else "folder", "crops": None}
    settings = asdict(resolved) | {"copy_limit": copy_limit_of(pipeline, config), "maps": maps, "mpp": mpp}
    if source.only or source.per_map > 1:
        settings |= {"only": list(source.only), "per_map": source.per_map}
    settings["computed_in"] = pipeline.computed_in
    return settings | {"record_names": source.record_names, "split": source.split, "stains": list(source.stains)}


def _draw_sheet(folder: Path, orders: Orders, pipeline: HistoloomPipeline) -> None:
    rows = [
        SheetRow(semantic_map, [(c.tissue, c.pixels) for c in _order_of(row, orders).crops], image)
        for row, image, semantic_map in islice(iter_woven(folder), SHEET_ROWS)
    ]
    sheet = contact_sheet(rows, pipeline.table, columns=2 if len(rows) <= 16 else 4)
    write_picture(folder / "contact-sheet.png", sheet)


def _order_of(row: dict, orders: Orders) -> Order:
    """The order of a patch: the one of its number, or the replacement that passed the check."""
    return orders.replacement(int(Path(row["image"]).stem), row["rejected_copies"] + row["rejected_maps"])


def _check_settings(checking: Checking) -> dict:
    """The settings of a check; the inputs say which judge it has, since a path names a machine."""
    return asdict(checking.config) | {"judge": None if checking.config.judge is None else "folder"}
