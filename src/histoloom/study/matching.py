"""Draw real images that match synthetic ones in tissue and stain, spread over cases.

A study in which real and synthetic images show other tissue, or other stain, finds that difference and no other.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError
from histoloom.evaluation.sources import ImageSet
from histoloom.metrics.lab import mean_lab
from histoloom.patches.heterogeneity import class_fractions
from histoloom.tissue import TissueTable

SHOWN = 0.1  # share of the labeled pixels from which on an image shows a type
ANY = "any tissue"  # where maps are not known


def tissues(real: ImageSet, fake: ImageSet) -> tuple[list[str], list[str]]:
    """What each image shows, such as `stroma + polyp`; the same for all unless both sets have maps.

    Types have the names of the table of `real`: the other table may know them by an alias, under the same ids.
    """
    if real.semantic_maps is None or fake.semantic_maps is None:
        return [ANY] * len(real), [ANY] * len(fake)
    return _tissues(real, real.known_table), _tissues(fake, real.known_table)


def allocate(capacities: dict[str, int], count: int) -> dict[str, int]:
    """`count` places for strata, in proportion to what each holds (largest remainders)."""
    total = sum(capacities.values())
    exact = {name: count * capacity / total for name, capacity in capacities.items()}
    given = {name: int(share) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (given[name] - exact[name], name))
    for name in by_rest[: count - sum(given.values())]:
        given[name] += 1
    return given


def spread_over_cases(indices: Sequence[int], cases: Sequence[str], rng: np.random.Generator) -> list[int]:
    """`indices` in random order, so that any first part of them is spread evenly over cases."""
    of_case: dict[str, list[int]] = defaultdict(list)
    for place in map(int, rng.permutation(len(indices))):
        of_case[cases[indices[place]]].append(indices[place])
    turns = [(turn, rng.random(), index) for mine in of_case.values() for turn, index in enumerate(mine)]
    return [index for _, _, index in sorted(turns)]


class Matcher:
    """Gives out real images once each: of the tissue and near the stain of a synthetic one, of the case used least."""

    def __init__(self, real: ImageSet, fake: ImageSet):
        self.real, self.fake = real, fake
        self.real_tissues, self.fake_tissues = tissues(real, fake)
        self._held = Counter(self.real_tissues)
        self._real_colors, self._fake_colors = _colors(real), _colors(fake)
        self._free = dict.fromkeys(range(len(real)))
        self._uses: Counter[str] = Counter()
        self._templates: Counter[int] = Counter()

    def draw_fakes(self, count: int, rng: np.random.Generator) -> list[int]:
        """Synthetic images whose tissue real ones show, too, spread over tissues and cases; raises InputError."""
        offered = Counter(self.fake_tissues)
        capacities = {name: min(offered[name], self._held[name]) for name in sorted(offered)}
        if sum(capacities.values()) < count:
            shown = ", ".join(f"{name}: {number}" for name, number in capacities.items())
            raise InputError(
                f"the study needs {count} synthetic images and as many real ones of the same tissue, and there are "
                f"{sum(capacities.values())} ({shown}); lower --n, or weave more"
            )
        drawn = []
        for name, number in allocate(capacities, count).items():
            mine = [i for i, tissue in enumerate(self.fake_tissues) if tissue == name]
            drawn += spread_over_cases(mine, self.fake.cases, rng)[:number]
        return [drawn[i] for i in rng.permutation(len(drawn))]

    def draw_real(self, like: int) -> int:
        """The real image for the synthetic one at `like`, of whose tissue one must be left."""
        best = min(self._left(like), key=lambda i: (self._uses[self.real.cases[i]], self.difference(i, like), i))
        del self._free[best]
        self._uses[self.real.cases[best]] += 1
        return best

    def draw_template(self, fakes: Sequence[int], count: int) -> int:
        """The one of `fakes` that a control is matched to: of the tissue with the largest share of real images left.

        Raises InputError where fewer than `count` are left.
        """

        def share_left(fake: int) -> float:
            return len(self._left(fake)) / self.real_tissues.count(self.fake_tissues[fake])

        best = max(fakes, key=lambda fake: (share_left(fake), -self._templates[fake], -fake))
        if len(self._left(best)) < count:
            raise InputError(
                f"{self.real.where}: has {len(self.real)} images, too few of one tissue for the controls; lower --n or "
                "--controls"
            )
        self._templates[best] += 1
        return best

    def unmatched(self) -> dict[str, int]:
        """What synthetic images show and no real one does, and how many do: none of these can be drawn."""
        return dict(Counter(tissue for tissue in self.fake_tissues if tissue not in self._held))

    def difference(self, real: int, fake: int) -> float:
        """Difference of the mean colors, in Lab units (delta E)."""
        return float(np.linalg.norm(self._real_colors[real] - self._fake_colors[fake]))

    def _left(self, like: int) -> list[int]:
        return [i for i in self._free if self.real_tissues[i] == self.fake_tissues[like]]


def _tissues(images: ImageSet, table: TissueTable) -> list[str]:
    names = {tissue.id: tissue.name for tissue in table.types}
    shown = [class_fractions(one, table.num_ids) >= SHOWN for one in images.maps]
    return [" + ".join(names[i] for i in np.flatnonzero(of).tolist()) or "unlabeled" for of in shown]


def _colors(images: ImageSet) -> Float[np.ndarray, "n 3"]:
    return np.stack([mean_lab(image) for image in images.images])
