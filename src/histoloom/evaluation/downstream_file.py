"""The downstream comparison as one JSON file, which no run replaces but one of more seeds or controls.

The results of trained networks are in a folder next to it, `FILE.parts`: such a run trains only the networks that are
new.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from histoloom.errors import InputError
from histoloom.evaluation.controls import check_controls
from histoloom.evaluation.downstream import (
    Comparison,
    Downstream,
    Gain,
    check_sets,
    describe,
    downstream,
    seconds_per_step,
)
from histoloom.evaluation.downstream import DownstreamConfig as Config
from histoloom.evaluation.hidden_types import hide_types
from histoloom.evaluation.sources import load_images
from histoloom.files import remove_partials, writable, write_json
from histoloom.fitting.results import cached_result
from histoloom.progress import Progress, silent
from histoloom.records import Record, read_json, refuse_other_run
from histoloom.text import counted

Result = TypeVar("Result", Downstream, Gain)
COMMAND, FORMAT = "downstream", 4
_RECORD = "record"  # key of the file
_GROWING = ("seeds", "controls")  # settings that decide which networks there are, and no network


def compare_into(
    out: Path,
    real: Path,
    fake: Path,
    config: Config,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    controls: Sequence[str] = (),
    one_pool: bool = False,
    hidden: Sequence[str] = (),
) -> tuple[Comparison, bool]:
    """Train on the splits train of `real` and on `fake`, test on split val of `real`, and write the result to `out`.

    `controls` and `one_pool` are those of `histoloom.evaluation.downstream.downstream`; maps leave out types with the
    names in `hidden`, so that the nearest other type stands in their place. The same call resumes, and
    one with more seeds or controls adds to what `out` holds: a network that was trained is not trained again. `say` is
    given what the training will take. Returns what `out` holds, and whether this call has made it. Raises OutputError
    where `out` holds the result of other settings or images, or cannot be written; InputError or ImageError for sets
    that cannot be compared; ConfigError for an unknown control.
    """
    check_controls(controls)
    with writable(out):
        learned, woven, held = load_images(real, "train"), load_images(fake), load_images(real, "val")
        sets = {"real": learned, "synthetic": woven, "test": held}
        settings = config.identity() | {"controls": list(controls), "one_pool": one_pool, "hidden": list(hidden)}
        inputs = {name: images.fingerprint() for name, images in sets.items()}
        record = Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)
        parts = out.with_name(f"{out.name}.parts")
        if out.exists() and not _adds_to(out, record):
            return _read(out, record), False
        sets = dict(zip(sets, hide_types(hidden, list(sets.values())), strict=True))
        learned, woven, held = sets.values()
        check_sets(learned, woven, held)
        key = _key_of_networks(record)
        remove_partials(parts)
        types, networks = held.known_table.num_ids, (3 + len(controls)) * len(config.seeds)
        minutes = networks * config.steps * seconds_per_step([learned, woven], types, config) / 60
        each = counted(config.steps, "step")
        say(f"{networks} networks of {each}: about {minutes:.0f} min here, if none was trained before")
        with progress("segmenters", networks * config.steps, "steps") as bar:

            def keep(name: str, make: Callable[[], dict]) -> dict:
                trained: list[int] = []
                result = cached_result(parts / f"{name}.json", key, lambda: trained.append(1) or make())
                bar.advance(0 if trained else config.steps)
                return result

            counts = downstream(learned, woven, held, types, config, bar, keep, controls, one_pool)
        found = describe(counts, sets, config)
        write_json(out, found.to_json() | {_RECORD: record.to_json()})
    return found, True


def _key_of_networks(record: Record) -> str:
    """What decides a network besides its training set and its seed, which are in the name of its file."""
    whole = record.to_json()
    whole["settings"] = {name: value for name, value in whole["settings"].items() if name not in _GROWING}
    return json.dumps(whole, sort_keys=True)


def _adds_to(path: Path, record: Record) -> bool:
    """Whether `record` has all seeds and controls of the run that made the file, and more, and all else is the same."""
    made_by, wanted = read_json(path).get(_RECORD), record.to_json()
    if not isinstance(made_by, dict) or not isinstance(made_by.get("settings"), dict):
        return False
    before = made_by["settings"]
    for name in _GROWING:
        had, has = before.get(name), wanted["settings"][name]
        if not isinstance(had, list) or had != has[: len(had)]:
            return False
    grown = before | {name: wanted["settings"][name] for name in _GROWING}
    return before != grown and made_by | {"settings": grown} == wanted


def _read(path: Path, record: Record) -> Comparison:
    """The result in a file of this record; raises OutputError for one of another record."""
    written = read_json(path)
    made_by = written.pop(_RECORD, None)
    made_by = made_by if isinstance(made_by, dict) else {}
    refuse_other_run(path, made_by, record, cure="name another file, or move it away")
    try:
        return Comparison(
            _read_all(Downstream, written.pop("results")),
            _read_all(Gain, written.pop("gains")),
            _read_all(Downstream, written.pop("ground_results")),
            _read_all(Gain, written.pop("ground_gains")),
            written.pop("notes"),
            written,
        )
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is damaged; move it away, and run the command again") from None


def _read_all(kind: Callable[..., Result], found: dict) -> dict[str, Result]:
    return {name: kind(**_numbers(values)) for name, values in found.items()}


def _numbers(values: dict) -> dict:
    """Numbers as they were before they were written: JSON has null for nan."""
    return {name: _number(value) for name, value in values.items()}


def _number(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_number, value))
    return float("nan") if value is None else value
