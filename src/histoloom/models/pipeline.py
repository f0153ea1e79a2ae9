"""One pipeline: a semantic map and crops in, an annotated patch out. Saved and loaded like any diffusers pipeline."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ModelMixin, SchedulerMixin
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from histoloom.conditioning.crops import place_crops
from histoloom.conditioning.inputs import Crop, canvas, no_map, pack_crops, type_map
from histoloom.errors import InputError, ModelError
from histoloom.models.autoencoder import decode, quietly, to_images, weights_hash
from histoloom.models.crop_encoder import embed_crops
from histoloom.models.denoiser import Conditions, Context, Denoiser, with_validity
from histoloom.models.guidance import Guidance, Shown
from histoloom.models.schedulers import make_sampler, noise_shares
from histoloom.precision import best_device, bf16_is_faster
from histoloom.tissue import TissueTable

SemanticMap = np.ndarray | Image.Image
CropsByType = dict[int | str, np.ndarray | Image.Image | list[np.ndarray | Image.Image]]
Calls = list[tuple[list[float], Context]]  # weights, and the contexts that one call of the denoiser reads

TOGETHER = 3200  # places, over samples and contexts: up to here one call for all contexts is the faster on a CPU


class HistoloomPipeline(DiffusionPipeline):
    """Weaves H&E patches that follow a semantic map and crops.

    `tissue` are the rows of the tissue table (id, name, color), so that a saved model knows its own types; `copy_limit`
    is how alike a patch and its crops may be (`histoloom.conditioning.likeness`), None where that is not known.
    """

    model_cpu_offload_seq = "denoiser->autoencoder"

    def __init__(
        self,
        autoencoder: ModelMixin,
        denoiser: Denoiser,
        scheduler: SchedulerMixin,
        tissue: list[dict] | None = None,
        copy_limit: float | None = None,
    ):
        super().__init__()
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(tissue=tissue, copy_limit=copy_limit)

    @classmethod
    @quietly()
    def load(cls, folder: Path | str, dtype: torch.dtype | None = None) -> "HistoloomPipeline":
        """Open a saved model from a folder or hub name, on the GPU where there is one; raises ModelError with the cure.

        `dtype` None takes bf16 where this machine is faster in it, else fp32. Pickled weights are refused.
        """
        dtype = dtype or (torch.bfloat16 if bf16_is_faster() else torch.float32)
        device = best_device()
        try:
            pipeline = cls.from_pretrained(str(folder), use_safetensors=True).to(device, dtype)
        except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = _reason(folder, error)
            raise ModelError(
                f"{folder}: not a Histoloom model with safetensors weights ({reason}); train one with `histoloom train`"
            ) from None
        limit = pipeline.config.copy_limit
        if limit is not None and not (isinstance(limit, int | float) and 0 < limit <= 1):
            raise ModelError(
                f"{folder}/model_index.json: copy_limit {limit!r} must lie above 0 and at 1 at most; take the "
                "line out, and the model has none"
            )
        # Mapped weights start at any byte, and CPU kernels round by alignment: copies weave what the saved model wove.
        for parameter in (*pipeline.autoencoder.parameters(), *pipeline.denoiser.parameters()):
            parameter.data = parameter.data.clone()
        return pipeline

    @property
    def table(self) -> TissueTable:
        """The tissue types that this model knows."""
        return TissueTable.from_rows(list(self.config.tissue))

    @property
    def fingerprint(self) -> str:
        """Hash of all weights, the same in whatever precision they were loaded."""
        return weights_hash(self.autoencoder, self.denoiser)

    @torch.no_grad()
    def __call__(
        self,
        semantic_map: SemanticMap | Sequence[SemanticMap],
        crops: Sequence[Sequence[Crop] | CropsByType] | Sequence[Crop] | CropsByType | None = None,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        map_guidance: float = 1.5,
        crop_guidance: float = 3.0,
        guidance_interval: tuple[float, float] = (0.4, 0.9),
        seed: int | Sequence[int] = 0,
        batch_size: int = 8,
        callback: Callable[[int, int], None] | None = None,
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Weave one patch per map.

        semantic_map  uint8 `h w` of tissue ids (255 = unlabelled), one or many; arrays or PIL images ("L" or "P").
        crops         for each map: a list of `Crop`, or a dict from tissue id or name to one picture or a list of them
                      (RGB, any size from 24 px up). Types without a crop are free; a crop whose tissue is not on its
                      map is refused. One entry serves all maps if only one is given. None leaves all crops out.
        steps         of the sampler; None takes the sampler's usual number.
        sampler       see `histoloom.models.schedulers`; None takes the one the model was saved with.
        map_guidance, crop_guidance
                      1 follows the condition as learned, above 1 exaggerates it, 0 leaves it out:
                      v = v_00 + map (v_m0 - v_00) + crop (v_mc - v_m0).
        guidance_interval
                      shares of noise, from 0 (the patch) to 1 (all noise), between which guidance above 1 acts; at
                      others conditions are followed as learned, by one prediction a step (Kynkaanniemi et al. 2024).
        seed          one seed (patch i gets seed + i), or one per map. Its batch moves the last bit at most.
        callback      called as callback(patches_done, patches) after each batch.

        Returns uint8 `b h w 3`. Raises InputError for a map or crop that does not fit the model, ConfigError for a
        sampler or guidance that does not.
        """
        maps = self._as_maps(semantic_map)
        per_map = self._as_crops(crops, maps)
        seeds = [int(seed) + i for i in range(len(maps))] if isinstance(seed, Integral) else [int(s) for s in seed]
        if len(seeds) != len(maps) or min(seeds) < 0:
            raise InputError(f"got seeds {seeds[:3]} for {len(maps)} maps; give one of 0 or more, or one per map")
        if batch_size < 1 or (steps is not None and steps < 1):
            raise InputError(f"got batch_size {batch_size} and steps {steps}; both must be 1 or more")
        scheduler, usual = make_sampler(self.denoiser.config.objective, sampler)
        if sampler is None:
            scheduler = self.scheduler
        guidance = Guidance(map_guidance, crop_guidance, guidance_interval)
        woven = []
        for part in _batches(maps, batch_size):
            woven += self._weave(maps[part], per_map[part], seeds[part], scheduler, steps or usual, guidance)
            if callback:
                callback(len(woven), len(maps))
        return np.stack(woven)

    def _weave(
        self,
        maps: list[np.ndarray],
        crops: list[list[Crop]],
        seeds: list[int],
        scheduler: SchedulerMixin,
        steps: int,
        guidance: Guidance,
    ) -> list[np.ndarray]:
        rows, columns = self._margins(maps[0].shape)
        height, width = maps[0].shape
        whole = height + sum(rows), width + sum(columns)
        kind = self.denoiser.config.conditioning
        weights = {acts: guidance.weights(kind, any(crops), acts) for acts in (True, False)}
        contexts = {
            (with_map, with_crops): self._read(maps, crops if with_crops else [[]] * len(maps), with_map, seeds)
            for with_map, with_crops in weights[True] | weights[False]
        }
        draws = [np.random.default_rng(seed) for seed in seeds]
        latents = self._noise(draws, whole)
        scheduler.set_timesteps(steps, device=latents.device)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        calls = {acts: self._calls(mine, contexts, latents[:, 0].numel()) for acts, mine in weights.items()}
        shares = noise_shares(scheduler, self.denoiser.config.objective)
        for t, share in zip(scheduler.timesteps, shares, strict=True):
            # The paper samples with eta 1: fresh noise at every step, here from the patch's own seed.
            is_ddim = isinstance(scheduler, DDIMScheduler)
            fresh = {"eta": 1.0, "variance_noise": self._noise(draws, whole)} if is_ddim else {}
            predicted = self._predict(latents, t, calls[guidance.acts(share)])
            latents = scheduler.step(predicted, t, latents, return_dict=False, **fresh)[0]
        pixels = decode(self.autoencoder, self._denormalise(latents).to(self.autoencoder.dtype))
        images = to_images(pixels.float())[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]
        return list(images.cpu().numpy())

    def _predict(self, latents: Tensor, t: Tensor, calls: Calls) -> Tensor:
        """The weighted sum of what is predicted in each context; one call per entry, for all contexts joined in it."""
        dtype, total = self.denoiser.dtype, 0
        time = (t / 1000).to(latents.device, torch.float32)
        for weights, context in calls:
            repeated = latents.to(dtype).repeat(len(weights), 1, 1, 1)
            predicted = self.denoiser(repeated, time.expand(len(repeated)), context).float().chunk(len(weights))
            total = total + sum(weight * part for weight, part in zip(weights, predicted, strict=True))
        return total

    def _calls(self, weights: dict[Shown, float], contexts: dict[Shown, Context], places: int) -> Calls:
        """What a step computes: all contexts in one call where they are few, else one after the other."""
        mine = [contexts[shown] for shown in weights]
        if len(mine) * places <= TOGETHER:
            return [(list(weights.values()), Context.batch(mine))]
        return [([weight], context) for weight, context in zip(weights.values(), mine, strict=True)]

    def _read(self, maps: list[np.ndarray], crops: list[list[Crop]], with_map: bool, seeds: list[int]) -> Context:
        # One by one: how far crops are padded must follow from a patch's own crops, not from its batch.
        samples = zip(maps, crops, seeds, strict=True)
        return Context.batch([self.denoiser.read(self._conditions(m, c, with_map, s)) for m, c, s in samples])

    def _conditions(self, semantic_map: np.ndarray, crops: list[Crop], with_map: bool, seed: int) -> Conditions:
        config, device = self.denoiser.config, self.denoiser.device
        if config.conditioning == "unconditional":
            return Conditions()
        types, margins = config.num_types, self._margins(semantic_map.shape)
        padded = np.pad(semantic_map, margins, mode="edge")
        grid = type_map(padded, types) if with_map else no_map(*padded.shape, types)
        conditions = Conditions(type_map=torch.from_numpy(grid).long().to(device)[None])
        if config.conditioning == "crops-in-place":
            shown = [crop for crop in crops if crop.texture]  # what is put in place shows more than its colours
            placed = place_crops(semantic_map, shown, np.random.default_rng(seed))
            pixels, valid = canvas(semantic_map.shape, placed)
            pixels, valid = np.pad(pixels, (*margins, (0, 0))), np.pad(valid, margins)
            conditions.canvas = self._float(pixels[None], valid[None])
        elif config.conditioning != "map" and (packed := pack_crops([crops], config.crop_edge)) is not None:
            conditions.crops = self._float(packed.pixels, packed.valid)
            conditions.crop_types = torch.from_numpy(packed.types).to(device)
            conditions.crop_samples = torch.from_numpy(packed.samples).to(device)
            conditions.crop_textured = torch.from_numpy(packed.textured).to(device)
            if config.conditioning == "embedding":
                vectors = embed_crops(self.autoencoder, conditions.crops.to(self.autoencoder.dtype))
                conditions.crop_vectors = vectors.to(self.denoiser.dtype)
        return conditions

    def _float(self, pixels: np.ndarray, valid: np.ndarray) -> Float[Tensor, "m 4 h w"]:
        return with_validity(torch.from_numpy(pixels), torch.from_numpy(valid)).to(
            self.denoiser.device, self.denoiser.dtype
        )

    def _noise(self, draws: list[np.random.Generator], shape: tuple[int, int]) -> Float[Tensor, "b c h w"]:
        config = self.denoiser.config
        size = (config.latent_channels, shape[0] // config.latent_factor, shape[1] // config.latent_factor)
        drawn = [draw.standard_normal(size, dtype=np.float32) for draw in draws]
        return torch.from_numpy(np.stack(drawn)).to(self.denoiser.device)

    def _denormalise(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        mean, std = (
            torch.tensor(v, device=latents.device)
            for v in (self.denoiser.config.latent_mean, self.denoiser.config.latent_std)
        )
        return latents * std[:, None, None] + mean[:, None, None]

    def _margins(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """Px that are woven beyond a map, above and below, left and right, and cut off again: up to the network's
        multiple, and a cell at least, since along the rim of its grid the network draws speckles."""
        cell, multiple = self.denoiser.cell, self.denoiser.multiple
        beyond = [2 * cell + -(edge + 2 * cell) % multiple for edge in shape]
        return [(both // 2, both - both // 2) for both in beyond]

    def _as_maps(self, semantic_map: SemanticMap | Sequence[SemanticMap]) -> list[UInt8[np.ndarray, "h w"]]:
        if isinstance(semantic_map, Image.Image) or (isinstance(semantic_map, np.ndarray) and semantic_map.ndim == 2):
            semantic_map = [semantic_map]
        maps = [np.asarray(m) for m in semantic_map]
        if not maps:
            raise InputError("got no semantic map; give one or more")
        for index, m in enumerate(maps):
            if m.ndim != 2 or m.dtype != np.uint8 or not m.size:
                raise InputError(
                    f"semantic map {index}: expected uint8 of shape h w, found {m.dtype} of shape {m.shape}"
                )
            self.table.check(m, f"semantic map {index}")
        if len({m.shape for m in maps}) != 1:
            raise InputError(
                f"semantic maps differ in size ({sorted({m.shape for m in maps})[:3]}); weave one size per call"
            )
        return maps

    def _as_crops(self, crops: object, maps: list[np.ndarray]) -> list[list[Crop]]:
        if crops is None:
            return [[] for _ in maps]
        shared = isinstance(crops, dict) or all(isinstance(crop, Crop) for crop in crops)
        if not shared and len(crops) != len(maps):
            raise InputError(
                f"got crops for {len(crops)} maps, but {len(maps)} maps; give one list of crops, or one per map"
            )
        given = [crops] if shared else crops
        known = [_from_dict(mine, self.table) if isinstance(mine, dict) else list(mine) for mine in given]
        for mine, shown in zip(known, [maps] if shared else [[m] for m in maps], strict=True):
            _check_crops(mine, shown, self.table)
        return known * len(maps) if shared else known


def _reason(folder: Path | str, error: Exception) -> str:
    is_hub_name = str(folder).count("/") == 1 and not Path(folder).is_absolute()
    if not (Path(folder).exists() or is_hub_name):
        return "no such folder"
    # diffusers goes on with advice that does not apply here.
    return str(error).strip().splitlines()[0].split(". If you want")[0]


def _check_crops(crops: list[Crop], maps: list[np.ndarray], table: TissueTable) -> None:
    names = {tissue.id: tissue.name for tissue in table.types}
    for crop in crops:
        if crop.tissue not in names:
            raise InputError(f"{crop.source or 'crop'}: is of tissue {crop.tissue}; the model knows {table.ids}")
        if not any((m == crop.tissue).any() for m in maps):
            raise InputError(
                f"{crop.source or 'crop'}: is of {names[crop.tissue]!r}, which is not on the semantic map; "
                "leave the crop out, or draw its tissue"
            )


def _from_dict(crops: CropsByType, table: TissueTable) -> list[Crop]:
    found = []
    for key, pictures in crops.items():
        tissue = table.find(key).id if isinstance(key, str) else int(key)
        for picture in pictures if isinstance(pictures, list | tuple) else [pictures]:
            pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise InputError(f"crop of {key!r}: expected uint8 h w 3, found {pixels.dtype} {pixels.shape}")
            found.append(Crop(pixels, tissue, f"crop of {key}"))
    return found


def _batches(items: list, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, len(items), size))
