"""One patch to weave, and many of them by number."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.inputs import Crop


@dataclass(frozen=True, eq=False)
class Order:
    """One patch to weave: its map, where that came from, and its crops."""

    semantic_map: UInt8[np.ndarray, "h w"]
    map_source: str
    crops: list[Crop]


@runtime_checkable
class OrderList(Protocol):
    """Orders by number: a list, or orders that are made when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Order: ...
