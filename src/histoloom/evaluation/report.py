"""One evaluation from start to end: images in, every figure with its floor, a page for people and a JSON for machines.

    OUT/
      report.html            one file, no network; shows real patches, so treat it as patient data
      report.json            every figure, with n, intervals, floors, settings, fingerprints

Both are written aside and renamed.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from histoloom.conditioning.inputs import Crop
from histoloom.config import check_numbers
from histoloom.encoders.cache import features
from histoloom.encoders.encoder import Encoder, fingerprint, open_encoder
from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.evaluation.comparison import Comparison, compare
from histoloom.evaluation.copy_search import UNRELATED, CopySearch, search_copies
from histoloom.evaluation.crop_search import CropSearch, num_pairs, search_crops
from histoloom.evaluation.crop_sources import find_crops
from histoloom.evaluation.measures import EncoderFigures, FeatureSets, Figure, measure_features
from histoloom.evaluation.probe import tissue_labels
from histoloom.evaluation.segmenter import Segmenter
from histoloom.evaluation.sources import (
    ImageSet,
    compare_sizes,
    compare_tables,
    num_duplicates,
    shared_images,
    with_cases,
)
from histoloom.metrics.intervals import statistic_interval
from histoloom.metrics.map_fidelity import confusion, dice, iou, mean_iou_interval, mean_over_present
from histoloom.metrics.memorization import authenticity
from histoloom.metrics.stain_distance import HED, LAB, stain_distance, stain_means
from histoloom.patches.heterogeneity import class_fractions
from histoloom.version import VERSION

SIDES = ("reference", "control", "fake", "train")
MakeBar = Callable[..., AbstractContextManager]


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, and how much of it."""

    encoders: tuple[str, ...] = ("histoloom-small",)
    most: int = 500  # images a side
    pairs: int = 100  # images, and crops, searched for copied parts, synthetic and real each
    seed: int = 0
    allow_remote_code: bool = False  # load encoders that run code from the internet

    def __post_init__(self):
        check_numbers(self)
        if not self.encoders:
            raise ConfigError("name one encoder at least")
        if min(self.most, self.pairs) < 2:
            raise ConfigError("most and pairs must be 2 or more")


@dataclass(frozen=True)
class Evaluation:
    """Everything that a report shows."""

    config: EvaluationConfig
    sets: Comparison
    shared: list[str]  # synthetic images that are real ones, pixel by pixel
    duplicates: dict[str, int]  # repeated images, real and synthetic
    encoders: list[EncoderFigures]
    fingerprints: dict[str, str]
    copying: CopySearch
    crops: CropSearch
    stain: list[Figure]
    maps: list[Figure]
    segmenter: str = ""  # its fingerprint; empty without one
    notes: list[str] = field(default_factory=list)


def evaluate(
    real: ImageSet,
    fake: ImageSet,
    train: ImageSet | None,
    config: EvaluationConfig,
    segmenter: Segmenter | None = None,
    cache: Path | None = None,
    make_bar: MakeBar | None = None,
    bank: Sequence[Crop] = (),
) -> Evaluation:
    """Measure `fake` against `real`; copies are searched among `train`. `make_bar(label, total, unit)` opens a bar.

    Crops that `fake` names are looked for by name among `real`, `train` and the crops of the `bank`.

    Raises InputError or ImageError for images that cannot be compared, before anything is computed.
    """
    for other in (fake, *([train] if train else [])):
        compare_sizes(real, other)
        compare_tables(real, other)
    if segmenter and real.table and real.table.num_ids > segmenter.num_types:
        raise InputError(
            f"{real.where}/tissue.toml: has ids up to {real.table.num_ids - 1}, but the segmenter knows "
            f"{segmenter.num_types} types; name that of a run on this dataset (--segmenter)"
        )
    known = [real, *([train] if train else [])]
    shared = [fake.names[i] for i in sorted({i for images in known for i in shared_images(images, fake)})]
    duplicates = {"real": num_duplicates(real), "synthetic": num_duplicates(fake)}
    sets = compare(real, with_cases(fake, known), train, config.most, config.seed)
    make_bar = make_bar or _no_bar
    encoders = [open_encoder(name, allow_remote_code=config.allow_remote_code) for name in config.encoders]
    measured = [_measure(encoder, sets, config, cache, make_bar) for encoder in encoders]
    copies = measured[0].copies
    unseen = authenticity(measured[0].features.train, getattr(measured[0].features, sets.unseen))
    with make_bar("searching for copies", 3 * config.pairs + UNRELATED, "pairs") as bar:
        copying = search_copies(sets, copies.neighbour, unseen.neighbour, config.pairs, config.seed, bar.advance)
    used = find_crops(sets.fake, known, bank)
    with make_bar("searching for crops", num_pairs(used, config.pairs), "pairs") if used.found else _NoBar() as bar:
        crops = search_crops(sets.fake, used, sets.control, config.pairs, config.seed, bar.advance)
    maps, notes = _map_figures(sets, segmenter, config.seed)
    return Evaluation(
        config, sets, shared, duplicates, measured, {e.name: e.fingerprint for e in encoders}, copying,
        crops, _stain_figures(sets, config.seed), maps,
        fingerprint(segmenter.network, "segmenter") if segmenter else "", [*sets.notes, *notes],
    )  # fmt: skip


def to_json(evaluation: Evaluation) -> dict:
    """Every figure and how it was made, as plain JSON: nan and infinity become null."""
    sets = evaluation.sets
    sides = {
        side: {
            "folder": images.where, "kind": images.kind, "split": images.split, "format": images.kept_as,
            "images": len(images), "cases": len(set(images.cases)), "pixels": list(images.images.shape[1:3]),
        }
        for side in SIDES
        for images in (getattr(sets, side),)
    }  # fmt: skip
    copying, crops = evaluation.copying, evaluation.crops
    return _plain(
        {
            "version": VERSION,
            "config": asdict(evaluation.config),
            "sets": sides,
            "woven": sets.fake.made,
            "segmenter": evaluation.segmenter,
            "notes": evaluation.notes,
            "identical_to_real": evaluation.shared,
            "duplicates": evaluation.duplicates,
            "encoders": {
                e.encoder: {
                    "fingerprint": evaluation.fingerprints[e.encoder],
                    "small": e.small,
                    "dimensions": e.dimensions,
                    "overall": [asdict(f) for f in e.overall],
                    "per_type": {name: [asdict(f) for f in figures] for name, figures in e.of_type.items()},
                }
                for e in evaluation.encoders
            },
            "copying": {
                "synthetic": copying.fake and asdict(copying.fake),
                "real": copying.real and asdict(copying.real),
                "other": copying.other and asdict(copying.other),
                "note": copying.note,
            },
            "crops": {
                "woven": crops.woven and asdict(crops.woven),
                "real": crops.real and asdict(crops.real),
                "other": crops.other and asdict(crops.other),
                "named": crops.used.named,
                "found": len(crops.used.found),
                "missing": crops.used.missing,
                "searched": len(crops.searched),
                "note": crops.note,
            },
            "stain": [asdict(f) for f in evaluation.stain],
            "maps": [asdict(f) for f in evaluation.maps],
        }
    )


def write_report(evaluation: Evaluation, page: str, out: Path) -> None:
    """Write `report.json` and the `page` as `report.html` into `out`, each written aside and renamed."""
    texts = {"report.json": json.dumps(to_json(evaluation), indent=2) + "\n", "report.html": page}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            aside = out / (name + ".partial")
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, out / name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from None


def _measure(
    encoder: Encoder, sets: Comparison, config: EvaluationConfig, cache: Path | None, make_bar: MakeBar
) -> EncoderFigures:
    with make_bar(encoder.name, sum(len(getattr(sets, side)) for side in SIDES), "images") as bar:
        found = {side: features(encoder, getattr(sets, side).images, cache, bar) for side in SIDES}
    labels, names = _labels(sets)
    return measure_features(sets, FeatureSets(**found), encoder, labels, names, config.seed)


def _labels(sets: Comparison) -> tuple[dict[str, np.ndarray], list[str]]:
    """The type that stands out on each patch, and the names of types by id; empty where a side has no maps."""
    sides = {side: getattr(sets, side) for side in ("reference", "control", "fake")}
    table = sets.reference.table
    if table is None or any(images.semantic_maps is None for images in sides.values()):
        return {}, []
    prior = np.mean([class_fractions(m, table.num_ids) for m in sets.reference.semantic_maps], axis=0)
    names = dict(zip(table.ids, table.names, strict=True))
    labels = {side: tissue_labels(images.semantic_maps, prior) for side, images in sides.items()}
    return labels, [names.get(i, str(i)) for i in range(table.num_ids)]


def _stain_figures(sets: Comparison, seed: int) -> list[Figure]:
    means = {side: stain_means(getattr(sets, side).images) for side in ("reference", "control", "fake")}
    found, floor = (stain_distance(means["reference"], means[side]) for side in ("fake", "control"))

    def drift(real: np.ndarray, fake: np.ndarray) -> float:
        return stain_distance(means["reference"][real], means["fake"][fake]).drift_delta_e

    low, high = statistic_interval(drift, sets.reference.cases, sets.fake.cases, seed=seed)
    n = len(sets.fake)
    figures = [Figure("colour drift (delta E)", n, found.drift_delta_e, max(low, 0.0), high, floor.drift_delta_e)]
    figures += [
        Figure(f"{name} ({unit})", n, value, floor=real)
        for names, unit, values, reals in ((HED, "OD", found.hed, floor.hed), (LAB, "Lab", found.lab, floor.lab))
        for name, value, real in zip(names, values, reals, strict=True)
    ]
    return figures


def _map_figures(sets: Comparison, segmenter: Segmenter | None, seed: int) -> tuple[list[Figure], list[str]]:
    fake, reference = sets.fake, sets.reference
    if fake.semantic_maps is None or reference.semantic_maps is None:
        side = fake if fake.semantic_maps is None else reference
        return [], [f"Map fidelity not given: {side.where} has no maps."]
    if segmenter is None:
        return [], ["Map fidelity not given: no segmenter was named (--segmenter)."]
    counts, real_counts = (
        confusion(segmenter.predict(images.images), images.semantic_maps, segmenter.num_types)
        for images in (fake, reference)
    )
    pooled, real_pooled = counts.sum(axis=0), real_counts.sum(axis=0)
    low, high = mean_iou_interval(counts, fake.cases, seed=seed)
    n = len(fake)
    names = dict(zip(reference.table.ids, reference.table.names, strict=True))
    figures = [
        Figure("mean IoU", n, mean_over_present(iou(pooled)), low, high, mean_over_present(iou(real_pooled))),
        Figure("mean Dice", n, mean_over_present(dice(pooled)), floor=mean_over_present(dice(real_pooled))),
    ]
    figures += [
        Figure(f"{name}, {names.get(i, i)}", n, float(value), floor=float(real))
        for name, score in (("IoU", iou), ("Dice", dice))
        for i, (value, real) in enumerate(zip(score(pooled), score(real_pooled), strict=True))
        if np.isfinite(value)
    ]
    return figures, []


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


class _NoBar:
    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Nobody watches."""


def _no_bar(*_: object) -> _NoBar:
    return _NoBar()
