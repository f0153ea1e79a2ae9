"""Tokens of all crops of a batch, sorted into one list per sample.

Crops of all samples form one list, and most of their tokens show nothing; only the others are kept, so that the lists
are short.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TOKENS = 16  # a list has a multiple of this many tokens, filled up with hidden ones


@dataclass(frozen=True, eq=False)
class TokenLists:
    """Where each visible token goes: token `token` of crop `crop` to `place` = sample * width + rank."""

    crop: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    place: Int[Tensor, " n"]
    batch: int
    width: int

    @classmethod
    def of(cls, visible: Bool[Tensor, "m t"], owner: Int[Tensor, " m"], batch: int) -> "TokenLists":
        """Lists of the visible tokens of crops, whose samples are `owner`."""
        crop, token = visible.nonzero(as_tuple=True)
        rank, most = _ranks(owner[crop], batch)
        # In whole vectors, the null token included: the rest of one is rounded otherwise, and how long it is would
        # depend on the batch.
        width = -(-(1 + most) // TOKENS) * TOKENS - 1
        return cls(crop, token, owner[crop] * width + rank, batch, width)

    def pack(self, values: Tensor, empty: float = 0.0) -> Float[Tensor, "b w _"]:
        """Rows of `values`, one for each visible token, at their places; the rest is `empty`."""
        out = values.new_full((self.batch * self.width, *values.shape[1:]), empty)
        return out.index_copy(0, self.place, values).unflatten(0, (self.batch, self.width))


def count_rivals(
    crop_types: Int[Tensor, " m"], owner: Int[Tensor, " m"], mapless: Bool[Tensor, " m"]
) -> Int[Tensor, " m"]:
    """How many crops of its sample stand for the same place: those of its type, or all where there is no map."""
    alike = (crop_types[:, None] == crop_types[None, :]) | mapless[:, None]
    return ((owner[:, None] == owner[None, :]) & alike).sum(1)


def _ranks(owner: Int[Tensor, " n"], batch: int) -> tuple[Int[Tensor, " n"], int]:
    """Rank of each token among those of its sample, and the largest number of tokens that a sample has."""
    counts = owner.bincount(minlength=batch)
    order = owner.argsort(stable=True)
    within = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
    return torch.empty_like(owner).index_copy(0, order, within), int(counts.max())
