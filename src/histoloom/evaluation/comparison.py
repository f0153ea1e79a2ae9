"""Which images are compared: real with synthetic, and real with real of the same numbers of images and cases.

    reference   real images                          both others are compared with it
    control     real images of other cases           the floor: no model could do better
    fake        synthetic images                     as many images, and where known cases, as control
    train       what a model may have copied from

A figure of fake is read next to the same figure of control. Images that repeat another one count once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from histoloom.errors import InputError
from histoloom.evaluation.sources import ImageSet
from histoloom.metrics.intervals import FEW_CASES, MIN_CASES
from histoloom.text import counted

MIN_IMAGES = 50  # per side; fewer give no verdict
SIDES = ("reference", "control", "fake", "train")


@dataclass(frozen=True)
class Comparison:
    """Four sets of images and what a reader must know of them; `control` and `fake` have equally many images."""

    reference: ImageSet
    control: ImageSet
    fake: ImageSet
    train: ImageSet
    notes: tuple[str, ...]

    @property
    def unseen(self) -> str:
        """Which real set is not among the training images: the floor of copying."""
        return "control" if self.train is self.reference else "reference"

    @property
    def too_few(self) -> str:
        """Why the sets are too small for a verdict; empty if they are not."""
        small = []
        for name, images in (("real", self.reference), ("control", self.control), ("synthetic", self.fake)):
            number = len(set(images.cases))
            if len(images) < MIN_IMAGES or number < MIN_CASES:
                small.append(f"{counted(len(images), f'{name} image')} of {counted(number, 'case')}")
        if not small:
            return ""
        return f"a verdict needs {MIN_IMAGES} images of {MIN_CASES} cases in each set, and there are {', '.join(small)}"


def compare(real: ImageSet, fake: ImageSet, train: ImageSet | None, most: int = 500, seed: int = 0) -> Comparison:
    """At most `most` images a side. With `train`, whose cases must not be those of `real`, the control comes from
    there; without it `real` is cut in two by case, and one half is also what copies are searched in.

    Raises InputError for fewer than two images a side, or for cases that are on both sides.
    """
    rng, notes = np.random.default_rng(seed), []
    real, fake = _once(real, "real", notes), _once(fake, "synthetic", notes)
    if train is None:
        left, right = halves_by_case(real.cases, seed)
        reference, pool = real.select(left), real.select(right)
        notes.append(
            "No training images were named (--train), so copies were searched in half of the real images only."
        )
    else:
        if shared := sorted(set(train.cases) & set(real.cases)):
            raise InputError(
                f"{train.where}: case {shared[0]!r} is also in {real.where} ({real.split or 'all'}), so real against "
                "real cannot be a floor; split by case"
            )
        train = _once(train, "training", notes)
        reference, pool = _without(real, train, notes), train
    for name, images in (("real", reference), ("control", pool), ("synthetic", fake)):
        if len(images) < 2:
            raise InputError(
                f"{images.where}: need at least 2 {name} images to estimate a distribution (hundreds recommended); got "
                f"{len(images)}"
            )
    reference = _at_most(reference, most, rng)
    control, chosen = _matched(pool, fake, most, rng)
    if len(chosen) < len(fake):
        notes.append(
            f"{len(chosen)} of {len(fake)} synthetic images were drawn, to match the images and cases of the floor."
        )
    comparison = Comparison(reference, control, chosen, reference if train is None else train, ())
    return replace(comparison, notes=(*notes, *_notes(comparison)))


def halves_by_case(cases: Sequence[str], seed: int = 0) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Indices of two sets of about equal size that share no case: the two sides of real against real.

    Cases come in random order, each to the side that has fewer images. Raises InputError for a single case.
    """
    names, of_case, sizes = np.unique(np.asarray(cases), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError("all real images are of one case; comparing real with real needs at least 2 cases")
    side = np.zeros(len(names), int)
    held = [0, 0]
    for case in np.random.default_rng(seed).permutation(len(names)):
        side[case] = int(held[1] < held[0])
        held[side[case]] += int(sizes[case])
    return np.flatnonzero(side[of_case] == 0), np.flatnonzero(side[of_case] == 1)


def _once(images: ImageSet, name: str, notes: list[str]) -> ImageSet:
    """The images without those that repeat an earlier one; notes how many did."""
    distinct = images.distinct()
    if repeated := len(images) - len(distinct):
        notes.append(
            counted(
                repeated,
                f"{name} image repeats another one, pixel by pixel, and does not count.",
                f"{name} images repeat another one, pixel by pixel, and do not count.",
            )
        )
    return distinct


def _without(real: ImageSet, train: ImageSet, notes: list[str]) -> ImageSet:
    """The real images that are not among the training images under another case."""
    known = set(train.keys())
    new = [i for i, key in enumerate(real.keys()) if key not in known]
    if len(new) == len(real):
        return real
    if not new:
        raise InputError(f"{real.where}: all images are also in {train.where}, pixel by pixel; split by case")
    notes.append(
        f"{len(real) - len(new)} images of {real.label} are also in {train.label}, pixel by pixel, under other case "
        "names, and do not count; split by case, since near copies may be left."
    )
    return real.select(new)


def _matched(pool: ImageSet, fake: ImageSet, most: int, rng: np.random.Generator) -> tuple[ImageSet, ImageSet]:
    """Equally many images of both, and of equally many cases where both sides know theirs."""
    sides = [pool, fake]
    if all(images.cases_are_known for images in sides):
        number = min(len(set(images.cases)) for images in sides)
        sides = [_of_cases(images, number, rng) for images in sides]
    number = min(*map(len, sides), most)
    return _spread(sides[0], number, rng), _spread(sides[1], number, rng)


def _of_cases(images: ImageSet, number: int, rng: np.random.Generator) -> ImageSet:
    """The images of `number` random cases."""
    names = sorted(set(images.cases))
    if len(names) <= number:
        return images
    chosen = {names[i] for i in rng.permutation(len(names))[:number]}
    return images.select([i for i, case in enumerate(images.cases) if case in chosen])


def _spread(images: ImageSet, number: int, rng: np.random.Generator) -> ImageSet:
    return images if len(images) <= number else images.select(spread_over_cases(images.cases, number, rng))


def spread_over_cases(cases: Sequence[str], number: int, rng: np.random.Generator) -> Int[np.ndarray, " number"]:
    """`number` random images in their order, as far as possible of different cases, so that no case is lost."""
    order = rng.permutation(len(cases))
    _, first = np.unique(np.asarray(cases)[order], return_index=True)
    chosen = np.concatenate([order[np.sort(first)], np.delete(order, first)])[:number]
    return np.sort(chosen)


def _at_most(images: ImageSet, most: int, rng: np.random.Generator) -> ImageSet:
    return images if len(images) <= most else images.select(np.sort(rng.permutation(len(images))[:most]))


def _notes(sets: Comparison) -> list[str]:
    notes = []
    named = (("reference", sets.reference), ("control", sets.control), ("synthetic", sets.fake))
    for name, images in named:
        number = len(set(images.cases))
        loose = sum("/" not in name for name in images.names)  # outside the sub-folders
        if images.kind == "image folder" and (loose or not images.cases_are_known):
            some = f"{counted(loose, 'image')} of " if 0 < loose < len(images) else ""
            notes.append(
                f"Cases of {some}{images.label} are unknown: each image counts as one, and intervals are too narrow "
                "where images share a patient."
            )
        elif number < MIN_CASES:
            notes.append(f"The {name} set has {counted(number, 'case')}: intervals need {MIN_CASES}, and are left out.")
        elif number < FEW_CASES:
            notes.append(f"The {name} set has {counted(number, 'case')}: below {FEW_CASES}, intervals are rough.")
    cases = [len(set(images.cases)) for images in (sets.control, sets.fake)]
    if cases[0] < cases[1]:
        notes.append(
            f"The floor has {cases[0]} cases, the synthetic images count as {cases[1]}: fewer cases vary less, so the "
            "floor of recall and coverage is lower, and that of distances higher, than at equal numbers."
        )
    if sets.fake.kind == "patch dataset":
        notes.append(f"Of the dataset {Path(sets.fake.where).name}, only split {sets.fake.split} is measured.")
    if trace(sets.reference) != trace(sets.fake):
        notes.append(
            f"Formats differ (real: {sets.reference.kept_as}; synthetic: {sets.fake.kept_as}): part of every distance "
            "may be due to the format."
        )
    return list(dict.fromkeys(notes))


def trace(images: ImageSet) -> str:
    """The format whose marks are in the pixels: those of lossy formats stay in whatever is made of such images."""
    return images.made_from if "(lossy)" in images.made_from else images.file_format
