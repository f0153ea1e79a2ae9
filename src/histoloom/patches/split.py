"""Splits by case, never by patch: patches of one patient look alike, so a split by patch measures memory.

Cases are ordered by a hash of seed and name, so the same seed gives the same split on any machine and in any row order.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from histoloom.errors import ConfigError, InputError
from histoloom.text import shorten


def hold_out(
    cases: Sequence[str], share: float, seed: int, weights: Sequence[int] | None = None
) -> Bool[np.ndarray, " n"]:
    """True at the patches whose case is held out: as close to `share` of all patches as a greedy choice comes.

    `cases` names the case of each patch, `weights` counts a row as several patches (1 each by default). At least
    one case with patches lands on each side, unless `share` is 0 or no other case has any. Raises InputError when there
    is a single case, ConfigError for a share outside 0..1.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share to hold out is {share}; it must be at least 0 and below 1")
    if share == 0:
        return np.zeros(len(cases), bool)
    counts: Counter[str] = Counter()
    for case, weight in zip(cases, weights or [1] * len(cases), strict=True):
        counts[case] += weight
    if len(counts) < 2:
        raise InputError(
            f"all patches are of one case ({shorten(next(iter(counts), 'none'))!r}), which cannot be split; name the "
            "cases (--case-pattern or a case_id column), or hold nothing out (--val-share 0)"
        )
    present = Counter({case: count for case, count in counts.items() if count}) or counts
    held = _pick(present, share * counts.total(), seed) if len(present) > 1 else set()
    return np.fromiter((case in held for case in cases), bool, len(cases))


def split_by_case(cases: Sequence[str], share: float, seed: int, weights: Sequence[int] | None = None) -> list[str]:
    """The split of each patch, "val" for about `share` of them and "train" for the others; see `hold_out`."""
    return ["val" if held else "train" for held in hold_out(cases, share, seed, weights)]


def check_split(cases: Sequence[str], splits: Sequence[str]) -> None:
    """Raise InputError naming a case that is in two splits."""
    first: dict[str, str] = {}
    for case, split in zip(cases, splits, strict=True):
        if first.setdefault(case, split) != split:
            raise InputError(
                f"case {case!r} is in {first[case]!r} and in {split!r}; give each case to one split, or drop the "
                "split column and let --val-share draw one"
            )


def _pick(counts: Counter[str], target: float, seed: int) -> set[str]:
    order = sorted(counts, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).digest())
    held: set[str] = set()
    missing = target
    for case in order:
        if counts[case] <= missing and len(held) < len(order) - 1:
            held.add(case)
            missing -= counts[case]
    left = [case for case in order if case not in held]
    nearest = min(left, key=lambda case: abs(missing - counts[case]))
    if not held or (len(left) > 1 and abs(missing - counts[nearest]) < missing):
        held.add(nearest)
    return held
