"""What the network reads besides latents and time: conditions as tensors, and what its blocks make of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from histoloom.models.autoencoder import to_pixels

HIDDEN = -1e4  # attention bias of what must not be seen; finite, so that half precision stays finite


@dataclass(eq=False)
class Conditions:
    """The conditions of a batch; any may be absent. Crops of all samples form one list.

    type_map `b y x` holds ids of types, `num_types` for unlabeled, `num_types + 1` for "no map"; one for
    every MAP_STEP px.
    """

    type_map: Int[Tensor, "b y x"] | None = None
    canvas: Float[Tensor, "b 4 h w"] | None = None  # crops in place: RGB in [-1, 1] and validity, full resolution
    crops: Float[Tensor, "m 4 s s"] | None = None  # crops as reference: RGB in [-1, 1] and validity
    crop_vectors: Float[Tensor, "m e"] | None = None  # embedding: one vector per crop
    crop_types: Int[Tensor, " m"] | None = None
    crop_samples: Int[Tensor, " m"] | None = None  # which sample of the batch a crop belongs to
    crop_textured: Bool[Tensor, " m"] | None = None  # which crops show more than their colors; None: all
    crop_shares: Float[Tensor, "m y x"] | None = None  # of its type in each cell; None: crops of a type share it


@dataclass(eq=False)
class BlockContext:
    """What one block reads of the conditions."""

    modulation: Float[Tensor, "b c2 y x"] | None  # scale and shift of its norm, to which time adds its own
    keys_values: Float[Tensor, "b t c2"] | None  # of the tokens

    @classmethod
    def batch(cls, blocks: Sequence["BlockContext"], missing: list[int]) -> "BlockContext":
        """Contexts of several samples as one batch; `missing` tokens are added to each, so that all have as many."""
        modulation = torch.cat([b.modulation for b in blocks if b.modulation is not None])
        filled = [
            F.pad(b.keys_values, (0, 0, 0, m))
            for b, m in zip(blocks, missing, strict=True)
            if b.keys_values is not None
        ]
        return cls(modulation, torch.cat(filled) if filled else None)


@dataclass(eq=False)
class Context:
    """Conditions after encoding: computed once, read at every step.

    `blocks` follow the order of the forward pass; `bias` has one entry for each level below the finest.
    """

    blocks: list[BlockContext]
    bias: list[Float[Tensor, "b 1 _ t"]]
    joined: Float[Tensor, "b j y x"] | float  # what is added to the input

    @classmethod
    def batch(cls, contexts: list["Context"]) -> "Context":
        """Contexts of a few samples as one batch; shorter lists of tokens are filled up with hidden ones."""
        joined = [c.joined for c in contexts if isinstance(c.joined, Tensor)]
        if not joined:
            return contexts[0]
        counts = [c.bias[0].shape[-1] if c.bias else 0 for c in contexts]
        missing = [max(counts) - count for count in counts]
        blocks = [BlockContext.batch(same, missing) for same in zip(*(c.blocks for c in contexts), strict=True)]
        bias = [
            torch.cat([F.pad(b, (0, m), value=HIDDEN) for b, m in zip(level, missing, strict=True)])
            for level in zip(*(c.bias for c in contexts), strict=True)
        ]
        return cls(blocks, bias, torch.cat(joined))

    def take(self, samples: Int[Tensor, " m"]) -> "Context":
        """The contexts of some samples of the batch."""
        blocks = [
            BlockContext(*(None if part is None else part[samples] for part in (b.modulation, b.keys_values)))
            for b in self.blocks
        ]
        joined = self.joined[samples] if isinstance(self.joined, Tensor) else self.joined
        return Context(blocks, [b[samples] for b in self.bias], joined)


def with_validity(pixels: UInt8[Tensor, "m h w 3"], valid: Bool[Tensor, "m h w"]) -> Float[Tensor, "m 4 h w"]:
    """RGB in [-1, 1] and validity as one tensor; invalid pixels are zero in all channels."""
    shown = valid[:, None].to(torch.float32)
    return torch.cat([to_pixels(pixels) * shown, shown], 1)
