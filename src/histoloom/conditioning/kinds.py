"""The five conditionings, in one table of what each reads."""

from dataclasses import dataclass
from typing import Literal

Conditioning = Literal["unconditional", "map", "embedding", "crops-in-place", "crops-as-reference"]


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a network of one conditioning reads, besides latents and time."""

    map: bool = False  # the semantic map
    tokens: bool = False  # tokens of each crop, by cross-attention
    colors: bool = False  # mean and spread of each crop's colors
    canvas: bool = False  # crops pasted at their place
    vectors: bool = False  # one vector per crop, which becomes its only token

    @property
    def attends(self) -> bool:
        """Whether crops are read by cross-attention, as tokens or as one vector each."""
        return self.tokens or self.vectors

    @property
    def crops(self) -> bool:
        """Whether crops have any effect."""
        return self.attends or self.canvas


CONDITIONINGS: dict[str, Reads] = {
    "unconditional": Reads(),
    "map": Reads(map=True),
    "embedding": Reads(map=True, vectors=True),
    "crops-in-place": Reads(map=True, canvas=True),
    "crops-as-reference": Reads(map=True, tokens=True, colors=True),
}
