"""The U-Net that reads map, crops and time, and says where the latents should go.

One cell of the finest grid is 8 px wide with ours, about one nucleus: latents are folded space-to-depth where an
autoencoder's are finer. Three paths carry the conditions: the map is embedded every second pixel and joins the input
and every norm; colours of the crops modulate every norm where their tissue lies; tokens of the crops are read, below
the finest level, by cross-attention that the map masks. A cell sees only the crops of the types in it, weighted by
their share, and one learned null token. A crop without texture has colours and no tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.conditioning.inputs import MAP_STEP, Conditioning
from histoloom.models.autoencoder import to_pixels
from histoloom.models.crop_encoder import CropEncoder, colour_statistics

TOKENS = 16  # tokens come in multiples of this, filled up with hidden ones
HIDDEN = -1e4  # attention bias of what must not be seen; finite, so that half precision stays finite


@dataclass
class Conditions:
    """What the network reads beside latents and time; anything may be absent. Crops of all samples lie in one list.

    type_map `b y x` holds ids of types, `num_types` for unlabelled, `num_types + 1` for "no map"; one for
    every MAP_STEP px.
    """

    type_map: Int[Tensor, "b y x"] | None = None
    canvas: Float[Tensor, "b 4 h w"] | None = None  # crops in place: RGB in [-1, 1] and validity, full resolution
    crops: Float[Tensor, "m 4 s s"] | None = None  # crops as reference: RGB in [-1, 1] and validity
    crop_vectors: Float[Tensor, "m e"] | None = None  # embedding: one vector per crop
    crop_types: Int[Tensor, " m"] | None = None
    crop_samples: Int[Tensor, " m"] | None = None  # which sample of the batch a crop belongs to
    crop_textured: Bool[Tensor, " m"] | None = None  # which crops show more than their colours; None: all


@dataclass
class BlockContext:
    """What one block reads of the conditions."""

    modulation: Float[Tensor, "b c2 y x"] | None  # scale and shift of its norm, to which time adds its own
    keys_values: Float[Tensor, "b t c2"] | None  # of the tokens

    @classmethod
    def batch(cls, blocks: Sequence["BlockContext"], missing: list[int]) -> "BlockContext":
        """One behind the other, filled up with as many tokens as are `missing` in each."""
        modulation = torch.cat([b.modulation for b in blocks])
        if blocks[0].keys_values is None:
            return cls(modulation, None)
        return cls(
            modulation, torch.cat([F.pad(b.keys_values, (0, 0, 0, m)) for b, m in zip(blocks, missing, strict=True)])
        )


@dataclass
class Context:
    """Conditions after encoding: computed once, read at every step. `blocks` lie in the order of the forward pass,
    `bias` has an entry per level below the finest."""

    blocks: list[BlockContext]
    bias: list[Float[Tensor, "b 1 _ t"]]
    joined: Float[Tensor, "b j y x"] | float  # what is added to the input

    @classmethod
    def batch(cls, contexts: list["Context"]) -> "Context":
        """Contexts of a few samples as that of all; the shorter lists of tokens are filled up with hidden ones."""
        if not isinstance(contexts[0].joined, Tensor):
            return contexts[0]
        counts = [c.bias[0].shape[-1] if c.bias else 0 for c in contexts]
        missing = [max(counts) - count for count in counts]
        blocks = [BlockContext.batch(same, missing) for same in zip(*(c.blocks for c in contexts), strict=True)]
        bias = [
            torch.cat([F.pad(b, (0, m), value=HIDDEN) for b, m in zip(level, missing, strict=True)])
            for level in zip(*(c.bias for c in contexts), strict=True)
        ]
        return cls(blocks, bias, torch.cat([c.joined for c in contexts]))


def with_validity(pixels: UInt8[Tensor, "m h w 3"], valid: Bool[Tensor, "m h w"]) -> Float[Tensor, "m 4 h w"]:
    """RGB in [-1, 1] and validity as one tensor; what is not valid is zero in all channels."""
    shown = valid[:, None].to(torch.float32)
    return torch.cat([to_pixels(pixels) * shown, shown], 1)


class Denoiser(ModelMixin, ConfigMixin):
    """Latents `b c h w` (normalised), time in [0, 1] and conditions -> prediction of the same shape."""

    @register_to_config
    def __init__(
        self,
        conditioning: Conditioning = "crops-as-reference",
        num_types: int = 2,
        latent_channels: int = 20,
        latent_factor: int = 8,
        fold: int = 1,
        channels: Sequence[int] = (128, 192, 256),  # per level, fine to coarse; each level halves the grid
        blocks: Sequence[int] = (1, 2, 2),  # per level, on the way down and again on the way up
        token_channels: int = 192,
        vector_channels: int = 40,
        condition_channels: int = 96,
        objective: Literal["flow", "epsilon-l1", "epsilon-l2"] = "flow",
        latent_mean: list[float] | None = None,
        latent_std: list[float] | None = None,
        crop_edge: int = 96,  # px that crops are padded to
    ):
        super().__init__()
        finest, inputs, samples = channels[0], latent_channels * fold**2, self.map_samples
        time_channels = 4 * finest
        self.time = nn.Sequential(nn.Linear(finest, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels))
        self.enter = nn.Conv2d(inputs, finest, 3, padding=1)
        if self.reads_map:
            self.type_embedding = nn.Embedding(num_types + 2, 8)
            self.map_features = nn.Conv2d(8 * samples**2, condition_channels, 1)
            self.map_join = nn.Conv2d(8 * samples**2, finest, 1)
        if conditioning == "crops-in-place":
            self.canvas_join = nn.Conv2d(4 * samples**2, finest, 1)
        if self.reads_tokens:
            self.null_token = nn.Parameter(torch.randn(token_channels) * 0.02)
            self.token_type = nn.Embedding(num_types, token_channels)
        if conditioning == "crops-as-reference":
            self.crop_encoder = CropEncoder(token_channels)
            self.colour = nn.Sequential(nn.Linear(6, 128), nn.SiLU(), nn.Linear(128, condition_channels))
            self.no_colour = nn.Parameter(torch.zeros(condition_channels))
        if conditioning == "embedding":
            self.vector_token = nn.Sequential(nn.Linear(vector_channels, token_channels), nn.LayerNorm(token_channels))
        coarsest = len(channels) - 1

        def level(i: int) -> nn.ModuleList:
            tokens = token_channels if self.reads_tokens and i else 0
            condition = condition_channels if self.reads_map else 0
            made = [Block(channels[i], time_channels, condition, tokens, i == coarsest) for _ in range(blocks[i])]
            return nn.ModuleList(made)

        self.down = nn.ModuleList(level(i) for i in range(coarsest + 1))
        self.up = nn.ModuleList(level(i) for i in range(coarsest))
        steps = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in steps)
        self.leave = nn.Sequential(nn.GroupNorm(16, finest), nn.SiLU(), _zero(nn.Conv2d(finest, inputs, 3, padding=1)))

    @property
    def reads_map(self) -> bool:
        """Whether this conditioning looks at the semantic map."""
        return self.config.conditioning != "unconditional"

    @property
    def reads_tokens(self) -> bool:
        """Whether crops come in as tokens."""
        return self.config.conditioning in ("embedding", "crops-as-reference")

    @property
    def cell(self) -> int:
        """Pixels along the edge of one cell of the finest grid."""
        return self.config.latent_factor * self.config.fold

    @property
    def map_samples(self) -> int:
        """Samples of the map along the edge of one cell."""
        return self.cell // MAP_STEP

    @property
    def multiple(self) -> int:
        """Heights and widths of patches, in px, must be multiples of this."""
        return self.cell * 2 ** (len(self.config.channels) - 1)

    def read(self, conditions: Conditions) -> Context:
        """Encode the conditions of a batch, once for all steps."""
        if not self.reads_map:
            return Context([BlockContext(None, None) for _, blocks in self._levels() for _ in blocks], [], 0.0)
        types = conditions.type_map
        embedded = F.pixel_unshuffle(self.type_embedding(types).movedim(-1, 1), self.map_samples)
        features, joined = self.map_features(embedded), self.map_join(embedded)
        if self.config.conditioning == "crops-in-place" and conditions.canvas is not None:
            small = F.avg_pool2d(conditions.canvas, MAP_STEP)
            joined = joined + self.canvas_join(F.pixel_unshuffle(small, self.map_samples))
        tokens, bias = None, []
        if self.reads_tokens:
            features, tokens, bias = self._read_crops(conditions, features)
        seen = [F.silu(F.avg_pool2d(features, 2**level)) for level in range(len(self.down))]
        blocks = [block.read(seen[level], tokens) for level, made in self._levels() for block in made]
        return Context(blocks, bias, joined)

    def forward(
        self, latents: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], context: Context | Conditions
    ) -> Float[Tensor, "b c h w"]:
        """The prediction that the objective asks for (velocity, or noise)."""
        context = self.read(context) if isinstance(context, Conditions) else context
        emb = F.silu(self.time(get_timestep_embedding(1000 * time, self.config.channels[0]).to(latents.dtype)))
        bias, seen = [None, *(context.bias or [None] * len(self.shrink))], iter(context.blocks)
        skip_scale, in_out_scale = self._preconditioning(time)
        scaled = (latents * in_out_scale).to(self.enter.weight.dtype)
        x = self.enter(F.pixel_unshuffle(scaled, self.config.fold)) + context.joined
        skips = []
        for i, blocks in enumerate(self.down):
            if i:
                skips.append(x)
                x = self.shrink[i - 1](x)
            for block in blocks:
                x = block(x, emb, next(seen), bias[i])
        for i in reversed(range(len(self.up))):
            x = (F.pixel_shuffle(self.grow[i](x), 2) + skips.pop()) / 2**0.5
            for block in self.up[i]:
                x = block(x, emb, next(seen), bias[i])
        return latents * skip_scale + F.pixel_shuffle(self.leave(x), self.config.fold) * in_out_scale

    def _levels(self) -> list[tuple[int, nn.ModuleList]]:
        """Level and blocks, in the order of the forward pass."""
        return [*enumerate(self.down), *reversed(list(enumerate(self.up)))]

    def _preconditioning(self, time: Float[Tensor, " b"]) -> tuple[Tensor | float, Tensor | float]:
        """Scales of the skip from input to output, and of what enters and leaves the network.

        For flow they make both of unit variance (Karras et al. 2022, table 1, in flow's coordinates): with s = t^2 +
        (1 - t)^2 the best linear guess of the velocity is (2 t - 1) x_t / s, and what is left has variance 1 / s.
        """
        if self.config.objective != "flow":
            return 0.0, 1.0
        t = time[:, None, None, None]
        variance = t**2 + (1 - t) ** 2
        return (2 * t - 1) / variance, variance**-0.5

    def _read_crops(self, conditions: Conditions, features: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Features with the colours of the crops, their tokens, and per level how far each is open to a place."""
        types, batch = conditions.type_map, len(conditions.type_map)
        device, count = types.device, 0 if conditions.crop_types is None else len(conditions.crop_types)
        null = self.null_token.expand(batch, 1, -1)
        grid = features.shape[2:]
        if not count:
            features = features + self.no_colour[:, None, None] if hasattr(self, "no_colour") else features
            biases = [features.new_zeros(batch, 1, grid.numel() // 4**i, 1) for i in range(1, len(self.down))]
            return features, null, biases
        owner = conditions.crop_samples
        if self.config.conditioning == "embedding":
            tokens = self.vector_token(conditions.crop_vectors)[:, None]
            valid = torch.ones(count, 1, dtype=torch.bool, device=device)
        else:
            tokens, valid = self.crop_encoder(conditions.crops)
        if conditions.crop_textured is not None:
            valid = valid & conditions.crop_textured[:, None]
        tokens = tokens + self.token_type(conditions.crop_types)[:, None]
        share = self._shares(types, conditions.crop_types, owner)
        mapless = (types == self.config.num_types + 1).flatten(1).all(1)[owner]
        weight = share / _rivals(conditions.crop_types, owner, mapless)[:, None, None]
        if self.config.conditioning == "crops-as-reference":
            colours = self.colour(colour_statistics(conditions.crops))
            painted = weight[:, None] * (colours - self.no_colour)[:, :, None, None]
            features = (
                features
                + self.no_colour[:, None, None]
                + painted.new_zeros(features.shape).index_add(0, owner, painted)
            )
        # Only tokens that show something are kept: in a batch of training four places in five show nothing.
        crop, token = valid.nonzero(as_tuple=True)
        rank, most = _ranks(owner[crop], batch)
        # In whole vectors, the null token included: the rest of one is rounded otherwise, and how long it is would
        # depend on the batch.
        width = -(-(1 + most) // TOKENS) * TOKENS - 1
        place = owner[crop] * width + rank
        packed = _pack(tokens[crop, token], place, batch, width)
        biases = []
        for level_share in (F.avg_pool2d(share, 2**i) for i in range(1, len(self.down))):
            log_share = torch.where(level_share > 0, level_share.clamp(min=1e-6).log(), HIDDEN).flatten(1)
            bias = _pack(log_share[crop], place, batch, width, HIDDEN).transpose(1, 2)
            biases.append(F.pad(bias, (1, 0))[:, None].to(tokens.dtype))
        return features, torch.cat([null, packed], 1), biases

    def _shares(self, types: Tensor, crop_types: Tensor, owner: Tensor) -> Float[Tensor, "m y x"]:
        """Share of each cell that a crop speaks for: the pixels of its type, or everything where there is no map."""
        maps = types[owner]
        mine = (maps == crop_types[:, None, None]) | (maps == self.config.num_types + 1)
        return F.avg_pool2d(mine.to(self.null_token.dtype), self.map_samples)


class Block(nn.Module):
    """Residual block whose norm is scaled and shifted by time and, place by place, by map and colours; then
    attention."""

    def __init__(self, channels: int, time: int, condition: int, tokens: int, self_attention: bool = False):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(16, channels), nn.GroupNorm(16, channels, affine=False)])
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, padding=1), _zero(nn.Conv2d(channels, channels, 3, padding=1))]
        )
        self.time = nn.Linear(time, 2 * channels)
        self.condition = nn.Conv2d(condition, 2 * channels, 1) if condition else None
        self.self_attention = Attention(channels, channels) if self_attention else None
        self.cross_attention = Attention(channels, tokens) if tokens else None

    def read(self, features: Tensor, tokens: Tensor | None) -> BlockContext:
        """What does not depend on time."""
        return BlockContext(
            self.condition(features), None if self.cross_attention is None else self.cross_attention.key_value(tokens)
        )

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
        self.out = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, keys_values: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        b, c, h, w = x.shape
        flat = self.norm(x).flatten(2).transpose(1, 2)
        keys, values = (self.key_value(flat) if keys_values is None else keys_values).chunk(2, -1)
        query, keys, values = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(flat), keys, values)
        )
        read = _attend(query, keys, values, bias).transpose(1, 2).flatten(2)
        return self.out(read).transpose(1, 2).reshape(b, c, h, w)


def _attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax(q k / sqrt(d) + bias) v (Vaswani et al. 2017, eq. 1)."""
    # On a CPU the fused kernel takes five times as long, there and back, as the two lines below.
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
    logits = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    return (logits if bias is None else logits + bias).softmax(-1) @ values


def _ranks(owner: Int[Tensor, " n"], batch: int) -> tuple[Int[Tensor, " n"], int]:
    """Rank of each token among those of its sample, and the largest number of tokens that a sample has."""
    counts = owner.bincount(minlength=batch)
    order = owner.argsort(stable=True)
    within = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
    return torch.empty_like(owner).index_copy(0, order, within), int(counts.max())


def _rivals(crop_types: Int[Tensor, " m"], owner: Int[Tensor, " m"], mapless: Bool[Tensor, " m"]) -> Int[Tensor, " m"]:
    """How many crops of its sample speak for the same place: those of its type, or all where there is no map."""
    alike = (crop_types[:, None] == crop_types[None, :]) | mapless[:, None]
    return ((owner[:, None] == owner[None, :]) & alike).sum(1)


def _pack(
    values: Tensor, place: Int[Tensor, " n"], batch: int, width: int, empty: float = 0.0
) -> Float[Tensor, "b w _"]:
    """Rows of `values` laid out by sample and rank, at `place` = sample * width + rank; the rest is `empty`."""
    out = values.new_full((batch * width, *values.shape[1:]), empty)
    return out.index_copy(0, place, values).unflatten(0, (batch, width))


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
