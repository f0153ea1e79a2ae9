"""The maps of an order: drawn with the planned shares, warped from real maps, or real maps as they are."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from histoloom.errors import ConfigError
from histoloom.generation.dataset_order import DatasetOrder
from histoloom.generation.layouts import LayoutConfig, Layouts, background_of
from histoloom.generation.map_sources import TURN, LayoutMaps, MapSource, SemanticMap, layouts_at
from histoloom.generation.order_plan import MapPlan, plan_layouts, plan_maps, wanted_shares
from histoloom.generation.warped_maps import joined, warped
from histoloom.patches.heterogeneity import class_fractions, is_heterogeneous
from histoloom.tissue import TissueTable

TRIES = 6  # warps of a map of which the one nearest to the planned shares is taken
CLOSE = 0.03  # share of the patch by which a warp may miss the plan


class ComposedLayouts:
    """Drawn layouts that have the ordered shares together."""

    def __init__(self, order: DatasetOrder, table: TissueTable, seed: int, config: LayoutConfig):
        wanted = wanted_shares(order.shares, table)
        ordered = TissueTable(tuple(t for t in table.types if wanted[t.id] > 0))
        background = table.find(order.background) if order.background else background_of(ordered)
        if wanted[background.id] == 0:
            raise ConfigError(f"background {background.name!r} has no share; give it one, or name another background")
        self._layouts = Layouts(replace(config, background=background.name), table, seed, order.size)
        self._plan = plan_layouts(wanted, background.id, order.count, order.two_types, order.band, table, seed)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._plan.types)

    def read(self, number: int, turn: int = 0) -> tuple[str, SemanticMap]:
        """Layout `number`, or another of the same shares in its place."""
        drawn = number + TURN * turn
        return f"layout {drawn} of seed {self._seed}", self._layouts.compose(drawn, self._plan.of(number))

    def files(self) -> Iterator[tuple[str, SemanticMap]]:
        """Nothing: no file is behind a layout."""
        return iter(())


class OrderedMaps:
    """Maps of files that have the ordered shares together, warped and joined, or as they are."""

    def __init__(self, order: DatasetOrder, maps: MapSource, table: TissueTable, seed: int):
        self._order, self._maps, self._seed = order, maps, seed
        fractions = [class_fractions(maps.read(number)[1], table.num_ids) for number in range(len(maps))]
        self._fractions = np.stack(fractions)
        self._plan: MapPlan = plan_maps(
            self._fractions,
            wanted_shares(order.shares, table) if order.shares else None,
            order.count,
            order.recombine,
            not order.warp,
            order.band,
            table,
            seed,
        )

    def __len__(self) -> int:
        return len(self._plan.maps)

    def read(self, number: int, turn: int = 0) -> tuple[str, SemanticMap]:
        """Map `number`, or another warp in its place, and the map or maps that it was made from."""
        one, other = self._plan.maps[number].tolist()
        name, semantic_map = self._maps.read(one)
        if not self._order.warp:
            return name, semantic_map
        second = self._maps.read(other) if other >= 0 else None
        wanted = self._fractions[[one, other] if second else [one]].mean(axis=0)
        name = f"{name} + {second[0]}" if second else name
        best, least = semantic_map, np.inf
        for attempt in range(TRIES):
            rng = np.random.default_rng((self._seed, 7, number, attempt + TRIES * turn))
            made = warped(semantic_map, self._order.size, rng, name)
            if second:
                made = joined(made, warped(second[1], self._order.size, rng, name), rng)
            shown = class_fractions(made, len(wanted))
            off = float(np.abs(shown - wanted).max()) + (not is_heterogeneous(shown[None], *self._order.band)[0])
            if off < least:
                best, least = made, off
            if least <= CLOSE:
                break
        return name, best

    def files(self) -> Iterator[tuple[str, SemanticMap]]:
        """The maps of the files."""
        return self._maps.files()


def ordered_maps(
    order: DatasetOrder, base: MapSource | None, table: TissueTable, seed: int, mpp: float | None
) -> MapSource:
    """The maps of an order; `base` are those of its files, None where layouts are drawn."""
    if base is not None:
        return OrderedMaps(order, base, table, seed)
    config = replace(layouts_at(order, mpp), band=order.band)
    if order.shares:
        return ComposedLayouts(order, table, seed, config)
    return LayoutMaps(Layouts(config, table, seed, order.size), order.count)
