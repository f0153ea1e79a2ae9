"""Choose crops: how large, where in a patch, and from which patch.

As reference, a crop never shows a pixel that it helps to predict: it comes from another patch of the case that is
stained alike and shows other tissue, or, where there is none, from the same patch outside the predicted window, turned.
In place, it is cut from the window itself (arXiv 2509.17847, section 3), which is why that conditioning copies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from histoloom.augmentation import dihedral
from histoloom.conditioning.inputs import SMALLEST_CROP, Crop
from histoloom.conditioning.overlap import overlapping_fields
from histoloom.config import check_numbers
from histoloom.errors import ConfigError
from histoloom.patches.store import Patches
from histoloom.stain import StainShift, apply_stain
from histoloom.tissue import UNLABELLED

STRIDE = 2  # px between the places that a crop may have
PURE = 0.95  # smallest share of a crop that is its own tissue
TRIES = 8  # most places drawn for one that looks like its tissue
KEPT = 2048  # summed-area tables kept: 50 kB each for patches of 224 px
Sums = Int[np.ndarray, "r1 c1"]


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """How crops are drawn."""

    base: int = 56  # px, edge at complexity 0
    alpha: float = 0.7  # growth with complexity: d = base * (1 + alpha * complexity)
    spread: float = 0.4  # the edge is drawn from d * (1 +- spread)
    largest: int = 96  # px
    per_type: int = 2  # most crops per type; their number is drawn
    drop_type: float = 0.1  # share of types without a crop
    candidates: int = 3  # places per crop, of which the nearest in mean color to the predicted tissue is taken
    max_color_distance: float = (
        40.0  # RGB units: from a crop's mean color to that of its type in the patch; glass is far
    )
    color_tolerance: float = 20.0  # RGB units: between the mean colors of a type here and in the lending patch

    def __post_init__(self):
        check_numbers(self)
        if not SMALLEST_CROP <= self.base <= self.largest:
            raise ConfigError(
                f"crops need {SMALLEST_CROP} <= base <= largest; got base {self.base} and largest {self.largest}"
            )
        if (
            min(self.per_type, self.candidates) < 1
            or not 0 <= self.drop_type <= 1
            or not 0 <= self.spread < 1
            or min(self.alpha, self.max_color_distance) < 0
        ):
            raise ConfigError(
                "crops need per_type and candidates >= 1, drop_type in [0, 1], spread in [0, 1), alpha and "
                "max_color_distance >= 0"
            )


@dataclass(frozen=True)
class Box:
    """A square in a patch, in px of the patch."""

    y: int
    x: int
    edge: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """The part of `array` `h w ...` in the box."""
        return array[self.y : self.y + self.edge, self.x : self.x + self.edge]


def complexity(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> float:
    """Variety of a tissue, in [0, 1]: the spread of its luminance over half of the largest possible spread."""
    if not mask.any():
        return 0.0
    return float(min(1.0, image[mask].mean(axis=1).std() / 64))


def adaptive_edge(complexity: float, config: CropConfig) -> float:
    """d_i = d_base * (1 + alpha * complexity(i)) in px (arXiv 2509.17847, section 3)."""
    return config.base * (1 + config.alpha * complexity)


def draw_box(
    mask: Bool[np.ndarray, "h w"],
    edge: int,
    rng: np.random.Generator,
    allowed: Bool[np.ndarray, "h w"] | None = None,
) -> Box | None:
    """A random square of `edge` px, or the largest smaller one that fits, at least PURE of it in the mask.

    Every pixel of it is `allowed`. None where not even SMALLEST_CROP px fit: then the type goes without a crop; the
    region is never used as a whole.
    """
    return _box_of(_sums_of(mask), edge, rng, None if allowed is None else _closed_sums(allowed))


def _sums_of(mask: Bool[np.ndarray, "h w"]) -> Sums:
    rows, columns = (length // STRIDE for length in mask.shape)
    return _summed(mask[::STRIDE, ::STRIDE][:rows, :columns])


def _closed_sums(allowed: Bool[np.ndarray, "h w"]) -> Sums:
    """Of the cells of which a pixel is not allowed."""
    rows, columns = (length // STRIDE for length in allowed.shape)
    return _summed(np.asarray(_cells(~allowed, rows, columns).any((1, 3))))


def _box_of(sums: Sums, edge: int, rng: np.random.Generator, closed: Sums | None) -> Box | None:
    """`draw_box` from the summed-area tables of the mask, and of the cells that are closed."""
    rows, columns = (length - 1 for length in sums.shape)
    while (side := min(edge // STRIDE, rows, columns)) >= SMALLEST_CROP // STRIDE:
        fits = _per_box(sums, side) >= PURE * side * side
        places = np.flatnonzero(fits if closed is None else fits & (_per_box(closed, side) == 0))
        if len(places):
            y, x = divmod(int(places[rng.integers(len(places))]), fits.shape[1])
            return Box(STRIDE * y, STRIDE * x, STRIDE * side)
        if edge <= SMALLEST_CROP:
            break
        edge = max(SMALLEST_CROP, int(0.75 * edge))
    return None


def typical_box(
    draw: Callable[[], Box | None],
    image: UInt8[np.ndarray, "h w 3"],
    usual: Float[np.ndarray, " 3"],
    max_distance: float = CropConfig.max_color_distance,
) -> Box | None:
    """The first drawn box whose mean color is within `max_distance` of the `usual` color of its tissue.

    Where TRIES boxes are all farther, the nearest. Colors in RGB units.
    """
    nearest, least = None, np.inf
    for _ in range(TRIES):
        box = draw()
        if box is None:
            break
        distance = float(np.linalg.norm(box.of(image).mean(axis=(0, 1)) - usual))
        if distance < least:
            nearest, least = box, distance
        if least <= max_distance:
            break
    return nearest


def _cells(mask: Bool[np.ndarray, "h w"], rows: int, columns: int) -> Bool[np.ndarray, "r s c s"]:
    return mask[: STRIDE * rows, : STRIDE * columns].reshape(rows, STRIDE, columns, STRIDE)


def _summed(cells: Bool[np.ndarray, "r c"]) -> Int[np.ndarray, "r1 c1"]:
    """Summed-area table: entry (i, j) counts the cells above row i and left of column j."""
    return np.pad(cells.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))


def _per_box(sums: Int[np.ndarray, "r1 c1"], side: int) -> Int[np.ndarray, "y x"]:
    """True cells in the square of `side` cells at each place."""
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


class ReferenceCrops:
    """Chooses reference crops from `patches`, and knows which patch may lend a crop of a type to which."""

    def __init__(
        self,
        patches: Patches,
        config: CropConfig | None = None,
        smallest_share: float = 0.02,
        names: Sequence[str] | None = None,
    ):
        """Types that cover less than `smallest_share` of a patch get no crop. Crops name the patch that they were cut
        from, by `names` where they are given."""
        self.patches, self.config, self.smallest_share = patches, config or CropConfig(), smallest_share
        self._names = patches.names if names is None else names
        self._overlapping = overlapping_fields(patches)
        self._holders: dict[tuple[str, int], list[int]] = {}
        self._colors: dict[tuple[int, int], np.ndarray] = {}
        self._edges: dict[tuple[int, int], float] = {}
        self._sums: dict[tuple[int, int], Sums] = {}
        for index, (case, semantic_map) in enumerate(zip(patches.cases, patches.semantic_maps, strict=True)):
            for tissue in present_types(semantic_map, smallest_share):
                self._holders.setdefault((case, tissue), []).append(index)
                self._colors[index, tissue] = patches.images[index][semantic_map == tissue].mean(axis=0)

    def lenders(self, index: int, tissue: int) -> list[int]:
        """Patches of the case that show the type in a similar stain, and no tissue that patch `index` shows."""
        holders = self._holders.get((self.patches.cases[index], tissue), [])
        return [other for other in holders if not self._overlap(index, other) and self._alike(index, other, tissue)]

    def draw(
        self,
        index: int,
        outside: Bool[np.ndarray, "h w"],
        wanted: UInt8[np.ndarray, "h2 w2"],
        stain: StainShift | None,
        rng: np.random.Generator,
    ) -> list[Crop]:
        """Crops for patch `index`: for each type in the `wanted` map, from elsewhere in the case, with the same stain.

        `outside` is true where the patch itself may be used: everywhere but in the predicted window.
        """
        crops = []
        for tissue in present_types(wanted, self.smallest_share):
            count = 1 + int(rng.integers(self.config.per_type))
            if rng.random() < self.config.drop_type:
                continue
            others = self.lenders(index, tissue)
            closed = None if others else _closed_sums(outside)
            for _ in range(count):
                place = self._nearest_place(index, others or [index], tissue, closed, rng)
                if place is not None:
                    crops.append(self._cut(*place, tissue, place[0] == index, stain, rng))
        return crops

    def _nearest_place(
        self, index: int, sources: list[int], tissue: int, closed: Sums | None, rng: np.random.Generator
    ) -> tuple[int, Box] | None:
        """Of several random places, the nearest in mean color to the tissue in patch `index`; `closed` is of that
        patch, where it lends to itself."""
        places = []
        for _ in range(self.config.candidates):
            source = int(rng.choice(sources))
            if (source, tissue) not in self._colors:  # too little of it
                continue
            box = typical_box(
                lambda: self._draw_box(source, tissue, closed, rng),  # noqa: B023 (called here)
                self.patches.images[source],
                self._colors[source, tissue],
                self.config.max_color_distance,
            )
            if box is not None:
                places.append((source, box))
        here = self._colors.get((index, tissue))
        if here is None or len(places) < 2:
            return places[0] if places else None
        means = [box.of(self.patches.images[source]).mean(axis=(0, 1)) for source, box in places]
        return places[int(np.argmin([np.linalg.norm(mean - here) for mean in means]))]

    def _draw_box(self, source: int, tissue: int, closed: Sums | None, rng: np.random.Generator) -> Box | None:
        key = source, tissue
        if key not in self._edges or key not in self._sums:
            mask = self.patches.semantic_maps[source] == tissue
            small = complexity(self.patches.images[source, ::4, ::4], mask[::4, ::4])
            self._edges[key] = adaptive_edge(small, self.config)
            while len(self._sums) >= KEPT:
                self._sums.pop(next(iter(self._sums)))
            self._sums[key] = _sums_of(mask)
        edge = self._edges[key] * (1 + self.config.spread * rng.uniform(-1, 1))
        return _box_of(self._sums[key], int(np.clip(edge, SMALLEST_CROP, self.config.largest)), rng, closed)

    def _cut(
        self, source: int, box: Box, tissue: int, same_patch: bool, stain: StainShift | None, rng: np.random.Generator
    ) -> Crop:
        # In the same patch "turned" must differ from the target: the identity is left out.
        pixels = dihedral(box.of(self.patches.images[source]), int(rng.integers(1 if same_patch else 0, 8)))
        pixels = pixels if stain is None else apply_stain(pixels, stain)
        return Crop(pixels, tissue, self._names[source], box.x, box.y)

    def _alike(self, one: int, other: int, tissue: int) -> bool:
        here, there = self._colors.get((one, tissue)), self._colors[other, tissue]
        return here is None or float(np.linalg.norm(here - there)) <= self.config.color_tolerance

    def _overlap(self, one: int, other: int) -> bool:
        if one == other or (one, other) in self._overlapping:
            return True
        (x1, y1, size1), (x2, y2, size2) = self.patches.places[one], self.patches.places[other]
        same = self.patches.sources[one] == self.patches.sources[other]
        return bool(same and x1 < x2 + size2 and x2 < x1 + size1 and y1 < y2 + size2 and y2 < y1 + size1)


def crops_in_place(
    image: UInt8[np.ndarray, "h w 3"],
    semantic_map: UInt8[np.ndarray, "h w"],
    config: CropConfig,
    rng: np.random.Generator,
) -> list[tuple[Crop, int, int]]:
    """One crop per type from the image itself, with its place (y, x): the paper's method, for comparison."""
    placed = []
    for tissue in present_types(semantic_map):
        mask = semantic_map == tissue
        edge = adaptive_edge(complexity(image[::4, ::4], mask[::4, ::4]), config)
        box = draw_box(
            mask, int(np.clip(edge * (1 + config.spread * rng.uniform(-1, 1)), SMALLEST_CROP, config.largest)), rng
        )
        if box is not None:
            placed.append((Crop(box.of(image), tissue), box.y, box.x))
    return placed


def place_crops(
    semantic_map: UInt8[np.ndarray, "h w"], crops: list[Crop], rng: np.random.Generator
) -> list[tuple[Crop, int, int]]:
    """Put one crop of each type at a random place in its type's region, trimmed where the region is narrow.

    The paper's use of crops.
    """
    placed = []
    for crop in {crop.tissue: crop for crop in reversed(crops)}.values():
        box = draw_box(semantic_map == crop.tissue, min(crop.pixels.shape[:2]), rng)
        if box is not None:
            placed.append((Crop(crop.pixels[: box.edge, : box.edge], crop.tissue, crop.source), box.y, box.x))
    return placed


def present_types(semantic_map: UInt8[np.ndarray, "h w"], smallest_share: float = 0.0) -> list[int]:
    """Ids on the map that cover at least `smallest_share` of it, ascending."""
    counts = np.bincount(semantic_map.ravel(), minlength=256)[:UNLABELLED]
    return np.flatnonzero(counts > smallest_share * semantic_map.size).tolist()
