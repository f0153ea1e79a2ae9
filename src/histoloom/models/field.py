"""A field of latents of any size, woven window by window, and decoded as it is finished.

At each step the network predicts overlapping windows, whose results are averaged (MultiDiffusion, Bar-Tal et al. 2023,
arXiv 2302.08113) with weights that fall off to the rims; the windows of each step begin at other places. Samplers work
place by place, so each band of rows has a sampler of its own, with its own history.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from histoloom.conditioning.inputs import Crop
from histoloom.errors import ModelError
from histoloom.models.autoencoder import decode, to_images
from histoloom.models.bands import Band, Grid, sweep
from histoloom.models.conditions import Context
from histoloom.models.denoiser import Denoiser
from histoloom.models.field_noise import BLOCK, field_noise, offset
from histoloom.models.guided import (
    aims_of,
    calls_of,
    clean_latents,
    conditions_of,
    denormalized,
    factors,
    predict,
    weights_of,
)
from histoloom.models.sampling import Sampling, Shown
from histoloom.models.schedulers import Scheduler, noise_shares
from histoloom.models.step_end import WindowEnd
from histoloom.models.windows import Axis, WindowConfig
from histoloom.progress import SILENT, Bar
from histoloom.tissue import UNLABELLED


@dataclass(frozen=True, eq=False)
class Area:
    """What is wanted in one window: its map, the crops to follow, and the share of its type that each crop stands for.

    `shares` has one value per cell of the denoiser; None: crops of a type share it.
    """

    semantic_map: UInt8[np.ndarray, "h w"]
    crops: list[Crop]
    shares: Float[np.ndarray, "m y x"] | None = None


@runtime_checkable
class Ground(Protocol):
    """What a field is woven on."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        ...

    def read(self, y: int, x: int, height: int, width: int) -> Area:
        """The area whose corner is (y, x), in px; beyond the ground, its rim is repeated."""
        ...


class MapGround:
    """A map that is held in memory, with the same crops everywhere."""

    def __init__(self, semantic_map: UInt8[np.ndarray, "h w"], crops: list[Crop]):
        self._map, self._crops = semantic_map, crops
        self.shape: tuple[int, int] = (semantic_map.shape[0], semantic_map.shape[1])

    def read(self, y: int, x: int, height: int, width: int) -> Area:
        """The area whose corner is (y, x), in px; beyond the map, its rim is repeated."""
        rows = np.clip(np.arange(y, y + height), 0, self.shape[0] - 1)
        columns = np.clip(np.arange(x, x + width), 0, self.shape[1] - 1)
        part = self._map[np.ix_(rows, columns)]
        present = set(np.unique(part).tolist())
        return Area(part, [crop for crop in self._crops if crop.tissue in present])


@runtime_checkable
class Known(Protocol):
    """Latents that a field must end with, where `kept` is 1; the share that they have of a place, between 0 and 1."""

    def read(self, top: int, bottom: int) -> tuple[Float[Tensor, "1 c r w"], Float[Tensor, "1 1 r w"]]:
        """Normalized latents, and how far they are kept, of rows `top` to `bottom` of the field."""
        ...


class Field:
    """One large image that is woven on a ground; `pixels` yields it from top to bottom."""

    def __init__(
        self,
        denoiser: Denoiser,
        autoencoder: ModelMixin,
        scheduler: Scheduler,
        sampling: Sampling,
        ground: Ground,
        seed: int,
        windows: WindowConfig | None = None,
        known: Known | None = None,
        watch: WindowEnd | None = None,
    ):
        """`scheduler` and `sampling` are those of `HistoloomPipeline.resolve`; `watch` is called after each window."""
        windows = windows or WindowConfig()
        self.denoiser, self.autoencoder, self.sampling = denoiser, autoencoder, sampling
        self.ground, self.seed, self.known = ground, seed, known
        self._watch, self._watched = watch, 0
        self._margins, self._size = _places(denoiser, ground.shape)
        scheduler.set_timesteps(sampling.steps, device=denoiser.device)
        self._scheduler = scheduler
        self._shares = noise_shares(scheduler, denoiser.objective)
        self._aims = {True: aims_of(denoiser, self._shares, sampling)}
        self._aims[False] = aims_of(denoiser, self._shares, _unguided(denoiser, sampling))
        self._mapless: dict[tuple[int, ...], Context] = {}  # a window without its map reads the same everywhere
        self._grids = [*(self._grid(windows, step) for step in range(len(self._shares))), self._grid(windows)]

    def count(self, first: int = 0) -> int:
        """Windows that weaving the image from px row `first` on takes, over all steps and the decoder."""
        numbers, _ = self._start(first)
        return sum(grid.count(number) for grid, (number, _) in zip(self._grids, numbers, strict=True))

    def pixels(self, first: int = 0, bar: Bar = SILENT) -> Iterator[UInt8[np.ndarray, "r w 3"]]:
        """The rows of the image from px row `first` on, a few at a time; the same whatever `first` is.

        `bar` counts windows. Raises ModelError where the model yields pixels that are not finite.
        """
        (above, _), (left, _) = self._margins
        factor, (height, width) = self.denoiser.latent_factor, self.ground.shape
        bands = self._decoded(first, bar)
        for band in bands:
            assert band.total is not None
            if not band.total.isfinite().all():
                raise ModelError(
                    f"rows {band.top * factor - above} to {band.bottom * factor - above}: pixels are not finite "
                    "numbers; lower the guidance, or replace the weights if it happens with the defaults"
                )
            begin, end = max(first + above, band.top * factor), min(height + above, band.bottom * factor)
            if begin < end:
                rows = to_images(band.total)[0, begin - band.top * factor : end - band.top * factor]
                yield rows[:, left : left + width].cpu().numpy()

    def _decoded(self, first: int, bar: Bar) -> Iterator[Band]:
        """Bands with decoded pixels as their total: all passes, chained."""
        numbers, top = self._start(first)
        bands = self._noise(top)
        for step, (number, needed) in enumerate(numbers[:-1]):
            bands = self._steps(step, sweep(bands, self._grids[step], self._work(step, bar), number, needed))
        return sweep(bands, self._grids[-1], partial(self._decode, bar), *numbers[-1])

    def _start(self, first: int) -> tuple[list[tuple[int, int]], int]:
        """Per pass, the first row of windows and the first row of the field that it finishes; where noise begins."""
        needed = (first + self._margins[0][0]) // self.denoiser.latent_factor
        needed -= needed % BLOCK
        numbers = []
        for grid in reversed(self._grids):
            number, top = grid.start(needed, BLOCK)
            numbers.append((number, needed))
            needed = top
        return numbers[::-1], needed

    def _grid(self, windows: WindowConfig, step: int | None = None) -> Grid:
        """The windows of a step, or of the decoder, whose windows stay where they are."""
        axes, factor, fold = [], self.denoiser.latent_factor, self.denoiser.fold
        unit, scale = self.denoiser.multiple // factor, factor if step is None else 1
        edge = -(-windows.edge // factor // unit) * unit
        stride = max(int(edge * (1 - windows.overlap)) // fold, 1) * fold
        for axis, length in enumerate(self._size):
            moved = 0 if step is None or not windows.jitter else fold * offset(self.seed, step, axis, stride // fold)
            sizes = (length, min(edge, length), stride, moved, unit)
            axes.append(Axis.of(*(scale * size for size in sizes)))
        rows, columns = axes
        return Grid(rows, columns, scale)

    def _noise(self, top: int) -> Iterator[Band]:
        height = self._size[0]
        for row in range(top, height, BLOCK):
            noise = self._draw(0, row, min(BLOCK, height - row))
            sampler = copy.deepcopy(self._scheduler)
            yield Band(row, noise * getattr(sampler, "init_noise_sigma", 1.0), sampler)

    def _draw(self, draw: int, top: int, rows: int) -> Float[Tensor, "1 c r w"]:
        channels = self.denoiser.config["latent_channels"]
        noise = field_noise(self.seed, draw, channels, top // BLOCK, rows, self._size[1])
        return torch.from_numpy(noise).to(self.denoiser.device)[None]

    def _steps(self, step: int, bands: Iterator[Band]) -> Iterator[Band]:
        """Bands after a step, from bands whose prediction is complete."""
        time = self._scheduler.timesteps[step]
        for band in bands:
            rows = band.bottom - band.top
            # The paper samples with eta 1: fresh noise at every step.
            is_ddim = isinstance(band.sampler, DDIMScheduler)
            fresh = {"eta": 1.0, "variance_noise": self._draw(1 + step, band.top, rows)} if is_ddim else {}
            predicted = band.total if self.known is None else self._keep(band, self.known, self._shares[step])
            values = band.sampler.step(predicted, time, band.values, return_dict=False, **fresh)[0]
            yield Band(band.top, values, band.sampler)

    def _keep(self, band: Band, known: Known, share: float) -> Tensor:
        """The prediction of a band, and where latents are known, the one that leads to them from where it is."""
        assert band.total is not None
        latents, kept = known.read(band.top, band.bottom)
        if self.denoiser.objective == "flow":
            leading = (band.values - latents) / share
        else:
            of_latents, of_noise = factors(share)
            leading = (band.values - of_latents * latents) / of_noise
        return torch.lerp(band.total, leading.repeat(1, band.total.shape[1] // leading.shape[1], 1, 1), kept)

    def _work(self, step: int, bar: Bar):
        return partial(self._predict, bar, step)

    @torch.no_grad()
    def _predict(self, bar: Bar, step: int, top: int, left: int, latents: Tensor) -> Tensor:
        """The guided prediction of one window; where nothing is labeled, guidance counts as 1."""
        factor, ((above, _), (before, _)) = self.denoiser.latent_factor, self._margins
        height, width = (edge * factor for edge in latents.shape[2:])
        area = self.ground.read(top * factor - above, left * factor - before, height, width)
        # A student was trained with guidance in every step: it knows by itself where guidance acts.
        acts = self.denoiser.student is not None or self.sampling.acts(self._shares[step])
        labeled = torch.from_numpy((area.semantic_map != UNLABELLED).astype(np.float32)).to(latents.device)
        labeled = F.avg_pool2d(labeled[None, None], factor) if acts else torch.zeros(())
        contexts: dict[Shown, Context] = {}
        predicted = torch.zeros((), device=latents.device)
        for guided, share in ((True, labeled), (False, 1 - labeled)):
            if share.any():
                predicted = predicted + share * self._ask(step, guided, latents, area, contexts)
        bar.advance()
        if self._watch is not None:
            clean = clean_latents(self.denoiser, latents, predicted, self._shares[step])
            place = {"y": top * factor - above, "x": left * factor - before}
            given = {"clean_latents": clean, "number": self._watched, "count": self.count()}
            self._watch(step, self._scheduler.timesteps[step], given | place)
            self._watched += 1
        return predicted

    def _ask(
        self, step: int, guided: bool, latents: Tensor, area: Area, contexts: dict[Shown, Context]
    ) -> Float[Tensor, "1 k h w"]:
        """The prediction of a window with or without guidance; contexts are read once."""
        weights = weights_of(self.denoiser, self.sampling, bool(area.crops), guided)
        for shown in weights.keys() - contexts.keys():
            contexts[shown] = self._read(area, *shown)
        calls = calls_of(weights, contexts, latents[:, 0].numel())
        return predict(self.denoiser, latents, self._scheduler.timesteps[step], calls, self._aims[guided][step])

    def _read(self, area: Area, with_map: bool, with_crops: bool) -> Context:
        shape, mapless = area.semantic_map.shape, not with_map and not with_crops
        if mapless and shape in self._mapless:
            return self._mapless[shape]
        crops, shares = (area.crops, area.shares) if with_crops else ([], None)
        conditions = conditions_of(self.denoiser, self.autoencoder, area.semantic_map, crops, with_map, shares=shares)
        context = self.denoiser.read(conditions)
        if mapless:
            self._mapless[shape] = context
        return context

    @torch.no_grad()
    def _decode(self, bar: Bar, top: int, left: int, latents: Tensor) -> Tensor:
        bar.advance()
        dtype = self.autoencoder.dtype
        return decode(self.autoencoder, denormalized(self.denoiser, latents).to(dtype)).float()


def _places(denoiser: Denoiser, shape: tuple[int, int]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Px that are woven beyond an image on each side, and height and width of the field in places."""
    margins = denoiser.margins(shape)
    height, width = ((edge + sum(both)) // denoiser.latent_factor for edge, both in zip(shape, margins, strict=True))
    return margins, (height, width)


def _unguided(denoiser: Denoiser, sampling: Sampling) -> Sampling:
    """`sampling` with guidance of at most 1, or the least that a student knows."""
    least = {
        name: getattr(denoiser.student, name)[0] if denoiser.student else 0.0
        for name in ("map_guidance", "crop_guidance")
    }
    return replace(sampling, **{name: max(low, min(getattr(sampling, name), 1.0)) for name, low in least.items()})
