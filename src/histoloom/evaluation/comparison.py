"""Which images stand against which: real against synthetic, and real against real of the same size, split by case.

    reference   real images                          stands against both
    control     real images of other cases           the floor: no model could do better
    fake        synthetic images, as many as control
    train       what a model may have copied from

A figure of fake is read beside the same figure of control.
"""

from dataclasses import dataclass

import numpy as np

from histoloom.errors import InputError
from histoloom.evaluation.sources import ImageSet
from histoloom.metrics.intervals import halves_by_case


@dataclass(frozen=True)
class Comparison:
    """Four sets of images and what must be said of them; `control` and `fake` are equally many."""

    reference: ImageSet
    control: ImageSet
    fake: ImageSet
    train: ImageSet
    notes: tuple[str, ...]

    @property
    def unseen(self) -> str:
        """Which real set is not among the training images: the floor of copying."""
        return "control" if self.train is self.reference else "reference"


def compare(real: ImageSet, fake: ImageSet, train: ImageSet | None, most: int = 500, seed: int = 0) -> Comparison:
    """At most `most` images a side. With `train`, whose cases must not be those of `real`, the control comes from
    there; without it `real` is cut in two by case, and one half is also what copies are searched in.

    Raises InputError for fewer than two images a side, or for cases that stand on both sides.
    """
    for name, images in (("real", real), ("fake", fake), *([("training", train)] if train else [])):
        if len(images) < 2:
            raise InputError(f"{images.where}: {len(images)} {name} image is no distribution; give hundreds")
    rng, notes = np.random.default_rng(seed), []
    if train is None:
        left, right = halves_by_case(real.cases, seed)
        reference, pool = real.select(left), real.select(right)
        notes.append(
            "No training images were named (--train), so copies were searched in half of the real images only."
        )
    else:
        if shared := sorted(set(train.cases) & set(real.cases)):
            raise InputError(
                f"{train.where}: case {shared[0]!r} is in {real.where} ({real.split or 'all'}), too; real against real "
                "is no floor then; split by case"
            )
        reference, pool = real, train
        known, keys = set(train.keys()), real.keys()
        if repeated := sum(key in known for key in keys):
            notes.append(
                f"{repeated} images of {real.where} are also in {train.where}, pixel by pixel, under other case names: "
                "the floor, and what copying is read against, are too low; split by case."
            )
    reference = _at_most(reference, most, rng)
    train = reference if train is None else train
    number = min(len(pool), len(fake), most)
    if len(fake) > number:
        notes.append(f"{number} of {len(fake)} synthetic images were drawn, as many as there are for the floor.")
    notes += [
        f"Cases of {images.where} are unknown: each image counts as one, and intervals are too narrow."
        for images in (real, fake)
        if len(set(images.cases)) == len(images) and images.kind == "image folder"
    ]
    if _trace(real) != _trace(fake):
        notes.append(
            f"Formats differ (real: {real.kept_as}; synthetic: {fake.kept_as}): part of every distance may be the "
            "format's."
        )
    return Comparison(reference, _at_most(pool, number, rng), _at_most(fake, number, rng), train, tuple(notes))


def _trace(images: ImageSet) -> str:
    """The format that has left its mark on the pixels: that of lossy pictures stays in whatever is made of them."""
    return images.made_from if "(lossy)" in images.made_from else images.file_format


def _at_most(images: ImageSet, most: int, rng: np.random.Generator) -> ImageSet:
    return images if len(images) <= most else images.select(np.sort(rng.permutation(len(images))[:most]))
