"""Train the denoiser on cached latents, maps and crops.

Maps and crops are left out for some samples, so that sampling can guide by either.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from histoloom.conditioning.crops import CropConfig, ReferenceCrops, crops_in_place
from histoloom.conditioning.hiding import without_types
from histoloom.conditioning.inputs import canvas, no_map, pack_crops, type_map
from histoloom.conditioning.kinds import CONDITIONINGS, Conditioning
from histoloom.config import check_numbers
from histoloom.discovery.levels import Levels
from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig, Step, fit, identity_of
from histoloom.models.autoencoder import latent_channels, latent_factor, weights_hash
from histoloom.models.conditions import Conditions, with_validity
from histoloom.models.crop_encoder import embed_crops
from histoloom.models.denoiser import Denoiser
from histoloom.patches.store import Patches
from histoloom.progress import SILENT, Bar
from histoloom.stain import StainJitter, apply_stain
from histoloom.training import objective
from histoloom.training.curriculum import Curriculum, coarse_ids, level_at
from histoloom.training.guide import Guide, Weaker, weaker
from histoloom.training.latents import LatentCache, View, cache_latents
from histoloom.training.start import TypeMatch, start_from


@dataclass(frozen=True, kw_only=True)
class DenoiserTraining:
    """How the denoiser is trained."""

    conditioning: Conditioning = "crops-as-reference"
    objective: str = "flow"  # flow, epsilon-l1 (the paper's) or epsilon-l2
    time_mean: float = 0.0  # of flow: times are the sigmoid of a normal draw with this mean; above 0: more noise
    time_spread: float = 1.0  # of flow: standard deviation of that draw
    window: int = 128  # px, edge of the part of a patch that one sample shows
    views: int = 8  # augmented views per patch in the cache of latents
    channels: tuple[int, ...] = (128, 192, 256)  # of the U-Net per level, fine to coarse; multiples of 32
    blocks: tuple[int, ...] = (1, 2, 2)  # per level, on the way down and again on the way up
    map_dropout: float = 0.1  # share of samples without a map
    crop_dropout: float = 0.15  # share of samples without crops; independent of the map's
    texture_dropout: float = 0.1  # share of crops reduced to their colors, so that weaving can do so, too
    crops: CropConfig = field(default_factory=CropConfig)
    stain: StainJitter = field(default_factory=StainJitter)
    curriculum: Curriculum | None = None  # for nested types: maps from coarse to fine
    guide: Guide | None = None  # a weaker model to train away from
    hidden: tuple[str, ...] = ()  # types that maps may leave out, such as lumens: the nearest other type is shown
    hidden_share: float = 0.3  # of samples whose maps leave these types out
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=13000, batch_size=16, learning_rate=5e-4, warmup_steps=200)
    )

    def __post_init__(self):
        check_numbers(self)
        shares = ("map_dropout", "crop_dropout", "texture_dropout", "hidden_share")
        if not all(0 <= getattr(self, share) <= 1 for share in shares):
            raise ConfigError(f"{', '.join(shares[:-1])} and {shares[-1]} must be in [0, 1]")
        if not (-5 <= self.time_mean <= 5 and 0 < self.time_spread <= 5):
            raise ConfigError(
                f"time_mean {self.time_mean:g} must be in [-5, 5], time_spread {self.time_spread:g} in (0, 5]"
            )
        if self.objective not in ("flow", "epsilon-l1", "epsilon-l2"):
            raise ConfigError(f"objective {self.objective!r} is unknown; known: flow, epsilon-l1, epsilon-l2")
        if self.objective != "flow" and (self.time_mean, self.time_spread) != (0.0, 1.0):
            raise ConfigError(f"time_mean and time_spread are of objective flow; objective is {self.objective}")
        if not 1 <= self.views <= 4096 or not 8 <= self.window <= 4096:
            raise ConfigError(f"views {self.views} must be in 1 to 4096, window {self.window} in 8 to 4096 px")
        if max(self.channels) > 4096 or max(self.blocks) > 64 or min(self.blocks) < 1:
            raise ConfigError("channels must be at most 4096, blocks in 1 to 64")
        if any(c % 32 for c in self.channels) or len(self.channels) < 2 or len(self.blocks) != len(self.channels):
            raise ConfigError(
                "channels must be multiples of 32, one per level for two levels or more; blocks one per level"
            )


@dataclass(frozen=True)
class WindowSampler:
    """Draws sample n: a window of a view of a patch, with its map, crops, noise and time."""

    patches: Patches
    cache: LatentCache
    references: ReferenceCrops
    config: DenoiserTraining
    num_types: int
    levels: Levels | None = None
    bare: ReferenceCrops | None = None  # chosen from the same patches, whose maps leave out the hidden types

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.config.loop.seed, n))
        index, number = int(rng.integers(len(self.patches))), int(rng.integers(self.config.views))
        view, factor = self.cache.view(index, number), self.cache.factor
        cells, size = self.cache.edge // factor, self.config.window // factor
        row, column = rng.integers(cells - size + 1, size=2)
        latents = self.cache.latents[index, number, :, row : row + size, column : column + size]
        sample: dict = {
            "latents": (latents - self.cache.mean[:, None, None]) / self.cache.std[:, None, None],
            "noise": rng.standard_normal(latents.shape, dtype=np.float32),
            "time_draw": np.float32(self._time_draw(rng)),
        }
        part = int(row) * factor, int(column) * factor, self.config.window
        return sample | self._conditions(index, view, part, self._shown_ids(n), self._references(n), rng)

    def _time_draw(self, rng: np.random.Generator) -> float:
        """What the objective makes a time of."""
        if self.config.objective != "flow":
            return rng.random()
        return self.config.time_mean + self.config.time_spread * rng.standard_normal()

    def _shown_ids(self, n: int) -> np.ndarray:
        """The id that sample n shows for each type: its own, or under a curriculum that of its coarse type."""
        if self.config.curriculum is None or self.levels is None:
            return np.arange(256, dtype=np.uint8)
        step = n // self.config.loop.batch_size
        level = level_at(step, self.levels.counts, self.config.curriculum)
        # A stream of its own, so that a run with a curriculum sees the same windows as one without.
        return coarse_ids(self.levels, level, np.random.default_rng((self.config.loop.seed, n, 1)))

    def _references(self, n: int) -> ReferenceCrops:
        """Where the crops of sample n are chosen from; their maps are the ones that it shows."""
        if self.bare is None:
            return self.references
        # A stream of its own, so that a run without hidden types sees the same windows.
        hides = np.random.default_rng((self.config.loop.seed, n, 3)).random() < self.config.hidden_share
        return self.bare if hides else self.references

    def _conditions(
        self,
        index: int,
        view: View,
        part: tuple[int, int, int],
        ids: np.ndarray,
        references: ReferenceCrops,
        rng: np.random.Generator,
    ) -> dict:
        reads, (height, width) = CONDITIONINGS[self.config.conditioning], (self.config.window,) * 2
        without_map, without_crops = rng.random() < self.config.map_dropout, rng.random() < self.config.crop_dropout
        if not reads.map:
            return {}
        wanted = view.part(references.patches.semantic_maps[index], *part)
        empty = no_map(height, width, self.num_types)
        conditions: dict = {"type_map": empty if without_map else type_map(ids[wanted], self.num_types)}
        if reads.canvas:
            image = apply_stain(view.part(self.patches.images[index], *part), view.stain)
            placed = [] if without_crops else crops_in_place(image, ids[wanted], self.config.crops, rng)
            pixels, valid = canvas((height, width), placed)
            conditions |= {"canvas": pixels, "canvas_valid": valid}
        if reads.attends:
            outside = view.outside(self.patches.semantic_maps[index].shape, *part)
            drawn = [] if without_crops else references.draw(index, outside, wanted, view.stain, rng)
            shown = rng.random(len(drawn)) >= self.config.texture_dropout
            conditions["crops"] = [
                replace(crop, tissue=int(ids[crop.tissue]), texture=bool(texture))
                for crop, texture in zip(drawn, shown, strict=True)
            ]
        return conditions


def collate(samples: list[dict], crop_edge: int = CropConfig.largest) -> dict[str, Tensor]:
    """Stack arrays of one shape; crops of all samples go into one list, with the number of their sample.

    All crops are padded to `crop_edge` px, so that a sample means the same in any batch.
    """
    batch = {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0] if k != "crops"}
    packed = pack_crops([sample.get("crops", []) for sample in samples], crop_edge)
    if packed is not None:
        batch |= {"crop_pixels": torch.from_numpy(packed.pixels), "crop_valid": torch.from_numpy(packed.valid)}
        batch |= {"crop_types": torch.from_numpy(packed.types), "crop_samples": torch.from_numpy(packed.samples)}
        batch |= {"crop_textured": torch.from_numpy(packed.textured)}
    return batch


class DenoiserObjective(nn.Module):
    """Losses of a batch that `collate` made."""

    def __init__(self, denoiser: Denoiser, autoencoder: ModelMixin, guide: Weaker | None = None):
        super().__init__()
        self.denoiser = denoiser
        self._frozen = (autoencoder, guide)  # in a tuple: neither trained nor saved with the denoiser

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        clean, noise, kind = batch["latents"], batch["noise"], self.denoiser.config["objective"]
        if kind == "flow":
            time = objective.logit_normal_time(batch["time_draw"])
            noisy, target = objective.flow(clean, noise, time)
        else:
            time = batch["time_draw"]
            noisy, target = objective.epsilon(clean, noise, time)
        autoencoder, guide = self._frozen
        conditions = read_conditions(batch, self.denoiser, autoencoder)
        prediction = self.denoiser(noisy, time, conditions)
        if guide is not None:
            prediction = guide.mixture(prediction, noisy, time, conditions)
        return {"loss": objective.loss(prediction, target, "l1" if kind == "epsilon-l1" else "l2")}


def read_conditions(batch: dict[str, Tensor], denoiser: Denoiser, autoencoder: ModelMixin) -> Conditions:
    """The conditions of a batch that `collate` made, as the denoiser reads them."""
    crops = with_validity(batch["crop_pixels"], batch["crop_valid"]) if "crop_pixels" in batch else None
    by_vector = crops is not None and denoiser.reads.vectors
    return Conditions(
        type_map=batch["type_map"].long() if "type_map" in batch else None,
        canvas=with_validity(batch["canvas"], batch["canvas_valid"]) if "canvas" in batch else None,
        crops=crops,
        crop_vectors=embed_crops(autoencoder, crops) if by_vector and crops is not None else None,
        crop_types=batch.get("crop_types"),
        crop_samples=batch.get("crop_samples"),
        crop_textured=batch.get("crop_textured"),
    )


def build_denoiser(autoencoder: ModelMixin, config: DenoiserTraining, num_types: int, cache: LatentCache) -> Denoiser:
    """A fresh denoiser for the autoencoder's channels and factor; its cell is 8 px, or one latent if that is larger."""
    channels, factor = latent_channels(autoencoder), latent_factor(autoencoder)
    return Denoiser(
        conditioning=config.conditioning,
        num_types=num_types,
        latent_channels=channels,
        latent_factor=factor,
        fold=max(1, 8 // factor),
        channels=config.channels,
        blocks=config.blocks,
        token_channels=config.channels[1],
        vector_channels=2 * channels,
        crop_edge=config.crops.largest,
        objective=cast(Any, config.objective),
        latent_mean=[round(float(m), 5) for m in cache.mean],
        latent_std=[round(float(s), 5) for s in cache.std],
    )


def prepare(
    patches: Patches,
    num_types: int,
    autoencoder: ModelMixin,
    config: DenoiserTraining,
    latents: Path,
    bar: Bar = SILENT,
    levels: Levels | None = None,
    hidden: tuple[int, ...] = (),
) -> tuple[Denoiser, WindowSampler]:
    """A fresh denoiser and the sampler of its windows; latents are cached in the folder `latents` first."""
    if config.curriculum is not None and levels is None:
        raise ConfigError("a curriculum needs nested types; give their levels, or leave the curriculum out")
    seed = config.loop.seed
    cache = cache_latents(autoencoder, patches, config.views, seed, config.stain, latents, bar)
    torch.manual_seed(seed)
    denoiser = build_denoiser(autoencoder, config, num_types, cache)
    if config.window % denoiser.multiple or config.window > cache.edge:
        raise ConfigError(
            f"window {config.window} must be a multiple of {denoiser.multiple} px and at most {cache.edge} px"
        )
    references = ReferenceCrops(patches, config.crops)
    bare = ReferenceCrops(without_hidden(patches, hidden), config.crops) if hidden else None
    return denoiser, WindowSampler(patches, cache, references, config, num_types, levels, bare)


def without_hidden(patches: Patches, hidden: tuple[int, ...]) -> Patches:
    """The patches with maps that leave out the `hidden` ids."""
    maps = [without_types(semantic_map, hidden) for semantic_map in patches.semantic_maps]
    return replace(patches, semantic_maps=np.stack(maps))


def train_denoiser(
    patches: Patches,
    num_types: int,
    autoencoder: ModelMixin,
    config: DenoiserTraining,
    folder: Path,
    *,
    latents: Path | None = None,
    caching: Bar = SILENT,
    on_step: Callable[[Step], None] | None = None,
    on_checkpoint: Callable[[int, Denoiser], None] | None = None,
    initial: Denoiser | None = None,
    match: TypeMatch | None = None,
    guide: tuple[Denoiser, TypeMatch] | None = None,
    levels: Levels | None = None,
    hidden: tuple[int, ...] = (),
) -> Denoiser:
    """Train on `patches`, resuming from `folder`; returns the averaged denoiser in eval mode.

    Latents are cached in `latents`, by default in `folder`; `caching` counts patches meanwhile. `initial` is a trained
    denoiser whose weights replace the random ones at the start; `match` says which of its types are those of the
    patches, by default those of the same id. `guide` is the model that `config.guide` names, and the same of its types.
    `levels` say how the types are nested, for a curriculum; `hidden` are the ids of the types that `config.hidden`
    names. Raises ModelError for an `initial` of another architecture.
    """
    denoiser, sampler = prepare(patches, num_types, autoencoder, config, latents or folder, caching, levels, hidden)
    if initial is not None:
        start_from(denoiser, initial, match)
    report = None if on_checkpoint is None else (lambda step, averaged: on_checkpoint(step, averaged.denoiser))
    if (guide is None) != (config.guide is None):
        raise ConfigError("a guide needs both its model and its weight; give `guide` and `config.guide`, or neither")
    guided = None if guide is None or config.guide is None else weaker(*guide, denoiser, config.guide.weight)
    named = config if guided is None else replace(config, guide=None)  # known by its weights, wherever it lies
    identity = identity_of(named, patches=patches.fingerprint(), weights=str(sampler.cache.mean.tolist()))
    identity |= {} if initial is None else {"initial": weights_hash(initial)}
    identity |= {} if guided is None else {"guide": f"{guided.weight} {weights_hash(guided.denoiser)}"}
    identity |= {} if match is None or match.is_identity else {"types": str(match)}
    identity |= {} if config.curriculum is None or levels is None else {"levels": str(levels.of.tolist())}
    model, together = DenoiserObjective(denoiser, autoencoder, guided), partial(collate, crop_edge=config.crops.largest)
    averaged = fit(model, sampler, together, config.loop, folder, identity, on_step, report)
    assert isinstance(averaged, DenoiserObjective)
    return averaged.denoiser.eval()
