"""Patches that fail a check are dropped, and replaced by others of the same order.

Two checks: no part of a crop is in the patch (the copy limit), and the tissue is where the map says. The second needs a
judge, which gives each pixel a loss over the usual loss of its type. Pixels above `lossy_above` become unlabeled, as in
FreeMask (arXiv 2310.15160), and a patch fails that has too many of them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from histoloom.errors import ModelError, TissueError
from histoloom.generation.order import Order
from histoloom.generation.settings import CheckConfig
from histoloom.generation.woven_patch import AnnotatedPatch, Dropped
from histoloom.records import fingerprint
from histoloom.tissue import UNLABELLED, TissueTable


@runtime_checkable
class PixelJudge(Protocol):
    """Gives each pixel of a patch its loss over the usual loss of its type; `table` holds the ids that it reads."""

    table: TissueTable

    def relative_loss(
        self, image: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "h w"]
    ) -> Float[np.ndarray, "h w"]:
        """Loss of each pixel; 0 where it is not known."""
        ...


class MapCheck:
    """Which pixels of a patch are not what its map says."""

    def __init__(self, config: CheckConfig, judge: PixelJudge, table: TissueTable):
        self.config, self._judge = config, judge
        self._ids = np.full(256, UNLABELLED, np.uint8)
        known = 0
        for tissue in table.types:
            try:
                self._ids[tissue.id] = judge.table.find(tissue.name).id
                known += 1
            except TissueError:  # a type that the judge did not learn is not judged
                continue
        if not known:
            raise ModelError(
                f"{config.judge}: the judge knows none of the model's types ({', '.join(table.names)}); train it on "
                "patches of these"
            )

    def lossy(self, image: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "h w"]) -> np.ndarray:
        """True at labeled pixels whose loss is above the limit."""
        loss = self._judge.relative_loss(image, self._ids[semantic_map])
        return (loss > self.config.lossy_above) & (semantic_map != UNLABELLED)


@dataclass(frozen=True, eq=False)
class SelfCheck:
    """Checks patches, and has others woven for those that fail: `replacement(number, turn)` gives their orders."""

    config: CheckConfig
    replacement: Callable[[int, int], Order]
    maps: MapCheck | None = None

    def passed(
        self, patches: dict[int, AnnotatedPatch], weave: Callable[[list[int], int], list[AnnotatedPatch]]
    ) -> list[AnnotatedPatch | Dropped]:
        """The patches by number, each as it is, replaced, or dropped; `weave(numbers, turn)` makes replacements."""
        rejected = {number: Dropped(0, 0) for number in patches}
        kept: dict[int, AnnotatedPatch | Dropped] = {}
        for turn in range(self.config.replacements + 1):
            for number, patch in patches.items():
                kept[number] = checked = self._checked(patch, rejected[number])
                if isinstance(checked, Dropped):
                    rejected[number] = checked
            failed = [number for number in patches if isinstance(kept[number], Dropped)]
            if not failed or turn == self.config.replacements:
                break
            patches = dict(zip(failed, weave(failed, turn + 1), strict=True))
        return [kept[number] for number in sorted(kept)]

    def _checked(self, patch: AnnotatedPatch, before: Dropped) -> AnnotatedPatch | Dropped:
        """The patch with its lossy pixels unlabeled, or the count of those that failed so far where it fails, too."""
        made = patch.provenance
        if made.copy_score is not None and made.copy_limit is not None and made.copy_score > made.copy_limit:
            return replace(before, rejected_copies=before.rejected_copies + 1)
        share, semantic_map = None, patch.semantic_map
        if self.maps is not None:
            lossy = self.maps.lossy(patch.image, semantic_map)
            share = float(lossy.sum() / max((semantic_map != UNLABELLED).sum(), 1))
            if share > self.config.most_lossy:
                return replace(before, rejected_maps=before.rejected_maps + 1)
            semantic_map = np.where(lossy, UNLABELLED, semantic_map).astype(np.uint8)
        made = replace(made, lossy=share, **asdict(before))
        return AnnotatedPatch(patch.image, semantic_map, made)


@dataclass(frozen=True)
class Checking:
    """A check before its judge is opened: `load` opens the folder of a judge; each worker calls it."""

    config: CheckConfig
    load: Callable[[Path], PixelJudge] | None = None

    def open(self, replacement: Callable[[int, int], Order], table: TissueTable) -> SelfCheck:
        """The check; raises ModelError for a judge that cannot be opened or knows other types."""
        if self.config.judge is None:
            return SelfCheck(self.config, replacement)
        assert self.load is not None
        return SelfCheck(self.config, replacement, MapCheck(self.config, self.load(self.config.judge), table))

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the files of the judge, as inputs of a run."""
        judge = self.config.judge
        if judge is None:
            return {}
        return {f"judge/{path.name}": fingerprint(path) for path in sorted(judge.iterdir()) if path.is_file()}
