"""From one annotated slide to patch rows: a grid of candidates, the rules of the paper, the richest mixes first.

Candidates are judged on a coarse map, a few thousand at a time. Those that pass are taken in order of entropy, and each
is judged again on its exact map and, where focus counts, on its pixels, until the caps are full.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from histoloom.patches.heterogeneity import class_fractions, entropy, is_heterogeneous
from histoloom.patches.rules import BLURRED, FULL, NO_LABEL, NO_TISSUE, NOT_MIXED, PatchRules
from histoloom.patches.store import encode_png
from histoloom.slides.annotations import AnnotationMap
from histoloom.slides.reader import Slide
from histoloom.slides.tissue import TissueMap, focus
from histoloom.tissue import UNLABELLED, TissueTable

_CELLS = 32  # a candidate's edge on the coarse map: fractions are good to about 1 %
_SLACK = 0.03  # by so much the coarse map may break a rule that the exact one then keeps
_BAND = 64  # rows of candidates judged at a time, so that memory does not grow with the slide


@dataclass(frozen=True, eq=False)
class Candidates:
    """Places on the grid, judged on the coarse map: corners in level-0 pixels, fractions by tissue id."""

    x: Int[np.ndarray, " n"]
    y: Int[np.ndarray, " n"]
    fractions: Float[np.ndarray, "n k"]
    labeled: Float[np.ndarray, " n"]
    tissue: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Patch:
    """A chosen patch; `image` is None where neither focus nor the caller needed its pixels."""

    x: int
    y: int
    semantic_map: UInt8[np.ndarray, "h w"]
    image: UInt8[np.ndarray, "h w 3"] | None
    fractions: Float[np.ndarray, " k"]
    entropy: float


def find_patches(
    slide: Slide,
    annotation: AnnotationMap,
    tissue: TissueMap,
    table: TissueTable,
    rules: PatchRules,
    pixels: bool = False,
    left_out: Counter[str] | None = None,
) -> Iterator[Patch]:
    """The patches of a slide that keep the rules, highest entropy first on the coarse map, up to the caps.

    The same slide name, annotation and rules give the same patches, with `pixels` or without. `left_out` counts the
    places that break a rule, by rule. Raises SlideError where the slide is damaged, AnnotationError and TissueError
    where the annotation is.
    """
    left_out = Counter() if left_out is None else left_out
    rng = np.random.default_rng(_seed(rules.seed, slide.path.name))
    candidates = judge_grid(slide, annotation, tissue, table, rules, rng)
    taken: Counter[int] = Counter()
    ranked = rank(candidates, rules, rng, left_out)
    for place, index in enumerate(ranked):
        if taken.total() >= rules.per_slide:
            left_out[FULL] += len(ranked) - place
            return
        full = {tissue_id for tissue_id, count in taken.items() if count >= rules.per_type}
        x, y = int(candidates.x[index]), int(candidates.y[index])
        patch, fault = _examine(slide, annotation, table, rules, (x, y), full, pixels)
        if patch is None:
            left_out[fault] += 1
        else:
            taken[int(patch.fractions.argmax())] += 1
            yield patch


def judge_grid(
    slide: Slide,
    annotation: AnnotationMap,
    tissue: TissueMap,
    table: TissueTable,
    rules: PatchRules,
    rng: np.random.Generator,
) -> Candidates:
    """All places of a grid on the slide, which `rng` moves."""
    scale = rules.mpp / slide.mpp
    edge, step = rules.size * scale, rules.stride * scale
    room = [length - edge for length in slide.size]
    if min(room) < 0:
        return _join([], table)
    start = [rng.uniform(0, min(step, space)) if space else 0.0 for space in room]
    # Steps of less than a level-0 pixel would meet the same place twice.
    columns, rows = (
        np.unique(np.floor(np.arange(first, space + 1e-6, step)).astype(np.int64))
        for space, first in zip(room, start, strict=True)
    )
    bands = [
        _judge_band(slide, annotation, tissue, table, rules, columns, rows[first : first + _BAND])
        for first in range(0, len(rows), _BAND)
    ]
    return _join(bands, table)


def rank(
    candidates: Candidates, rules: PatchRules, rng: np.random.Generator, left_out: Counter[str] | None = None
) -> Int[np.ndarray, " m"]:
    """Indices of the candidates that may keep the rules, highest entropy first, equals in an order that `rng` draws.

    `left_out` counts the others, each by the first rule that it breaks.
    """
    low, high = max(rules.low - _SLACK, 0.0), min(rules.high + _SLACK, 1.0)
    mixed: Bool[np.ndarray, " n"] = is_heterogeneous(candidates.fractions, low, high)
    labeled = candidates.labeled > max(rules.min_labelled - _SLACK, 0)
    passed = np.ones(len(candidates), bool)
    for name, kept in ((NO_TISSUE, candidates.tissue >= rules.min_tissue), (NO_LABEL, labeled), (NOT_MIXED, mixed)):
        if left_out is not None and (passed & ~kept).any():
            left_out[name] += int((passed & ~kept).sum())
        passed &= kept
    kept = np.flatnonzero(passed)
    drawn = rng.permutation(len(candidates))[kept]
    return kept[np.lexsort((drawn, -entropy(candidates.fractions[kept]).round(3)))]


def patch_row(patch: Patch, slide: Slide, rules: PatchRules, names: dict[str, str], pixels: bool) -> dict:
    """The patch as a row of `histoloom.patches.schema`; `names` holds its source, case and split."""
    return {
        "image": encode_png(patch.image) if pixels and patch.image is not None else None,
        "semantic_map": encode_png(patch.semantic_map) if pixels else None,
        **names,
        "x": patch.x,
        "y": patch.y,
        "size": round(rules.size * rules.mpp / slide.mpp),
        "mpp": rules.mpp,
        "fractions": patch.fractions.astype(np.float32).tolist(),
        "entropy": patch.entropy,
    }


def _examine(
    slide: Slide,
    annotation: AnnotationMap,
    table: TissueTable,
    rules: PatchRules,
    place: tuple[int, int],
    full: set[int],
    pixels: bool,
) -> tuple[Patch | None, str]:
    """The patch at `place` if its exact map and, where that counts, its focus keep the rules; else None and the rule.

    Types in `full` have enough patches already.
    """
    x, y = place
    semantic_map = annotation.read(x, y, rules.size, rules.mpp)
    fractions = class_fractions(semantic_map, table.num_ids)
    mixed = is_heterogeneous(fractions[None], rules.low, rules.high)[0] and fractions.any()
    labeled = (semantic_map != UNLABELLED).mean() >= rules.min_labelled
    if not (mixed and labeled) or int(fractions.argmax()) in full:
        return None, NO_LABEL if not labeled else FULL if mixed else NOT_MIXED
    image = slide.read(x, y, rules.size, rules.mpp) if pixels or rules.min_focus > 0 else None
    if image is not None and rules.min_focus > 0 and focus(image[None])[0] < rules.min_focus:
        return None, BLURRED
    return Patch(x, y, semantic_map, image, fractions, float(entropy(fractions[None])[0])), ""


def _judge_band(
    slide: Slide,
    annotation: AnnotationMap,
    tissue: TissueMap,
    table: TissueTable,
    rules: PatchRules,
    columns: Int[np.ndarray, " c"],
    rows: Int[np.ndarray, " r"],
) -> Candidates:
    """The candidates of some rows of the grid, from one coarse map that spans them."""
    scale = rules.mpp / slide.mpp
    edge = rules.size * scale
    cell = edge / _CELLS
    width, height = (round((int(places[-1]) - int(places[0])) / cell) + _CELLS for places in (columns, rows))
    coarse = annotation.read(int(columns[0]), int(rows[0]), (width, height), cell * slide.mpp)
    across = np.rint((columns - columns[0]) / cell).astype(np.int64)
    down = np.rint((rows - rows[0]) / cell).astype(np.int64)
    counts = np.stack([_window_counts(coarse == i, across, down) for i in range(table.num_ids)], -1)
    counts = counts.reshape(-1, table.num_ids)
    labeled = counts.sum(1)
    x, y = (grid.ravel() for grid in np.meshgrid(columns, rows))
    boxes = np.stack([x, y, x + edge, y + edge], 1).astype(np.float64)
    fractions = counts / np.maximum(labeled, 1)[:, None]
    return Candidates(x, y, fractions, labeled / _CELLS**2, tissue.fraction(boxes))


def _window_counts(
    member: Bool[np.ndarray, "h w"], across: Int[np.ndarray, " c"], down: Int[np.ndarray, " r"]
) -> Int[np.ndarray, "r c"]:
    """Number of True cells in the window of each place, by an integral image."""
    integral = np.pad(member.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    top, bottom = integral[down], integral[down + _CELLS]
    return (bottom[:, across + _CELLS] - bottom[:, across] - top[:, across + _CELLS] + top[:, across]).astype(np.int64)


def _join(bands: list[Candidates], table: TissueTable) -> Candidates:
    if not bands:
        empty = np.zeros(0, np.int64)
        return Candidates(empty, empty, np.zeros((0, table.num_ids)), np.zeros(0), np.zeros(0))
    names = ("x", "y", "fractions", "labeled", "tissue")
    return Candidates(*(np.concatenate([getattr(band, name) for band in bands]) for name in names))


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each slide, the same on every machine and in any order of slides."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big")
