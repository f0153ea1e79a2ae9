"""One pipeline: a semantic map and crops in, an annotated patch out."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, UInt8
from safetensors.torch import load
from torch import Tensor

from histoloom.conditioning.crops import place_crops
from histoloom.conditioning.inputs import Crop, canvas
from histoloom.disk import settle
from histoloom.errors import ModelError
from histoloom.models.arguments import CropsByType, SemanticMap, as_count, as_crops, as_maps, as_seeds, refuse_unknown
from histoloom.models.autoencoder import decode, quietly, to_images, weights_hash
from histoloom.models.conditions import Conditions, Context
from histoloom.models.denoiser import Denoiser
from histoloom.models.field import Field, MapGround
from histoloom.models.guided import (
    aims_of,
    calls_of,
    clean_latents,
    conditions_of,
    denormalized,
    predict,
    shown_pixels,
    weights_of,
)
from histoloom.models.model_files import local_folder
from histoloom.models.sampling import Sampling
from histoloom.models.saved_pipeline import FILES, check_files, check_parts
from histoloom.models.schedulers import S, Scheduler, noise_shares, resolve
from histoloom.models.step_end import StepEnd
from histoloom.precision import NAMES, best_device, bf16_is_faster
from histoloom.progress import SILENT, Bar
from histoloom.tensor_files import save_tensors
from histoloom.tissue import TissueTable

Maps = list[UInt8[np.ndarray, "h w"]]

LARGE = 512  # px: a map with a longer edge is woven window by window
HUB_OPTIONS = {"cache_dir", "revision", "token", "local_files_only", "force_download"}
UPLOAD_OPTIONS = {"repo_id", "commit_message", "private", "create_pr", "token"}


class HistoloomPipeline(DiffusionPipeline):
    """Generates H&E patches that follow a semantic map and crops.

    `tissue` holds the rows of the tissue table (id, name, color), so that a saved model knows its own types.
    `copy_limit` is the similarity of a patch and its crops that `histoloom.weave` does not exceed
    (`histoloom.conditioning.likeness`), `mpp` the scale that it was trained at, in micrometers per pixel; both are None
    where they are unknown. The pipeline itself does not search for copies.

    Open a saved model with `HistoloomPipeline.load`, which checks its files, or `HistoloomPipeline.from_pretrained`.
    `DiffusionPipeline.from_pretrained` does not know this class.
    """

    model_cpu_offload_seq = "denoiser->autoencoder"
    autoencoder: Any  # an autoencoder of diffusers
    denoiser: Denoiser
    scheduler: Scheduler

    def __init__(
        self,
        autoencoder: ModelMixin,
        denoiser: Denoiser,
        scheduler: Scheduler,
        tissue: list[dict] | None = None,
        copy_limit: float | None = None,
        mpp: float | None = None,
    ):
        super().__init__()
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(tissue=tissue, copy_limit=copy_limit, mpp=mpp)
        self._hashed: tuple[tuple, str] = (), ""  # what stands for the weights, and their hash

    @classmethod
    @quietly()
    def load(cls, folder: Path | str, dtype: torch.dtype | None = None) -> "HistoloomPipeline":
        """Open a saved model from a folder or hub name, on the GPU where there is one; raises ModelError with the cure.

        `dtype` None takes bf16 where this machine is faster in it, else fp32. Pickled weights are refused.
        """
        dtype = dtype or (torch.bfloat16 if bf16_is_faster() else torch.float32)
        return cls.from_pretrained(folder).to(best_device(), dtype)

    @classmethod
    @quietly()
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **options: Any) -> "HistoloomPipeline":
        """Open a saved model as diffusers does, with its options, after checks of all its files; raises ModelError."""
        source = pretrained_model_name_or_path
        hub = {name: options.pop(name) for name in HUB_OPTIONS & options.keys()}
        folder = local_folder(source, FILES, **hub)
        check_files(folder)
        try:
            pipeline = super().from_pretrained(str(folder), **options | {"use_safetensors": True})
        except (OSError, ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{source}: cannot be opened as a Histoloom model ({reason})") from None
        check_parts(pipeline, folder)
        # Mapped weights start at any byte, and CPU kernels round by alignment: copies weave what the saved model wove.
        for parameter in (*pipeline.autoencoder.parameters(), *pipeline.denoiser.parameters()):
            parameter.data = parameter.data.clone()
        return pipeline

    def save_pretrained(self, save_directory: Path | str, push_to_hub: bool = False, **options: Any) -> None:
        """Save as diffusers does, with its options, and with a checksum in every file of weights."""
        hub = {name: options.pop(name) for name in UPLOAD_OPTIONS & options.keys()}
        super().save_pretrained(save_directory, **options)
        for path in sorted(Path(save_directory).glob("*/*.safetensors")):
            save_tensors(load(path.read_bytes()), path, {"format": "pt"})  # in memory: the file is overwritten
            settle(path)
        if push_to_hub:  # diffusers would upload before the checksums are written
            repository = hub.pop("repo_id", Path(save_directory).name)
            self.push_to_hub(repository, variant=options.get("variant"), **hub)

    @property
    def table(self) -> TissueTable:
        """The tissue types that this model knows."""
        return TissueTable.from_rows(list(self.config["tissue"]))

    @property
    def copy_limit(self) -> float | None:
        """The similarity of a patch and its crops that `histoloom.weave` does not exceed; None where it is unknown."""
        return self.config["copy_limit"]

    @property
    def mpp(self) -> float | None:
        """Micrometers per pixel that the model was trained at; None where it is unknown."""
        return self.config["mpp"]

    @property
    def computed_in(self) -> str:
        """Precision and kind of device, such as "bf16 on cuda": each weaves other bytes, so records hold them."""
        return f"{NAMES[self.denoiser.dtype]} on {self.denoiser.device.type}"

    @property
    def fingerprint(self) -> str:
        """A hash of all weights, rounded to bf16: the same for a model opened in fp32 or bf16.

        A model opened in fp16 may have another: fp16 does not hold every bf16 value.
        """
        # Each patch names its model, and a hash takes longer than a patch: it is kept while the weights stay.
        tensors = (*self.autoencoder.state_dict().values(), *self.denoiser.state_dict().values())
        if any(tensor.is_inference() for tensor in tensors):  # whose changes are not counted
            return weights_hash(self.autoencoder, self.denoiser)
        weights = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)
        if weights != self._hashed[0]:
            self._hashed = weights, weights_hash(self.autoencoder, self.denoiser)
        return self._hashed[1]

    def resolve(self, sampling: S) -> tuple[Scheduler, S]:
        """The scheduler that `sampling` means for this model, and `sampling` with sampler and steps filled in.

        Calls use it, and records are written from it, so that they cannot differ. Raises ConfigError for a sampler that
        does not fit the model, and for steps or guidance that a distilled model was not trained for.
        """
        if self.denoiser.student is not None:
            sampling = self.denoiser.student.resolve(sampling)
        return resolve(sampling, self.denoiser.samplers, self.scheduler)

    @torch.no_grad()
    def __call__(
        self,
        semantic_map: SemanticMap | Sequence[SemanticMap],
        crops: Sequence[Sequence[Crop] | CropsByType] | Sequence[Crop] | CropsByType | None = None,
        *,
        steps: int | None = Sampling.steps,
        sampler: str | None = Sampling.sampler,
        map_guidance: float = Sampling.map_guidance,
        crop_guidance: float = Sampling.crop_guidance,
        guidance_interval: tuple[float, float] = Sampling.guidance_interval,
        seed: int | Sequence[int] = 0,
        batch_size: int = 8,
        bar: Bar = SILENT,
        callback_on_step_end: StepEnd | None = None,
        **unknown: object,
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Generate one patch per map, without the search for copies that `histoloom.weave` makes.

        semantic_map  one tissue id per pixel, `h w` (255 = unlabeled): one map or several, as integer or bool arrays
                      or tensors, or PIL images ("L" or "P"). An array `n h w` is a batch of maps.
        crops         for each map: a list of `Crop`, or a dict from tissue id or name to one picture or a list of them
                      (RGB, at least 24 px each way). Types without a crop are free; a crop whose tissue is not on its
                      map is refused. A single entry serves all maps. None: no crops.
        steps         of the sampler, 1 to 1000. None: the sampler's usual number.
        sampler       a name in `histoloom.models.schedulers`. None: the one saved with the model.
        map_guidance, crop_guidance
                      1 follows the condition as learned, above 1 exaggerates it, 0 ignores it:
                      v = v_00 + map (v_m0 - v_00) + crop (v_mc - v_m0).
        guidance_interval
                      shares of noise, from 0 (the patch) to 1 (all noise), between which guidance above 1 acts; outside
                      it counts as 1, and a step takes one prediction (Kynkaanniemi et al. 2024).
        seed          one seed (patch i gets seed + i), or one per map. The batch changes the last bit at most.
        batch_size    patches generated at once.
        bar           counts patches.
        callback_on_step_end
                      called after each step, as diffusers does; see `histoloom.models.step_end`. What it raises stops
                      the call.

        Returns uint8 `b h w 3`. Raises InputError for maps, crops or seeds that do not fit, ConfigError for a sampler
        or guidance that does not, ModelError where the model yields pixels that are not finite.
        """
        refuse_unknown(unknown)
        maps = as_maps(semantic_map, self.table)
        per_map = as_crops(crops, maps, self.table)
        seeds = as_seeds(seed, len(maps))
        batch_size = as_count("batch_size", batch_size)
        asked = Sampling(
            steps=None if steps is None else as_count("steps", steps),
            sampler=sampler,
            map_guidance=map_guidance,
            crop_guidance=crop_guidance,
            guidance_interval=guidance_interval,
        )
        scheduler, sampling = self.resolve(asked)
        if self._is_field(maps[0].shape):
            batch_size = 1
        made = []
        for part in _batches(maps, batch_size):
            weave = self._weave_field if self._is_field(maps[0].shape) else self._generate
            made += weave(maps[part], per_map[part], seeds[part], scheduler, sampling, callback_on_step_end)
            bar.advance(len(maps[part]))
        return np.stack(made)

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels in [-1, 1] of latents as the denoiser knows them."""
        return decode(self.autoencoder, denormalized(self.denoiser, latents).to(self.autoencoder.dtype)).float()

    def _generate(
        self,
        maps: Maps,
        crops: list[list[Crop]],
        seeds: list[int],
        scheduler: Scheduler,
        sampling: Sampling,
        step_end: StepEnd | None,
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        rows, columns = self.denoiser.margins(maps[0].shape)
        height, width = maps[0].shape
        whole = height + sum(rows), width + sum(columns)
        weights = {acts: weights_of(self.denoiser, sampling, any(crops), acts) for acts in (True, False)}
        contexts = {
            (with_map, with_crops): self._read(maps, crops if with_crops else [[]] * len(maps), with_map, seeds)
            for with_map, with_crops in weights[True] | weights[False]
        }
        draws = [np.random.default_rng(seed) for seed in seeds]
        latents = self._noise(draws, whole)
        scheduler.set_timesteps(sampling.steps, device=latents.device)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        calls = {acts: calls_of(mine, contexts, latents[:, 0].numel()) for acts, mine in weights.items()}
        shares = noise_shares(scheduler, self.denoiser.objective)
        aims = aims_of(self.denoiser, shares, sampling)
        for step, (t, share, aim) in enumerate(zip(scheduler.timesteps, shares, aims, strict=True)):
            # The paper samples with eta 1: fresh noise at every step, here from the patch's own seed.
            is_ddim = isinstance(scheduler, DDIMScheduler)
            fresh = {"eta": 1.0, "variance_noise": self._noise(draws, whole)} if is_ddim else {}
            predicted = predict(self.denoiser, latents, t, calls[sampling.acts(share)], aim)
            before, latents = latents, scheduler.step(predicted, t, latents, return_dict=False, **fresh)[0]
            if step_end is not None:
                clean = clean_latents(self.denoiser, before, predicted, share)
                given = {"latents": latents, "clean_latents": clean, "number": step, "count": len(shares)}
                latents = step_end(self, step, t, given).get("latents", latents)
        pixels = self.decode_latents(latents)
        _refuse_not_finite(latents, pixels, seeds)
        images = to_images(pixels)[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]
        return list(images.cpu().numpy())

    def _is_field(self, shape: tuple[int, ...]) -> bool:
        """Whether a map is woven window by window; crops that are pasted at their place need the whole map."""
        return max(shape) > LARGE and not self.denoiser.reads.canvas

    def _weave_field(
        self,
        maps: Maps,
        crops: list[list[Crop]],
        seeds: list[int],
        scheduler: Scheduler,
        sampling: Sampling,
        step_end: StepEnd | None,
    ) -> list[UInt8[np.ndarray, "h w 3"]]:
        """As `_generate`, window by window: memory grows with the width of a map, not with its area."""
        made, watch = [], None if step_end is None else partial(step_end, self)
        for semantic_map, mine, seed in zip(maps, crops, seeds, strict=True):
            ground = MapGround(semantic_map, mine)
            field = Field(self.denoiser, self.autoencoder, scheduler, sampling, ground, seed, watch=watch)
            made.append(np.concatenate(list(field.pixels())))
        return made

    def _read(self, maps: Maps, crops: list[list[Crop]], with_map: bool, seeds: list[int]) -> Context:
        # One by one: how far crops are padded must follow from a patch's own crops, not from its batch.
        samples = zip(maps, crops, seeds, strict=True)
        return Context.batch([self.denoiser.read(self._conditions(m, c, with_map, s)) for m, c, s in samples])

    def _conditions(
        self, semantic_map: UInt8[np.ndarray, "h w"], crops: list[Crop], with_map: bool, seed: int
    ) -> Conditions:
        """The conditions of one sample, as far as this conditioning reads them."""
        margins = self.denoiser.margins(semantic_map.shape)
        in_place = self._canvas(semantic_map, crops, seed) if self.denoiser.reads.canvas else None
        padded = np.pad(semantic_map, margins, mode="edge")
        return conditions_of(self.denoiser, self.autoencoder, padded, crops, with_map, in_place)

    def _canvas(self, semantic_map: UInt8[np.ndarray, "h w"], crops: list[Crop], seed: int) -> Float[Tensor, "1 4 y x"]:
        """Crops in place; those without texture are left out, since a pasted crop shows more than its colors."""
        margins = self.denoiser.margins(semantic_map.shape)
        placed = place_crops(semantic_map, [c for c in crops if c.texture], np.random.default_rng(seed))
        pixels, valid = canvas(semantic_map.shape, placed)
        pixels, valid = np.pad(pixels, (*margins, (0, 0))), np.pad(valid, margins)
        return shown_pixels(self.denoiser, pixels[None], valid[None])

    def _noise(self, draws: list[np.random.Generator], shape: tuple[int, int]) -> Float[Tensor, "b c h w"]:
        factor = self.denoiser.latent_factor
        size = (self.denoiser.config["latent_channels"], shape[0] // factor, shape[1] // factor)
        drawn = [draw.standard_normal(size, dtype=np.float32) for draw in draws]
        return torch.from_numpy(np.stack(drawn)).to(self.denoiser.device)


def _refuse_not_finite(latents: Tensor, pixels: Tensor, seeds: list[int]) -> None:
    """Raise ModelError naming the first patch that holds nan or infinity: as bytes it would be black."""
    finite = latents.isfinite().flatten(1).all(1) & pixels.isfinite().flatten(1).all(1)
    if not finite.all():
        index = int((~finite).nonzero()[0])
        raise ModelError(
            f"patch {index} of {len(seeds)} in its batch (seed {seeds[index]}): its pixels are not finite numbers; "
            "lower the guidance, or replace the weights if it happens with the defaults"
        )


def _batches(items: list, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, len(items), size))
