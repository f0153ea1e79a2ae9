"""Which patch shows what, so that all patches together have the shares that were ordered.

Each patch in turn gets what brings the pixels of all patches so far nearest to the order. A plan needs some numbers per
patch and no pixel, so thousands of patches are planned in a second.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histoloom.errors import ConfigError, TissueError
from histoloom.patches.heterogeneity import is_heterogeneous
from histoloom.tissue import TissueTable

CANDIDATES = 32  # maps, or pairs of maps, of which the one that fits best is taken
TOLERANCE = 0.02  # by which planned shares may miss the order, besides the share of one patch
SPREAD = 0.1  # standard deviation of the share that all bodies cover in a drawn patch


@dataclass(frozen=True, eq=False)
class MapPlan:
    """For each patch, the maps that lend their shapes: two, of which the second is -1 where there is one alone."""

    maps: Int[np.ndarray, "n 2"]


@dataclass(frozen=True, eq=False)
class LayoutPlan:
    """For each patch, ids of one or two types (the second -1 where there is one) and the shares that they cover."""

    types: Int[np.ndarray, "n 2"]
    shares: Float[np.ndarray, "n 2"]

    def of(self, number: int) -> dict[int, float]:
        """The share of each type of a patch, besides the background."""
        pairs = zip(self.types[number].tolist(), self.shares[number].tolist(), strict=True)
        return {tissue: share for tissue, share in pairs if tissue >= 0}


def wanted_shares(shares: tuple[tuple[str, float], ...], table: TissueTable) -> Float[np.ndarray, " k"]:
    """The ordered share of each id; raises TissueError for a type that the table does not know."""
    wanted = np.zeros(table.num_ids)
    try:
        for name, share in shares:
            wanted[table.find(name).id] += share
    except TissueError as error:
        raise TissueError(f"shares of the order: {error}") from None
    return wanted


def plan_maps(
    fractions: Float[np.ndarray, "m k"],
    wanted: Float[np.ndarray, " k"] | None,
    count: int,
    recombine: float,
    once: bool,
    band: tuple[float, float],
    table: TissueTable,
    seed: int,
) -> MapPlan:
    """Choose maps by the `fractions` that each shows; with `once`, each is taken once at most.

    Raises ConfigError where the maps cannot give the shares.
    """
    rng = np.random.default_rng((seed, 5))
    usable = np.flatnonzero(is_heterogeneous(fractions, *band))
    if once and len(usable) < count:
        raise ConfigError(
            f"{count} patches are ordered, and {len(usable)} of {len(fractions)} maps have a most common type within "
            "the band; order fewer, widen the band, or let maps be warped"
        )
    used, total = np.zeros(len(fractions)), np.zeros(fractions.shape[1])
    plan = np.full((count, 2), -1, np.int32)
    for number in range(count):
        pairs = _pairs(rng, len(fractions), usable, used, rng.random() < recombine and not once, once)
        shown = fractions[pairs].mean(axis=1)
        fits = is_heterogeneous(shown, *band)
        cost = used[pairs].mean(axis=1) / max(number, 1)  # maps in turn, where shares leave the choice
        if wanted is not None:
            cost = cost + ((total + shown - wanted * (number + 1)) ** 2).sum(axis=1)
            cost = cost + 1e3 * (shown[:, wanted == 0].sum(axis=1) > 0)  # a type that was not ordered
        best = int((cost + 1e6 * ~fits).argmin())
        one, other = pairs[best].tolist()
        plan[number] = (one, other if other != one else -1)
        total += shown[best]
        used[[one, other]] += 1
    if wanted is not None:
        _check(total / count, wanted, count, table, "the maps")
    return MapPlan(plan)


def _pairs(
    rng: np.random.Generator, maps: int, usable: np.ndarray, used: np.ndarray, two: bool, once: bool
) -> Int[np.ndarray, "c 2"]:
    """Candidates: pairs of any maps, or single maps, as pairs of one with itself."""
    if two or not len(usable):
        return rng.integers(maps, size=(CANDIDATES, 2))
    left = usable[used[usable] == 0] if once else usable
    drawn = rng.choice(left, size=CANDIDATES if not once else min(len(left), 8 * CANDIDATES), replace=not once)
    return np.stack([drawn, drawn], axis=1)


def plan_layouts(
    wanted: Float[np.ndarray, " k"],
    background: int,
    count: int,
    two_types: float,
    band: tuple[float, float],
    table: TissueTable,
    seed: int,
) -> LayoutPlan:
    """Choose types and shares of drawn layouts; raises ConfigError where they cannot give the shares."""
    rng = np.random.default_rng((seed, 6))
    bodies = np.array([i for i in np.flatnonzero(wanted) if i != background])
    if not len(bodies):
        raise ConfigError("shares name the background alone; layouts need another type")
    least, most = 1 - band[1] + 0.01, band[1] - 0.01
    total = np.zeros(len(wanted))
    types, shares = np.full((count, 2), -1, np.int16), np.zeros((count, 2), np.float32)
    for number in range(count):
        missing = wanted * (number + 1) - total  # in patches, to be made up for by this one
        drawn = missing[bodies] + 1e-6 * rng.random(len(bodies))
        order = bodies[np.argsort(-drawn)]
        two = len(bodies) > 1 and rng.random() < two_types
        largest = 0.93 if two else most  # with two types, neither is most of the patch
        spread = SPREAD * rng.standard_normal() * (number < count - 1)  # the last one makes up for all before it
        covered = float(np.clip(1 - missing[background] + spread, least, largest))
        if two:
            split = float(np.clip(missing[order[0]] / max(missing[order[:2]].sum(), 1e-6), 0.3, 0.7))
            types[number], shares[number] = order[:2], (covered * split, covered * (1 - split))
        else:
            types[number, 0], shares[number, 0] = order[0], covered
        np.add.at(total, types[number][types[number] >= 0], shares[number][types[number] >= 0])
        total[background] += 1 - covered
    _check(total / count, wanted, count, table, "drawn layouts")
    return LayoutPlan(types, shares)


def _check(planned: np.ndarray, wanted: np.ndarray, count: int, table: TissueTable, what: str) -> None:
    """Raise ConfigError where a planned share is too far from the ordered one."""
    off = np.abs(planned - wanted)
    worst = int(off.argmax())
    if off[worst] > TOLERANCE + 1 / count:
        name = next(tissue.name for tissue in table.types if tissue.id == worst)
        raise ConfigError(
            f"{what} cannot give the shares within the band: {name!r} would cover {planned[worst]:.1%} instead of "
            f"{wanted[worst]:.1%}; order other shares, a wider band, other maps, or more two_types"
        )
