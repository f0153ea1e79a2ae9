"""What a downstream comparison suggests to do next, in sentences."""

from collections.abc import Sequence

import numpy as np

from histoloom.conditioning.inputs import content_id
from histoloom.evaluation.map_origin import known_as, with_cases
from histoloom.evaluation.sources import ImageSet
from histoloom.models.few_steps import FewStepScheduler
from histoloom.tissue import UNLABELLED

MOSTLY = 0.5  # of the synthetic patches
CONFUSED = 0.2  # of the pixels of a type


def advice(both: tuple[float, float], adapting: tuple[float, float], real: ImageSet, fake: ImageSet) -> list[str]:
    """Sentences for the user, from intervals (nan: unknown) and from how `fake` was woven.

    `both` is the interval of "both - real"; `adapting` is what networks of `fake` gain from the norms of `real`. Crops
    of `fake` count as those of other cases where they come from patches of `real` whose case is not that of the map.
    """
    said = []
    low, high = both
    if low > 0:
        said.append("Real and synthetic patches together teach more than real ones alone: train on both.")
    elif high < 0:
        said.append("Adding synthetic patches to real ones makes the segmenter worse: train on real ones alone.")
    elif low == low:
        said.append("This test sees no difference between real patches and both together.")
    if adapting[0] > 0:
        said.append(
            "Networks of synthetic patches read real ones better with the norms of real images: adapt yours to "
            "unlabeled images (histoloom.evaluation.deeplab.adapted)."
        )
    if missing := _only_in(fake, real):
        said.append(
            f"No real training patch shows {', '.join(missing)}: networks that see as many real patches as synthetic "
            "ones learn that such tissue is rare. In our tests, synthetic patches alone, adapted, taught more, and "
            "--one-pool found such types better."
        )
    if fake.made.get("scheduler") == FewStepScheduler.__name__:
        said.append(
            "The synthetic patches come from a few-step student; in our tests, patches woven by its teacher taught "
            "more: weave with the model that it was distilled from."
        )
    if (share := _with_foreign_crops(real, fake)) > MOSTLY:
        said.append(
            f"{share:.0%} of the synthetic patches have crops of other cases than their map, which models do not see "
            "in training: weave with --maps DATASET --crops DATASET."
        )
    return said


def confusions(read_as: Sequence[Sequence[float]], names: Sequence[str]) -> list[str]:
    """Which type is mostly mistaken for another one, most of all first; `read_as` holds shares of each type (row)."""
    shares = np.nan_to_num(np.array(read_as, float))
    np.fill_diagonal(shares, 0)
    found = [(shares[i].max(), names[i], names[int(shares[i].argmax())]) for i in range(len(names))]
    return [
        f"{share:.0%} of {name} is read as {other}" for share, name, other in sorted(found)[::-1] if share >= CONFUSED
    ]


def _only_in(fake: ImageSet, real: ImageSet) -> list[str]:
    """Names of the types that maps of `fake` show and no map of `real` does."""
    ids = set(np.unique(fake.maps).tolist()) - set(np.unique(real.maps).tolist()) - {UNLABELLED}
    return [tissue.name for tissue in fake.known_table.types if tissue.id in ids]


def _with_foreign_crops(real: ImageSet, fake: ImageSet) -> float:
    """Share of the patches with a crop of another case than the map's, of those whose map and crops are known."""
    case_of = dict(zip(real.names, real.cases, strict=True))
    case_of |= {content_id(image): case for image, case in zip(real.images, real.cases, strict=True)}
    known, foreign = 0, 0
    for case, crops in zip(with_cases(fake, [real]).cases, fake.crops, strict=False):
        named = [next((name for name in known_as(crop.source) if name in case_of), None) for crop in crops]
        cases = {case_of[name] for name in named if name is not None}
        if cases and case in set(real.cases):
            known += 1
            foreign += cases != {case}
    return foreign / known if known else 0.0
