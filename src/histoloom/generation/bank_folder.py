"""A folder with a woven crop bank."""

from pathlib import Path

from histoloom import files
from histoloom.generation.bank import load_bank, save_bank, weave_bank
from histoloom.generation.layouts import draw_layouts
from histoloom.generation.orders import layouts_at
from histoloom.generation.settings import BankConfig, DrawnMaps
from histoloom.generation.woven_folder import config_hash
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.progress import Progress, silent
from histoloom.records import Record

FORMAT = 1  # raised when the same settings and model give other crops


def weave_bank_folder(pipeline: HistoloomPipeline, config: BankConfig, out: Path, progress: Progress = silent) -> int:
    """Weave a bank into the folder `out`, and return how many sets of crops it has.

    A finished bank of the same model and settings stays as it is; an interrupted one is woven again from the start.
    Raises OutputError before the work where `out` holds anything else or cannot be written.
    """
    record = Record(
        command="bank",
        format=FORMAT,
        settings={"tries": config.tries, "keep": config.keep, "seed": config.seed},
        inputs={"model": pipeline.fingerprint, "model_config": config_hash(pipeline)},
    )
    if files.is_finished(out, record):
        return len(load_bank(out, pipeline.table).sets)
    layouts = draw_layouts(layouts_at(pipeline.mpp), pipeline.table, config.tries, config.seed, DrawnMaps.size)
    with files.whole_folder(out) as aside, progress("weaving crops", config.tries, "patches") as bar:
        bank = weave_bank(pipeline, list(layouts), config, bar)
        save_bank(bank, pipeline.table, aside)
        files.write_record(aside, record)
    return len(bank.sets)
