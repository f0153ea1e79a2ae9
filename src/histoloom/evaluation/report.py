"""One evaluation from start to end: images in, every figure with its floor, a page for people and a JSON for machines.

    OUT/
      record.json            settings and fingerprints of what was compared
      report.html            one file, no network; shows real patches, so treat it as patient data
      report.json            every figure, with n, intervals, floors, settings, fingerprints

The folder is written whole or not at all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from histoloom.conditioning.inputs import Crop
from histoloom.config import check_numbers
from histoloom.encoders.cache import features
from histoloom.encoders.encoder import Encoder, distinct_names, fingerprint, open_encoders
from histoloom.errors import ConfigError
from histoloom.evaluation.comparison import MIN_IMAGES, SIDES, Comparison, compare
from histoloom.evaluation.copy_search import UNRELATED, CopySearch, search_copies
from histoloom.evaluation.crop_search import CropSearch, num_pairs, search_crops
from histoloom.evaluation.crop_sources import find_crops
from histoloom.evaluation.hidden_types import hide_types
from histoloom.evaluation.map_figures import check_types, map_figures
from histoloom.evaluation.map_origin import with_cases
from histoloom.evaluation.measures import (
    FRECHET,
    NEIGHBORS,
    EncoderFigures,
    FeatureSets,
    Figure,
    measure_features,
    num_neighbors,
)
from histoloom.evaluation.plain import plain
from histoloom.evaluation.probe import tissue_labels
from histoloom.evaluation.segmenter import Segmenter
from histoloom.evaluation.sources import ImageSet, comparable, num_duplicates, shared_images
from histoloom.files import write_json, write_text
from histoloom.metrics.intervals import MIN_CASES, statistic_interval
from histoloom.metrics.memorization import authenticity
from histoloom.metrics.stain_distance import HED, LAB, stain_distance, stain_means
from histoloom.patches.heterogeneity import class_fractions
from histoloom.progress import Progress, silent
from histoloom.records import Record
from histoloom.version import VERSION

FORMAT = 3  # of a report


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured, and how much of it."""

    encoders: tuple[str, ...] = ("histoloom-small",)
    most: int = 500  # images a side
    pairs: int = 100  # images, and crops, searched for copied parts, synthetic and real each
    seed: int = 0
    allow_remote_code: bool = False  # load encoders that run code from the internet
    hidden: tuple[str, ...] = ()  # tissue types that all maps leave out

    def __post_init__(self):
        check_numbers(self)
        if not self.encoders:
            raise ConfigError("name at least one encoder")
        if min(self.most, self.pairs) < 2:
            raise ConfigError("most and pairs must be 2 or more")
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that a report shows."""

    config: EvaluationConfig
    sets: Comparison
    shared: list[str]  # synthetic images that are real ones, pixel by pixel
    duplicates: dict[str, int]  # images that repeat an earlier one, real and synthetic
    encoders: list[EncoderFigures]
    fingerprints: dict[str, str]
    copying: CopySearch
    crops: CropSearch
    stain: list[Figure]
    maps: list[Figure]
    segmenter: str = ""  # its fingerprint; empty without one
    notes: list[str] = field(default_factory=list)

    @property
    def frechet_ratio(self) -> dict | None:
        """FDr (arXiv 2604.28190): the Fréchet distance over its floor, as a mean over the encoders that give both, and
        the number of these encoders; None if there is none."""
        figures = [figure for encoder in self.encoders for figure in encoder.overall if figure.name == FRECHET]
        ratios = [f.measured / f.floor for f in figures if f.value is not None and f.floor]
        return {"mean": sum(ratios) / len(ratios), "encoders": len(ratios)} if ratios else None


def evaluate(
    real: ImageSet,
    fake: ImageSet,
    train: ImageSet | None,
    config: EvaluationConfig | None = None,
    segmenter: Segmenter | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
    bank: Sequence[Crop] = (),
) -> Evaluation:
    """Measure `fake` against `real`; copies are searched among `train`. Features are kept in the file `cache`.

    Maps leave out the types `config.hidden`. Crops that `fake` names are searched for by name or id among `real`,
    `train` and the crops of the `bank`.

    Raises InputError or ImageError for images that cannot be compared, before anything is computed.
    """
    config = config or EvaluationConfig()
    fake, *known = hide_types(config.hidden, [fake, real, *([train] if train else [])])
    real, train = known[0], known[1] if train else None
    for other in (fake, *known[1:]):
        comparable(real, other)
    if segmenter:
        check_types(segmenter, real, fake)
    shared = [fake.names[i] for i in sorted({i for images in known for i in shared_images(images, fake)})]
    duplicates = {"real": num_duplicates(real), "synthetic": num_duplicates(fake)}
    sets = compare(real, with_cases(fake, known), train, config.most, config.seed)
    encoders = open_encoders(config.encoders, config.allow_remote_code)
    measured = [_measure(encoder, sets, config, cache, progress) for encoder in encoders]
    copies = measured[0].copies
    unseen = authenticity(measured[0].features.train, getattr(measured[0].features, sets.unseen))
    with progress("searching for copies", 3 * config.pairs + UNRELATED, "pairs") as bar:
        copying = search_copies(sets, copies.neighbor, unseen.neighbor, config.pairs, config.seed, bar)
    used = find_crops(sets.fake, known, bank)
    opened = progress if used.found else silent
    with opened("searching for crops", num_pairs(used, config.pairs), "pairs") as bar:
        crops = search_crops(sets.fake, used, sets.control, config.pairs, config.seed, bar)
    maps, notes = map_figures(sets, segmenter)
    return Evaluation(
        config=config,
        sets=sets,
        shared=shared,
        duplicates=duplicates,
        encoders=measured,
        fingerprints={e.name: e.fingerprint for e in encoders},
        copying=copying,
        crops=crops,
        stain=_stain_figures(sets, config.seed),
        maps=maps,
        segmenter=fingerprint(segmenter.network, "segmenter") if segmenter else "",
        notes=[*sets.notes, *notes, *_notes(sets, config)],
    )


def record_of(
    real: ImageSet, fake: ImageSet, train: ImageSet | None, config: EvaluationConfig, more: dict[str, str]
) -> Record:
    """What decides a report; `more` are fingerprints of further inputs by name."""
    inputs = {"real": real.fingerprint(), "fake": fake.fingerprint()} | more
    inputs |= {} if train is None else {"train": train.fingerprint()}
    settings = asdict(config) | {"encoders": distinct_names(config.encoders), "split": real.split}
    return Record(command="evaluate", format=FORMAT, settings=settings, inputs=inputs)


def to_json(evaluation: Evaluation) -> dict:
    """Every figure and how it was made, as plain JSON without a path: nan and infinity become null."""
    sets = evaluation.sets
    copying, crops = evaluation.copying, evaluation.crops
    return cast(
        dict,
        plain(
            {
                "version": VERSION,
                "format": FORMAT,
                "config": asdict(evaluation.config) | {"encoders": [e.encoder for e in evaluation.encoders]},
                "verdict_needs": {"images": MIN_IMAGES, "cases": MIN_CASES, "lacking": sets.too_few},
                "sets": {side: _about(getattr(sets, side)) for side in SIDES},
                "woven": sets.fake.made,
                "segmenter": evaluation.segmenter,
                "notes": evaluation.notes,
                "frechet_ratio": evaluation.frechet_ratio,
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
                    "threshold": copying.threshold and asdict(copying.threshold),
                    "note": copying.note,
                },
                "crops": {
                    "woven": crops.woven and asdict(crops.woven),
                    "real": crops.real and asdict(crops.real),
                    "other": crops.other and asdict(crops.other),
                    "threshold": crops.threshold and asdict(crops.threshold),
                    "named": crops.used.named,
                    "found": len(crops.used.found),
                    "missing": crops.used.missing,
                    "searched": len(crops.searched),
                    "note": crops.note,
                },
                "stain": [asdict(f) for f in evaluation.stain],
                "maps": [asdict(f) for f in evaluation.maps],
            }
        ),
    )


def write_report(
    evaluation: Evaluation, page: str, verdict: tuple[str, list[str]], folder: Path, record: Record | None = None
) -> None:
    """Write `report.json`, with the `verdict` in it, the `page` as `report.html`, and the record into a folder that
    `files.whole_folder` publishes."""
    found = to_json(evaluation) | {"verdict": {"headline": verdict[0], "sentences": verdict[1]}}
    write_json(folder / "report.json", found)
    write_text(folder / "report.html", page)
    if record:
        write_json(folder / "record.json", record.to_json() | {"version": VERSION})


def _about(images: ImageSet) -> dict:
    return {
        "folder": images.label,
        "kind": images.kind,
        "split": images.split,
        "format": images.kept_as,
        "images": len(images),
        "cases": len(set(images.cases)),
        "pixels": list(images.images.shape[1:3]),
    }


def _measure(
    encoder: Encoder, sets: Comparison, config: EvaluationConfig, cache: Path | None, progress: Progress
) -> EncoderFigures:
    with progress(encoder.name, sum(len(getattr(sets, side)) for side in SIDES), "images") as bar:
        found = {side: features(encoder, getattr(sets, side).images, cache, bar) for side in SIDES}
    labels, names = _labels(sets)
    return measure_features(sets, FeatureSets(**found), encoder, labels, names, config.seed)


def _labels(sets: Comparison) -> tuple[dict[str, np.ndarray], list[str]]:
    """The type that stands out on each patch, and the names of types by id; empty if a side has no maps."""
    sides = {side: getattr(sets, side) for side in ("reference", "control", "fake")}
    table = sets.reference.table
    if table is None or any(images.semantic_maps is None for images in sides.values()):
        return {}, []
    prior = np.mean([class_fractions(m, table.num_ids) for m in sets.reference.maps], axis=0)
    names = dict(zip(table.ids, table.names, strict=True))
    labels = {side: tissue_labels(images.maps, prior) for side, images in sides.items()}
    return labels, [names.get(i, str(i)) for i in range(table.num_ids)]


def _stain_figures(sets: Comparison, seed: int) -> list[Figure]:
    means = {side: stain_means(getattr(sets, side).images) for side in ("reference", "control", "fake")}
    found, floor = (stain_distance(means["reference"], means[side]) for side in ("fake", "control"))

    def drift(real: np.ndarray, fake: np.ndarray) -> float:
        return stain_distance(means["reference"][real], means["fake"][fake]).drift_delta_e

    low, high = statistic_interval(drift, sets.reference.cases, sets.fake.cases, seed=seed)
    n = len(sets.fake)
    figures = [Figure("color drift (delta E)", n, found.drift_delta_e, np.fmax(low, 0.0) if low == low else low, high,
                      floor.drift_delta_e)]  # fmt: skip
    figures += [
        Figure(f"{name} ({unit})", n, value, floor=real)
        for names, unit, values, reals in ((HED, "OD", found.hed, floor.hed), (LAB, "Lab", found.lab, floor.lab))
        for name, value, real in zip(names, values, reals, strict=True)
    ]
    return figures


def _notes(sets: Comparison, config: EvaluationConfig) -> list[str]:
    notes = []
    if config.hidden:
        notes.append(f"All maps leave out {', '.join(config.hidden)}: the nearest other type is in its place.")
    neighbors = num_neighbors(len(sets.reference), len(sets.fake))
    if neighbors < NEIGHBORS:
        notes.append(
            f"Precision, recall, density and coverage look at {neighbors} nearest neighbors instead of {NEIGHBORS}, "
            f"since a side has only {neighbors + 1} images."
        )
    if sets.fake.kind == "woven patches":
        notes.append(
            "Copied parts and crops are counted by the score that `histoloom generate` rejects patches by, so these "
            "rates are lower than those by another search would be."
        )
    return notes
