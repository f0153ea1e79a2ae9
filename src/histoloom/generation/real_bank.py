"""A bank of real crops, cut from the patches of a dataset: one set per case, or per cluster of stains.

A crop is almost only its own tissue, near the usual color of that tissue in its patch, textured and not glass, and
its patch is in focus. Of crops of one set and type that show the same place, one is kept.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.cluster.vq import kmeans2

from histoloom.conditioning.crops import CropConfig, draw_box, present_types, typical_box
from histoloom.conditioning.inputs import Crop
from histoloom.errors import InputError
from histoloom.generation.bank import GLASS, CropBank, farthest_first
from histoloom.generation.settings import RealBankConfig
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.lab import mean_lab
from histoloom.patches.places import PlaceReader
from histoloom.patches.store import count_patches, has_pixels, iter_rows, row_pixels
from histoloom.progress import SILENT, Bar
from histoloom.slides.tissue import focus

SMALLEST_SHARE = 0.02  # of a patch, below which a type lends no crop
BRIGHT = 200  # gray level of the darkest channel, from which a pixel is glass or lumen
MOST_GLASS = 0.35  # of a crop; lumen covers less of most glands
PER_PATCH = 2  # most crops of a type from one patch
SPARE = 4  # candidates that are held for each crop that is kept
SAME = 0.8  # copy score of two crops above which they show the same place
_COLUMNS = ["image", "semantic_map", "source", "x", "y", "size", "case", "mpp"]


@dataclass
class Cut:
    """A bank, and how many crops were left out, by reason."""

    bank: CropBank = field(default_factory=lambda: CropBank({}))
    cases: dict[str, str] = field(default_factory=dict)  # the case of each set, where sets are cases
    left_out: Counter[str] = field(default_factory=Counter)


def cut_bank(dataset: Path, config: RealBankConfig, bar: Bar = SILENT) -> Cut:
    """Cut a bank from one split of a dataset, reading one patch at a time; `bar` counts patches.

    Raises InputError for a split without patches, or where no patch has room for a crop.
    """
    names = _Sets(dataset, config, bar)
    cut, rng = Cut(), np.random.default_rng(config.seed)
    held: dict[tuple[str, int], list[tuple[float, Crop]]] = {}
    for number, row in enumerate(_rows(dataset, config)):
        for crop in _crops(row, config, rng, cut.left_out):
            mine = held.setdefault((names.of(number, row), crop.tissue), [])
            mine.append((float(rng.random()), crop))
            mine.sort(key=lambda one: one[0])
            del mine[SPARE * config.per_type :]
        bar.advance()
    sets: dict[str, list[Crop]] = {}
    for (name, _), candidates in sorted(held.items()):
        crops = _distinct([crop for _, crop in candidates], config.per_type, cut.left_out)
        sets.setdefault(name, []).extend(crops)
    if not sets:
        raise InputError(f"{dataset}, split {config.split}: no patch has room for a crop ({_reasons(cut.left_out)})")
    chosen = _most_different(sets, config.keep)
    cut.bank = CropBank({f"{config.by}-{i:04d}": sets[name] for i, name in enumerate(chosen)})
    if config.by == "case":
        cut.cases = {f"case-{i:04d}": name for i, name in enumerate(chosen)}
    return cut


class _Sets:
    """The set of each patch: its case, or the cluster of its stain."""

    def __init__(self, dataset: Path, config: RealBankConfig, bar: Bar):
        self._clusters: Int[np.ndarray, " n"] | None = None
        if config.by == "cluster":
            stains = _stains(dataset, config, bar)
            count = min(config.keep or RealBankConfig.clusters, len(stains))
            starts = stains[farthest_first(stains)[:count]]
            self._clusters = kmeans2(stains, starts, iter=50, minit="matrix")[1]

    def of(self, number: int, row: dict) -> str:
        return row["case"] if self._clusters is None else f"{self._clusters[number]:04d}"


def _stains(dataset: Path, config: RealBankConfig, bar: Bar) -> Float[np.ndarray, "n 3"]:
    """The stain of each patch: how far its types are from the usual Lab color of each, whatever types it shows."""
    colors: list[dict[int, tuple[int, np.ndarray]]] = []
    for row in _rows(dataset, config):
        image, semantic_map = row["pixels"]
        stained = image.min(axis=2) < BRIGHT
        masks = {t: stained & (semantic_map == t) for t in present_types(semantic_map, SMALLEST_SHARE)}
        colors.append({t: (int(mask.sum()), mean_lab(image, mask)) for t, mask in masks.items() if mask.any()})
        bar.advance()
    usual = {
        tissue: np.mean([mine[tissue][1] for mine in colors if tissue in mine], axis=0)
        for tissue in {tissue for mine in colors for tissue in mine}
    }
    return np.stack(
        [
            np.average([lab - usual[t] for t, (_, lab) in mine.items()], axis=0, weights=[n for n, _ in mine.values()])
            if mine
            else np.zeros(3)
            for mine in colors
        ]
    )


def _rows(dataset: Path, config: RealBankConfig):
    """The rows of a split, each with its image and map as `pixels`."""
    read = None if has_pixels(dataset, config.split) else PlaceReader(dataset).read
    for row in iter_rows(dataset, config.split, _COLUMNS):
        yield row | {"pixels": row_pixels(row, read, f"{dataset}, split {config.split}")}


def patches_to_read(dataset: Path, config: RealBankConfig) -> int:
    """How many patches `cut_bank` reads: clusters take a pass of their own."""
    return count_patches(dataset, config.split) * (2 if config.by == "cluster" else 1)


def _crops(row: dict, config: RealBankConfig, rng: np.random.Generator, left_out: Counter[str]) -> list[Crop]:
    """Crops of each type of a patch that pass all rules."""
    image, semantic_map = row["pixels"]
    crops = []
    if focus(image[None])[0] < config.min_focus:
        left_out["patches out of focus"] += 1
        return crops
    for tissue in present_types(semantic_map, SMALLEST_SHARE):
        mask, unused = semantic_map == tissue, np.ones(semantic_map.shape, bool)
        usual = image[mask].mean(axis=0)
        for _ in range(PER_PATCH):
            box = typical_box(lambda: draw_box(mask, config.edge, rng, unused), image, usual)  # noqa: B023 (called here)
            if box is None:
                left_out["too narrow"] += 1
                break
            box.of(unused)[:] = False
            pixels = np.ascontiguousarray(box.of(image))
            fault = _fault(pixels, usual, config)
            if fault:
                left_out[fault] += 1
            else:
                crops.append(Crop(pixels, tissue, f"{row['source']} ({row['x']}, {row['y']})", box.x, box.y))
    return crops


def _fault(pixels: UInt8[np.ndarray, "h w 3"], usual: Float[np.ndarray, " 3"], config: RealBankConfig) -> str:
    """Why a crop does not show its tissue; empty if it does."""
    if (pixels.min(axis=2) >= BRIGHT).mean() > MOST_GLASS or pixels.mean() >= GLASS:
        return "glass"
    if np.linalg.norm(pixels.mean(axis=(0, 1)) - usual) > CropConfig.max_color_distance:
        return "of another color than their tissue"
    return "without texture" if pixels.mean(axis=2).std() < config.min_texture else ""


def _distinct(crops: list[Crop], most: int, left_out: Counter[str]) -> list[Crop]:
    """The first `most` crops of which none shows a place that an earlier one shows."""
    kept: list[Crop] = []
    for crop in crops:
        if len(kept) == most:
            break
        if any(best_match(crop.pixels, other.pixels) > SAME for other in kept):
            left_out["near-duplicates"] += 1
        else:
            kept.append(crop)
    return kept


def _most_different(sets: dict[str, list[Crop]], keep: int | None) -> list[str]:
    """The names of the sets to keep, in order of name: those with the most types first, then the most different."""
    if keep is None or len(sets) <= keep:
        return sorted(sets)
    chosen: list[str] = []
    for types in sorted({len({c.tissue for c in crops}) for crops in sets.values()}, reverse=True):
        names = sorted(name for name, crops in sets.items() if len({c.tissue for c in crops}) == types)
        colors = np.stack([np.mean([c.pixels.mean(axis=(0, 1)) for c in sets[name]], axis=0) for name in names])
        chosen += [names[i] for i in farthest_first(colors)]
    return sorted(chosen[:keep])


def _reasons(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or "no type covers 2 % of one"
