"""Is it useful? A DeepLabv3+ that learned from real, from synthetic, or from both patches, tested on real ones.

Equal steps for every training set, several seeds, one test set. "Mean IoU" is that of `histoloom.metrics.map_fidelity`:
pixels pooled over all test patches (and seeds), one IoU per type, mean over the types of the test set. Intervals are
over test cases and over seeds; two training sets are compared on the same test cases. Controls are real patches with a
classic remedy for rare types, which woven patches have to beat.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import cast

import numpy as np
from jaxtyping import Int
from torch import nn

from histoloom.conditioning.inputs import content_id
from histoloom.errors import InputError
from histoloom.evaluation.advice import advice
from histoloom.evaluation.controls import CONTROLS, check_controls
from histoloom.evaluation.deeplab import STRIDE, DownstreamConfig, adapted, predict, train_deeplab
from histoloom.evaluation.map_origin import known_as, same_maps
from histoloom.evaluation.near_duplicates import near_duplicates
from histoloom.evaluation.plain import plain
from histoloom.evaluation.sources import ImageSet, comparable
from histoloom.metrics.intervals import MIN_CASES, bounded_interval, reader_spread, t_interval, two_factor_spread
from histoloom.metrics.map_fidelity import (
    cases_of_types,
    confusion,
    iou,
    mean_iou_without,
    mean_over_present,
    merge_types,
)
from histoloom.precision import resolved
from histoloom.progress import SILENT, Bar
from histoloom.tissue import UNLABELLED
from histoloom.version import VERSION

REAL, SYNTHETIC, BOTH = "real", "synthetic", "both"
ADAPTED = {SYNTHETIC: "synthetic, adapted", BOTH: "both, adapted"}
NAN = float("nan")
TIMED = 4  # steps
Keep = Callable[[str, Callable[[], dict]], dict]


@dataclass(frozen=True)
class Downstream:
    """How one training set did: mean IoU with its 95 % interval over test cases and seeds (nan below MIN_CASES cases),
    IoU per type (nan: not in the test set), mean IoU of each seed, which share of each type (row) is read as each type
    (column), test patches and test cases."""

    mean_iou: float
    low: float
    high: float
    of_type: tuple[float, ...]
    of_seed: tuple[float, ...]
    read_as: tuple[tuple[float, ...], ...]
    n: int
    cases: int = 0


@dataclass(frozen=True)
class Comparison:
    """All that was found, and what it was found on."""

    results: dict[str, "Downstream"]
    gains: dict[str, "Gain"]  # by name, such as "both - real"
    ground_results: dict[str, "Downstream"]  # the same for the commonest type of the test set against all others
    ground_gains: dict[str, "Gain"]
    notes: list[str]
    about: dict  # config, precision, types, the commonest type ("ground") and sets

    def to_json(self) -> dict:
        """Everything as plain JSON: no path, and null where there is no number."""
        found = {
            "results": {name: asdict(result) for name, result in self.results.items()},
            "gains": {name: asdict(gain) for name, gain in self.gains.items()},
            "ground_results": {name: asdict(result) for name, result in self.ground_results.items()},
            "ground_gains": {name: asdict(gain) for name, gain in self.ground_gains.items()},
            "notes": self.notes,
        }
        return cast(dict, plain(self.about | found))


@dataclass(frozen=True)
class Gain:
    """Mean IoU of one training set minus that of another on the same test cases, with its 95 % interval over cases and
    seeds."""

    difference: float
    low: float
    high: float


def downstream(
    real: ImageSet,
    fake: ImageSet,
    held: ImageSet,
    num_types: int,
    config: DownstreamConfig,
    bar: Bar = SILENT,
    keep: Keep = lambda _, make: make(),
    controls: Sequence[str] = (),
    one_pool: bool = False,
) -> dict[str, list[Int[np.ndarray, "n k k"]]]:
    """Train on `real`, on `fake`, on both and on each control; test on `held`.

    Of both, half of each batch is from each, or with `one_pool` as much as their numbers say. Networks that learned
    from `fake` are tested twice, the second time with the norms of the images of `real`: see
    `histoloom.evaluation.deeplab.adapted`.

    Returns for each training set the confusion matrices of the test patches, one array per seed: see `pooled` and
    `gain`. `bar` counts steps. `keep` is given the name of each network and what makes its result; it returns that
    result, made now or before. Raises InputError or ImageError for sets that `check_sets` refuses, and ConfigError for
    an unknown control.
    """
    check_controls(controls)
    check_sets(real, fake, held)
    trained_on = {REAL: [real], SYNTHETIC: [fake], BOTH: [real.joined(fake)] if one_pool else [real, fake]}
    trained_on |= {f"{REAL}, {name}": [CONTROLS[name](real)] for name in controls}

    def make(name: str, seed: int) -> dict:
        network = train_deeplab(trained_on[name], num_types, config, seed, bar)
        found = {name: judge(network, held, num_types).tolist()}
        if name in ADAPTED:
            found[ADAPTED[name]] = judge(adapted(network, real.images, seed), held, num_types).tolist()
        return found

    counts: dict[str, list] = {}
    for seed in config.seeds:
        for name in trained_on:
            for row, matrices in keep(f"{name}-{seed}", partial(make, name, seed)).items():
                counts.setdefault(row, []).append(np.asarray(matrices, np.int64))
    return counts


def seconds_per_step(sources: Sequence[ImageSet], num_types: int, config: DownstreamConfig) -> float:
    """What a training step costs on this machine: the median of a few."""
    clock = _Clock()
    train_deeplab(sources, num_types, replace(config, steps=TIMED), config.seeds[0], clock)
    return float(np.median(np.diff(clock.times)))


class _Clock:
    """A bar that notes when it advances."""

    def __init__(self):
        self.times: list[float] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        self.times.append(time.perf_counter())


def judge(network: nn.Module, held: ImageSet, num_types: int) -> Int[np.ndarray, "n k k"]:
    """Confusion matrices of the maps that a network reads off the patches of `held`."""
    return confusion(predict(network, held.images), held.maps, num_types)


def pooled(counts: Sequence[Int[np.ndarray, "n k k"]], cases: Sequence[str]) -> Downstream:
    """The result of one training set from the confusion matrices of each seed, one per test patch."""
    whole = np.sum(counts, axis=0)
    of_type = iou(whole.sum(axis=0))
    estimates, left_out, sizes = _by_seed(counts, cases)
    mean, number = mean_over_present(of_type), len(set(cases))
    low, high = NAN, NAN
    if number >= MIN_CASES and np.isfinite(mean):
        low, high = bounded_interval(mean, two_factor_spread(estimates, left_out, sizes))
    pixels = whole.sum(axis=0)
    with np.errstate(invalid="ignore"):
        read_as = tuple(map(tuple, (pixels / pixels.sum(axis=1, keepdims=True)).tolist()))
    of_type, of_seed = tuple(map(float, of_type)), tuple(map(float, estimates))
    return Downstream(mean, low, high, of_type, of_seed, read_as, len(cases), number)


def gain(
    counts: Sequence[Int[np.ndarray, "n k k"]],
    others: Sequence[Int[np.ndarray, "n k k"]],
    cases: Sequence[str],
    same_networks: bool = False,
) -> Gain:
    """How much more mean IoU one training set gives than another.

    Both are tested on the same cases, which are left out of both together. Networks are independent of each other, or
    with `same_networks` those of `others`, seed by seed, after a change. With one seed each, the interval leaves out
    how training varies.
    """
    mine, mine_without, sizes = _by_seed(counts, cases)
    theirs, their_without, _ = _by_seed(others, cases)
    difference = float(mine.mean() - theirs.mean())
    if len(set(cases)) < MIN_CASES or not np.isfinite(difference):
        return Gain(difference, NAN, NAN)
    gaps = mine_without.mean(axis=0) - their_without.mean(axis=0)
    of_training = [mine - theirs] if same_networks else [mine, theirs]
    of_cases = two_factor_spread(np.array([difference]), gaps[None], sizes)
    spread = of_cases.plus(*map(reader_spread, of_training))
    return Gain(difference, *t_interval(difference, spread))


def describe(
    counts: dict[str, list[Int[np.ndarray, "n k k"]]], sets: dict[str, ImageSet], config: DownstreamConfig
) -> Comparison:
    """What `downstream` found, with paired differences; `sets` are the real, the synthetic and the test set."""
    held = sets["test"]
    table = held.known_table
    ground = int(counts[REAL][0].sum(axis=(0, 2)).argmax())
    groups = [[ground], [i for i in range(table.num_ids) if i != ground]]
    merged = {name: [merge_types(seed, groups) for seed in of] for name, of in counts.items()}
    names = dict(zip(table.ids, table.names, strict=True))
    about = {
        "version": VERSION,
        "config": config.identity(),
        "precision": resolved(config.precision),
        "reduction": "pixels pooled, mean over the types of the test set",
        "intervals": "95 %, over test cases and seeds",
        "types": {str(i): name for i, name in names.items()},
        "ground": names[ground],
        "sets": {name: _about(images) for name, images in sets.items()},
    }
    notes = notes_of(counts[REAL], held.cases, [names.get(i, str(i)) for i in range(table.num_ids)])
    found, of_ground = _compare(counts, held.cases), _compare(merged, held.cases)
    both, adapting = found[1][f"{BOTH} - {REAL}"], found[1][f"{ADAPTED[SYNTHETIC]} - {SYNTHETIC}"]
    notes += advice((both.low, both.high), (adapting.low, adapting.high), sets["real"], sets["synthetic"])
    return Comparison(*found, *of_ground, notes, about)


def _compare(
    counts: dict[str, list[Int[np.ndarray, "n k k"]]], cases: Sequence[str]
) -> tuple[dict[str, Downstream], dict[str, Gain]]:
    results = {name: pooled(of, cases) for name, of in counts.items()}
    gains = {f"{name} - {REAL}": gain(of, counts[REAL], cases) for name, of in counts.items() if name != REAL}
    for before, after in ADAPTED.items():
        gains[f"{after} - {before}"] = gain(counts[after], counts[before], cases, same_networks=True)
    return results, gains


def _about(images: ImageSet) -> dict:
    return {
        "folder": images.label,
        "kind": images.kind,
        "split": images.split,
        "images": len(images),
        "cases": len(set(images.cases)),
        "pixels": list(images.images.shape[1:3]),
        "fingerprint": images.fingerprint(),
        "model": images.made.get("model_hash", ""),
    }


def notes_of(counts: Sequence[Int[np.ndarray, "n k k"]], cases: Sequence[str], names: Sequence[str]) -> list[str]:
    """What a reader of the intervals must know; `names` are the types by id."""
    notes, number = [], len(set(cases))
    if number < MIN_CASES:
        notes.append(f"No intervals: they need test patches of {MIN_CASES} cases, and these are of {number}.")
    if len(counts) < 2:
        notes.append("One seed per training set: the intervals leave out how training varies.")
    shown = cases_of_types(counts[0], cases)
    if single := [names[i] for i in np.flatnonzero(shown == 1).tolist()]:
        notes.append(
            f"One test case alone shows {', '.join(single)}: how its IoU varies between cases is in no interval."
        )
    return notes


def check_sets(real: ImageSet, fake: ImageSet, held: ImageSet) -> None:
    """Raise InputError or ImageError for sets that cannot be compared.

    Those are sets without maps or labeled pixels, of other sizes or tissue tables, training sets that share a case with
    `held`, hold an image of it (again or nearly so), or were generated from a map or crop of it. A crop names the patch
    that it was cut from; a crop out of a folder of files names its file alone.
    """
    for images in (real, fake, held):
        if images.semantic_maps is None:
            raise InputError(f"{images.where}: has no maps; segmenters learn from a dataset or from woven patches")
        if (images.maps == UNLABELLED).all():
            raise InputError(
                f"{images.where}: its maps have no labeled pixel; label some, or hide fewer types (--hide)"
            )
        if min(images.images.shape[1:3]) < STRIDE:
            raise InputError(f"{images.where}: images are {images.images.shape[1:3]} px; need at least {STRIDE} px")
    for other in (fake, held):
        comparable(real, other)
    if shared := sorted(set(real.cases) & set(held.cases)):
        raise InputError(f"{held.where}: case {shared[0]!r} is also in the training images; split by case")
    tested = {*held.names, *held.cases, *map(content_id, held.images)} | {*held.map_ids} - {*real.map_ids}
    sources = {crop.source for crops in fake.crops for crop in crops}
    shown = {id for id, of in zip(fake.map_ids, fake.maps, strict=True) if of.min() < of.max()}  # plain maps are alike
    for what, names in (("the map of", {*fake.cases}), ("a crop of", sources), ("the map of", shown)):
        if leaked := sorted({known for name in names for known in known_as(name)} & tested):
            raise InputError(
                f"{fake.where}: was generated from {what} {leaked[0]!r} of the test images; use maps and crops of "
                "split train only"
            )
    for number in range(len(fake)):
        if not same_maps(fake, number, real) and (same := same_maps(fake, number, held)):
            raise InputError(
                f"{fake.where}: {fake.names[number]} was generated from the map of {held.names[same[0]]!r} of the test "
                "images; use maps and crops of split train only"
            )
    for images in (real, fake):
        _check_contents(images, held)


def _check_contents(images: ImageSet, held: ImageSet) -> None:
    """Names may differ where pixels do not: raise InputError for training images that the test set holds."""
    known = {key: i for i, key in enumerate(held.keys())}
    pairs = [(i, known[key]) for i, key in enumerate(images.keys()) if key in known]
    pairs = pairs or near_duplicates(images.images, held.images)
    if pairs:
        (index, other), more = pairs[0], f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
        raise InputError(
            f"{images.where}: {images.names[index]!r} shows the same tissue as {held.names[other]!r} of the test images"
            f"{more}; leave such images out, or split by case"
        )


def _by_seed(
    counts: Sequence[Int[np.ndarray, "n k k"]], cases: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean IoU of each seed, the same without each case in turn, and the test patches of each case."""
    whole = np.sum(counts, axis=0)
    types = ~np.isnan(iou(whole.sum(axis=0)))
    estimates = np.array([mean_over_present(iou(of.sum(axis=0))) for of in counts])
    if not types.any():
        return estimates, np.full((len(counts), 1), NAN), np.ones(1, np.int64)
    without = [mean_iou_without(of, cases, types) for of in counts]
    return estimates, np.stack([values for values, _ in without]), without[0][1]
