"""A folder with a crop bank: woven by a model, or cut from real patches."""

from dataclasses import asdict
from pathlib import Path

from histoloom import files
from histoloom.generation.bank import CropBank, crop_files, load_bank, save_bank, weave_bank
from histoloom.generation.layouts import draw_layouts
from histoloom.generation.map_sources import layouts_at
from histoloom.generation.settings import BankConfig, DrawnMaps, RealBankConfig
from histoloom.generation.woven_folder import config_hash, scale_of
from histoloom.generation.woven_patch import SOURCES
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import read_table, shards_of
from histoloom.progress import Progress, silent
from histoloom.records import Record, fingerprint, read_json
from histoloom.tissue import TissueTable

REPORT = "bank.json"  # of a real bank: how many crops it holds, and how many were left out
FORMAT = 1  # raised when the same settings and model give other crops


def weave_bank_folder(
    pipeline: HistoloomPipeline, config: BankConfig, out: Path, progress: Progress = silent
) -> CropBank:
    """Weave a bank into the folder `out`, and return it.

    A finished bank of the same model and settings stays as it is; an interrupted one is woven again from the start.
    Raises OutputError before the work where `out` holds anything else or cannot be written.
    """
    mpp = scale_of(pipeline, config.mpp)
    record = Record(
        command="bank",
        format=FORMAT,
        settings=asdict(config) | {"mpp": mpp, "computed_in": pipeline.computed_in},
        inputs={"model": pipeline.fingerprint, "model_config": config_hash(pipeline)},
    )
    if files.is_finished(out, record):
        return load_bank(out, pipeline.table)
    layouts = draw_layouts(layouts_at(config, mpp), pipeline.table, config.tries, config.seed, DrawnMaps.size)
    with files.whole_folder(out) as aside, progress("weaving crops", config.tries, "patches") as bar:
        bank = weave_bank(pipeline, list(layouts), config, bar)
        save_bank(bank, pipeline.table, aside)
        files.write_record(aside, record)
    return bank


def cut_bank_folder(dataset: Path, config: RealBankConfig, out: Path, progress: Progress = silent) -> dict:
    """Cut a bank of real crops from a patch dataset into the folder `out`, and return its report.

    The report counts sets, crops by type, and candidates that were left out by reason. Sets are numbered;
    `sources.local.json` names the case of each set and the patch of each crop. A finished bank of the same dataset and
    settings stays as it is. Raises OutputError where `out` holds anything else, InputError for a dataset without crops.
    """
    from histoloom.generation.real_bank import cut_bank, patches_to_read

    table = read_table(dataset)
    shards = {shard.name: fingerprint(shard) for shard in shards_of(dataset, config.split)}
    record = Record(command="bank --from", format=FORMAT, settings=asdict(config), inputs=shards)
    if not files.is_finished(out, record):
        with files.whole_folder(out) as aside:
            with progress("cutting crops", patches_to_read(dataset, config), "patches") as bar:
                cut = cut_bank(dataset, config, bar)
            save_bank(cut.bank, table, aside)
            files.write_json(aside / SOURCES, {"cases": cut.cases, "crops": _places(cut.bank, table)})
            report = {"sets": len(cut.bank.sets), "crops": cut.bank.counts(table), "left_out": cut.left_out}
            files.write_json(aside / REPORT, report)
            files.write_record(aside, record)
    return read_json(out / REPORT)


def _places(bank: CropBank, table: TissueTable) -> dict[str, dict]:
    """Where each crop was cut, by its file."""
    return {path: {"source": crop.source, "x": crop.x, "y": crop.y} for path, crop in crop_files(bank, table)}
