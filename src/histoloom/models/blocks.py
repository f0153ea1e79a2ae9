"""Blocks of the U-Net: a residual block that conditions modulate, and attention."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.models.conditions import BlockContext


class Block(nn.Module):
    """A residual block whose norm is scaled and shifted by time and, at each place, by map and colors; then attention.

    `condition` and `tokens` are channels; 0 where the block reads none.
    """

    def __init__(self, channels: int, time: int, condition: int, tokens: int, self_attention: bool = False):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(16, channels), nn.GroupNorm(16, channels, affine=False)])
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, padding=1), zeroed(nn.Conv2d(channels, channels, 3, padding=1))]
        )
        self.time = nn.Linear(time, 2 * channels)
        self.condition = nn.Conv2d(condition, 2 * channels, 1) if condition else None
        self.self_attention = Attention(channels, channels) if self_attention else None
        self.cross_attention = Attention(channels, tokens) if tokens else None

    def read(self, features: Tensor, tokens: Tensor | None) -> BlockContext:
        """The part of the conditions that does not depend on time."""
        assert self.condition is not None
        modulation = self.condition(features)
        keys_values = None if self.cross_attention is None else self.cross_attention.key_value(tokens)
        return BlockContext(modulation, keys_values)

    def forward(self, x: Tensor, emb: Tensor, seen: BlockContext, bias: Tensor | None) -> Tensor:
        modulation = self.time(emb)[:, :, None, None]
        if seen.modulation is not None:
            modulation = modulation + seen.modulation
        scale, shift = modulation.chunk(2, 1)
        hidden = self.convs[0](F.silu(self.norms[0](x)))
        x = x + self.convs[1](F.silu(self.norms[1](hidden) * (1 + scale) + shift))
        if self.self_attention is not None:
            x = x + self.self_attention(x)
        if self.cross_attention is not None:
            x = x + self.cross_attention(x, seen.keys_values, bias)
        return x


class Attention(nn.Module):
    """Positions read tokens, by their keys and values, or each other; `bias` is added to the logits."""

    def __init__(self, channels: int, context: int):
        super().__init__()
        self.heads = max(1, channels // 32)
        self.norm = nn.GroupNorm(16, channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(context, 2 * channels, bias=False)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, keys_values: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        b, c, h, w = x.shape
        flat = self.norm(x).flatten(2).transpose(1, 2)
        keys, values = (self.key_value(flat) if keys_values is None else keys_values).chunk(2, -1)
        query, keys, values = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(flat), keys, values)
        )
        read = _attend(query, keys, values, bias).transpose(1, 2).flatten(2)
        return self.out(read).transpose(1, 2).reshape(b, c, h, w)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all weights zero: what follows it starts as if it were not there."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _attend(
    query: Float[Tensor, "b h n d"], keys: Tensor, values: Tensor, bias: Tensor | None
) -> Float[Tensor, "b h n d"]:
    """Softmax(q k / sqrt(d) + bias) v (Vaswani et al. 2017, eq. 1)."""
    # On a CPU the fused kernel takes five times as long, there and back, as the two lines below.
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
    logits = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    return (logits if bias is None else logits + bias).softmax(-1) @ values
