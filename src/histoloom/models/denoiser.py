"""The U-Net that reads map, crops and time, and predicts what the objective asks of the latents.

One cell of the finest grid is 8 px wide with the bundled autoencoder, about one nucleus; finer latents are folded
space-to-depth. Conditions enter on three paths: the map is embedded every second pixel and joins the input and every
norm; colors of the crops modulate every norm where their tissue is; tokens of the crops are read below the finest
level, by cross-attention that the map masks. A cell sees the crops of the types in it, weighted by their share, and
one learned null token. A crop without texture has colors and no tokens.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.conditioning.inputs import MAP_STEP
from histoloom.conditioning.kinds import CONDITIONINGS, Conditioning
from histoloom.config import build
from histoloom.errors import ConfigError
from histoloom.models.blocks import Block, zeroed
from histoloom.models.conditions import HIDDEN, BlockContext, Conditions, Context
from histoloom.models.crop_encoder import CropEncoder, color_statistics
from histoloom.models.students import Student
from histoloom.models.token_lists import TokenLists, count_rivals
from histoloom.text import shorten

OBJECTIVES = ("flow", "epsilon-l1", "epsilon-l2")


class Denoiser(ModelMixin, ConfigMixin):
    """Latents `b c h w` (normalized), time in [0, 1] and conditions -> a prediction of the same shape."""

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
        student: dict | None = None,  # fields of `Student`, for a network that was distilled
    ):
        super().__init__()
        _check_config(locals())
        self.reads = CONDITIONINGS[conditioning]
        self.num_types, self.latent_factor, self.fold, self.objective = num_types, latent_factor, fold, objective
        self.num_levels, self.finest = len(channels), channels[0]
        self.student = None if student is None else as_student(student)
        finest, inputs, samples = channels[0], latent_channels * fold**2, self.map_samples
        time_channels = 4 * finest
        # Names of weights are a file format, and the order in which they are made decides their random start.
        self.time = nn.Sequential(nn.Linear(finest, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels))
        self.enter = nn.Conv2d(inputs, finest, 3, padding=1)
        if self.reads.map:
            self.type_embedding = nn.Embedding(num_types + 2, 8)
            self.map_features = nn.Conv2d(8 * samples**2, condition_channels, 1)
            self.map_join = nn.Conv2d(8 * samples**2, finest, 1)
        if self.reads.canvas:
            self.canvas_join = nn.Conv2d(4 * samples**2, finest, 1)
        if self.reads.attends:
            self.null_token = nn.Parameter(torch.randn(token_channels) * 0.02)
            self.token_type = nn.Embedding(num_types, token_channels)
        if self.reads.tokens:
            self.crop_encoder = CropEncoder(token_channels)
        if self.reads.colors:
            # The name of these weights in every saved model.
            self.colour = nn.Sequential(  # codespell:ignore colour
                nn.Linear(6, 128), nn.SiLU(), nn.Linear(128, condition_channels)
            )
            self.no_colour = nn.Parameter(torch.zeros(condition_channels))
        if self.reads.vectors:
            self.vector_token = nn.Sequential(nn.Linear(vector_channels, token_channels), nn.LayerNorm(token_channels))
        coarsest = len(channels) - 1

        def level(i: int) -> nn.ModuleList:
            tokens = token_channels if self.reads.attends and i else 0
            condition = condition_channels if self.reads.map else 0
            made = [Block(channels[i], time_channels, condition, tokens, i == coarsest) for _ in range(blocks[i])]
            return nn.ModuleList(made)

        self.down = nn.ModuleList(level(i) for i in range(coarsest + 1))
        self.up = nn.ModuleList(level(i) for i in range(coarsest))
        steps = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in steps)
        outputs = inputs * (1 if self.student is None else self.student.outputs)
        self.leave = nn.Sequential(
            nn.GroupNorm(16, finest), nn.SiLU(), zeroed(nn.Conv2d(finest, outputs, 3, padding=1))
        )
        if self.student is not None:
            self.aim = nn.Sequential(
                nn.Linear(3 * finest, time_channels), nn.SiLU(), zeroed(nn.Linear(time_channels, time_channels))
            )

    @property
    def cell(self) -> int:
        """Pixels along the edge of one cell of the finest grid."""
        return self.latent_factor * self.fold

    @property
    def samplers(self) -> str:
        """The kind of samplers that fits what is predicted, for `histoloom.models.schedulers`."""
        return (self.student and self.student.family) or self.objective

    @property
    def map_samples(self) -> int:
        """Samples of the map along the edge of one cell."""
        return self.cell // MAP_STEP

    @property
    def multiple(self) -> int:
        """Heights and widths of patches, in px, must be multiples of this."""
        return self.cell * 2 ** (self.num_levels - 1)

    def margins(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """Px that are generated beyond a map, above and below, left and right, and cut off again.

        Up to `multiple`, and at least one cell, since the network draws speckles along the rim of its grid.
        """
        beyond = [2 * self.cell + -(edge + 2 * self.cell) % self.multiple for edge in shape]
        return [(both // 2, both - both // 2) for both in beyond]

    def read(self, conditions: Conditions) -> Context:
        """Encode the conditions of a batch, once for all steps."""
        if not self.reads.map:
            return Context([BlockContext(None, None) for _, blocks in self._levels() for _ in blocks], [], 0.0)
        assert conditions.type_map is not None
        embedded = F.pixel_unshuffle(self.type_embedding(conditions.type_map).movedim(-1, 1), self.map_samples)
        features, joined = self.map_features(embedded), self.map_join(embedded)
        if self.reads.canvas and conditions.canvas is not None:
            small = F.avg_pool2d(conditions.canvas, MAP_STEP)
            joined = joined + self.canvas_join(F.pixel_unshuffle(small, self.map_samples))
        tokens, bias = None, []
        if self.reads.attends:
            shares = self._shares(conditions)
            if self.reads.colors:
                features = self._paint(features, conditions, shares)
            tokens, bias = self._tokens(features, conditions, shares)
        seen = [F.silu(F.avg_pool2d(features, 2**level)) for level in range(self.num_levels)]
        blocks = [block.read(seen[level], tokens) for level, made in self._levels() for block in made]
        return Context(blocks, bias, joined)

    def forward(
        self,
        latents: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        context: Context | Conditions,
        aim: Float[Tensor, "b 3"] | None = None,
    ) -> Float[Tensor, "b kc h w"]:
        """The prediction that the objective asks for: velocity, or noise; of a policy, one velocity per point.

        `aim` is what a student reads besides: see `Student.aim`.
        """
        context = self.read(context) if isinstance(context, Conditions) else context
        emb = self.time(get_timestep_embedding(1000 * time, self.finest).to(latents.dtype))
        if self.student is not None:
            assert aim is not None
            shares = get_timestep_embedding(1000 * aim.flatten(), self.finest)
            emb = emb + self.aim(shares.unflatten(0, aim.shape).flatten(1).to(latents.dtype))
        emb = F.silu(emb)
        bias, seen = [None, *(context.bias or [None] * len(self.shrink))], iter(context.blocks)
        skip_scale, in_out_scale = self._preconditioning(time)
        scaled = (latents * in_out_scale).to(self.enter.weight.dtype)
        x = self.enter(F.pixel_unshuffle(scaled, self.fold)) + context.joined
        skips = []
        for i, blocks in self._down():
            if i:
                skips.append(x)
                x = self.shrink[i - 1](x)
            for block in blocks:
                x = block(x, emb, next(seen), bias[i])
        for i, blocks in self._up():
            x = (F.pixel_shuffle(self.grow[i](x), 2) + skips.pop()) / 2**0.5
            for block in blocks:
                x = block(x, emb, next(seen), bias[i])
        left = F.pixel_shuffle(self.leave(x), self.fold) * in_out_scale
        return (latents * skip_scale).repeat(1, left.shape[1] // latents.shape[1], 1, 1) + left

    def mapless(self, conditions: Conditions) -> Bool[Tensor, " b"]:
        """Which samples have no map."""
        assert conditions.type_map is not None
        return (conditions.type_map == self.num_types + 1).flatten(1).all(1)

    def _down(self) -> Iterator[tuple[int, list[Block]]]:
        """Level and blocks on the way down, fine to coarse."""
        return ((i, [cast(Block, block) for block in cast(nn.ModuleList, made)]) for i, made in enumerate(self.down))

    def _up(self) -> Iterator[tuple[int, list[Block]]]:
        """Level and blocks on the way up, coarse to fine."""
        return (
            (i, [cast(Block, block) for block in cast(nn.ModuleList, self.up[i])])
            for i in reversed(range(len(self.up)))
        )

    def _levels(self) -> list[tuple[int, list[Block]]]:
        """Level and blocks, in the order of the forward pass."""
        return [*self._down(), *self._up()]

    def _preconditioning(self, time: Float[Tensor, " b"]) -> tuple[Tensor | float, Tensor | float]:
        """Scales of the skip from input to output, and of what enters and leaves the network.

        For flow they make both of unit variance (Karras et al. 2022, table 1, in flow's coordinates): with s = t^2 +
        (1 - t)^2 the best linear guess of the velocity is (2 t - 1) x_t / s, and what is left has variance 1 / s.
        """
        if self.objective != "flow":
            return 0.0, 1.0
        t = time[:, None, None, None]
        variance = t**2 + (1 - t) ** 2
        return (2 * t - 1) / variance, variance**-0.5

    def _shares(self, conditions: Conditions) -> Float[Tensor, "m y x"] | None:
        """Share of each cell that a crop stands for: the pixels of its type, or everything where there is no map.

        None where there are no crops.
        """
        crop_types, owner = conditions.crop_types, conditions.crop_samples
        if crop_types is None or not len(crop_types):
            return None
        assert conditions.type_map is not None
        maps = conditions.type_map[owner]
        mine = (maps == crop_types[:, None, None]) | (maps == self.num_types + 1)
        shares = F.avg_pool2d(mine.to(self.null_token.dtype), self.map_samples)
        return shares if conditions.crop_shares is None else shares * conditions.crop_shares

    def _paint(
        self, features: Float[Tensor, "b c y x"], conditions: Conditions, shares: Float[Tensor, "m y x"] | None
    ) -> Float[Tensor, "b c y x"]:
        """Features with the colors of the crops where their tissue is, and elsewhere with "no color"."""
        features = features + self.no_colour[:, None, None]
        if shares is None:
            return features
        crops, crop_types, owner = conditions.crops, conditions.crop_types, conditions.crop_samples
        assert crops is not None
        assert crop_types is not None
        assert owner is not None
        weight = shares
        if conditions.crop_shares is None:
            weight = shares / count_rivals(crop_types, owner, self.mapless(conditions)[owner])[:, None, None]
        colors = self.colour(color_statistics(crops))  # codespell:ignore colour
        painted = weight[:, None] * (colors - self.no_colour)[:, :, None, None]
        return features + painted.new_zeros(features.shape).index_add(0, owner, painted)

    def _tokens(
        self, features: Float[Tensor, "b c y x"], conditions: Conditions, shares: Float[Tensor, "m y x"] | None
    ) -> tuple[Float[Tensor, "b t c2"], list[Tensor]]:
        """A list of tokens per sample, the null token first, and per level how far each is open to a place."""
        batch, _, height, width = features.shape
        null = self.null_token.expand(batch, 1, -1)
        if shares is None:
            places = height * width
            return null, [features.new_zeros(batch, 1, places // 4**i, 1) for i in range(1, self.num_levels)]
        tokens, visible = self._encode_crops(conditions)
        assert conditions.crop_samples is not None
        lists = TokenLists.of(visible, conditions.crop_samples, batch)
        packed = lists.pack(tokens[lists.crop, lists.token])
        return torch.cat([null, packed], 1), self._biases(lists, shares, tokens.dtype)

    def _encode_crops(self, conditions: Conditions) -> tuple[Float[Tensor, "m t c"], Bool[Tensor, "m t"]]:
        """The tokens of each crop, and which of them may be seen."""
        if self.reads.vectors:
            tokens = self.vector_token(conditions.crop_vectors)[:, None]
            visible = torch.ones(len(tokens), 1, dtype=torch.bool, device=tokens.device)
        else:
            tokens, visible = self.crop_encoder(conditions.crops)
        if conditions.crop_textured is not None:
            visible = visible & conditions.crop_textured[:, None]
        return tokens + self.token_type(conditions.crop_types)[:, None], visible

    def _biases(self, lists: TokenLists, shares: Float[Tensor, "m y x"], dtype: torch.dtype) -> list[Tensor]:
        """For each level below the finest, the logarithm of the share of each place that each token stands for."""
        biases = []
        for level in range(1, self.num_levels):
            share = F.avg_pool2d(shares, 2**level)
            log_share = torch.where(share > 0, share.clamp(min=1e-6).log(), HIDDEN).flatten(1)
            bias = lists.pack(log_share[lists.crop], HIDDEN).transpose(1, 2)
            biases.append(F.pad(bias, (1, 0))[:, None].to(dtype))
        return biases


def as_student(values: object) -> Student:
    """What a student can be asked for, from a config; raises ConfigError."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"denoiser: student is {shorten(repr(values), 60)}; give its fields, or none")
    return build(Student, dict(values), "denoiser: student")


def _check_config(given: dict) -> None:
    """Raise ConfigError for values that no network has, before any weight is made: a file may hold anything."""

    def whole(name: str, low: int, high: int, multiple: int = 1) -> None:
        values = given[name] if isinstance(given[name], list | tuple) else [given[name]]
        if not all(type(v) is int and low <= v <= high and v % multiple == 0 for v in values):
            of = f" that are multiples of {multiple}" if multiple > 1 else ""
            raise ConfigError(
                f"denoiser: {name} is {shorten(repr(given[name]), 60)}; give whole numbers from {low} to {high}{of}"
            )

    for name, known in (("conditioning", CONDITIONINGS), ("objective", OBJECTIVES)):
        if not isinstance(given[name], str) or given[name] not in known:
            raise ConfigError(
                f"denoiser: {name} {shorten(repr(given[name]), 60)} is unknown; known: {', '.join(known)}"
            )
    whole("num_types", 1, 254)
    for name in ("latent_channels", "vector_channels", "condition_channels"):
        whole(name, 1, 8192)
    whole("latent_factor", 1, 64)
    whole("fold", 1, 8)
    whole("crop_edge", 1, 4096)
    whole("token_channels", 32, 4096, 32)
    whole("channels", 32, 4096, 32)
    whole("blocks", 1, 64)
    levels = [len(given[name]) if isinstance(given[name], list | tuple) else 0 for name in ("channels", "blocks")]
    if levels[0] != levels[1] or not 2 <= levels[0] <= 8:
        raise ConfigError(f"denoiser: channels and blocks name {levels[0]} and {levels[1]} levels; give both 2 to 8")
    if given["latent_factor"] * given["fold"] % MAP_STEP:
        raise ConfigError(f"denoiser: latent_factor times fold must be a multiple of {MAP_STEP}")
    if given["student"] is not None and as_student(given["student"]) and given["objective"] != "flow":
        raise ConfigError(f"denoiser: a student is distilled from flow, not from {given['objective']}")
    for name, least in (("latent_mean", -math.inf), ("latent_std", 0.0)):
        _check_statistics(name, given[name], given["latent_channels"], least)


def _check_statistics(name: str, values: object, channels: int, least: float) -> None:
    if values is None:  # a network that is about to be trained
        return
    numbers = values if isinstance(values, list | tuple) else []
    is_number = [type(v) in (int, float) and math.isfinite(v) and v > least for v in numbers]
    if len(numbers) != channels or not all(is_number):
        kind = "finite numbers above 0" if least == 0 else "finite numbers"
        raise ConfigError(
            f"denoiser: {name} is {shorten(repr(values), 60)}; give {channels} {kind}, one per latent channel"
        )
