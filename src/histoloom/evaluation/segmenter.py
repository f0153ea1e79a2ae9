"""A small segmenter that learns from real patches to read a map off an image: the judge of map fidelity.

A residual U-Net that sees the image at half its size and answers there; the answer is enlarged. Small enough to train
in a quarter of an hour on one core, and fully convolutional, so images of any size can be read.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.augmentation import dihedral
from histoloom.config import build, check_numbers
from histoloom.errors import ConfigError, HistoloomError, InputError, ModelError, OutputError
from histoloom.precision import best_device
from histoloom.stain import StainJitter, apply_stain, draw_stain
from histoloom.tissue import UNLABELLED

SEGMENTER = "segmenter.safetensors"


@dataclass(frozen=True)
class SegmenterConfig:
    """Shape and training of the segmenter."""

    channels: tuple[int, ...] = (16, 32, 64, 128)  # at 1/2, 1/4, 1/8, 1/16 of the edge
    size: int = 192  # px, edge of the training crops; a multiple of 2 ** len(channels)
    steps: int = 800
    batch_size: int = 16
    learning_rate: float = 3e-3  # peak; warms up over a tenth of the steps, then falls to zero as a cosine
    weight_decay: float = 0.02
    balance: float = 0.5  # loss weight of a type ~ share of its pixels ** -balance; 0 weighs all pixels alike
    stain: StainJitter = field(default_factory=StainJitter)
    seed: int = 0

    def __post_init__(self):
        check_numbers(self)
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ConfigError(f"segmenter channels {self.channels} need two levels at least, each with a channel")
        if self.size < 1 or self.size % 2 ** len(self.channels):
            raise ConfigError(f"segmenter size {self.size} must be a multiple of {2 ** len(self.channels)}")
        if min(self.steps, self.batch_size) < 1 or self.learning_rate <= 0:
            raise ConfigError("segmenter steps and batch_size must be 1 or more, learning_rate positive")
        if self.weight_decay < 0 or not 0 <= self.balance <= 1:
            raise ConfigError("segmenter weight_decay must not be negative, balance must lie in [0, 1]")


class Segmenter:
    """A trained network with the number of types it knows."""

    def __init__(self, network: nn.Module, num_types: int, config: SegmenterConfig):
        self.network, self.num_types, self.config = network.eval(), num_types, config

    @torch.inference_mode()
    def predict(self, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 16) -> UInt8[np.ndarray, "n h w"]:
        """The likeliest type of every pixel; images of any size."""
        maps = np.empty(images.shape[:3], np.uint8)
        for start in range(0, len(images), batch_size):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
            logits = self._logits(part.to(next(self.network.parameters()).device))
            maps[start : start + batch_size] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return maps

    def _logits(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        stride = 2 ** len(self.config.channels)
        pixels = F.pad(_pixels(images), (0, -width % stride, 0, -height % stride), mode="replicate")
        logits = F.interpolate(self.network(pixels), scale_factor=2, mode="bilinear", align_corners=False)
        return logits[:, :, :height, :width]


def train_segmenter(
    images: UInt8[np.ndarray, "n h w 3"],
    semantic_maps: UInt8[np.ndarray, "n h w"],
    num_types: int,
    config: SegmenterConfig,
    on_step: Callable[[int, float], None] | None = None,
) -> Segmenter:
    """Learn to read `semantic_maps` off `images`; pixels of 255 teach nothing. Same seed, same segmenter.

    `on_step(step, loss)` is called after each step, counted from 1. Raises InputError where arrays do not fit,
    ConfigError where patches are smaller than `config.size`, HistoloomError where the loss is no longer finite.
    """
    _check(images, semantic_maps, num_types, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _UNet(config.channels, num_types)
    device = best_device()
    network.to(device, memory_format=torch.channels_last)
    weights = torch.from_numpy(_type_weights(semantic_maps, num_types, config.balance)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps + 1, pct_start=0.1, cycle_momentum=False
    )
    for step in range(config.steps):
        batch_images, batch_maps = (part.to(device) for part in _batch(images, semantic_maps, step, config))
        logits = network(_pixels(batch_images).contiguous(memory_format=torch.channels_last))
        # The answer lies on the half-size grid, so every second pixel of the map is its truth.
        loss = F.cross_entropy(logits, batch_maps[:, ::2, ::2].long(), weights, ignore_index=UNLABELLED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if not torch.isfinite(loss):
            raise HistoloomError(f"the segmenter's loss is not finite at step {step + 1}; lower its learning_rate")
        if on_step:
            on_step(step + 1, loss.item())
    return Segmenter(network, num_types, config)


def save_segmenter(segmenter: Segmenter, folder: Path | str) -> Path:
    """Write `segmenter.safetensors` into `folder`, with its configuration as JSON in the header; returns its path."""
    path = Path(folder) / SEGMENTER
    aside = path.with_suffix(".partial")
    header = {"num_types": str(segmenter.num_types), "config": json.dumps(asdict(segmenter.config), sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.cpu().contiguous() for k, v in segmenter.network.state_dict().items()}, aside, metadata=header)
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path}: cannot write the segmenter ({error}); free some space or choose another folder"
        ) from None
    return path


def load_segmenter(folder: Path | str) -> Segmenter:
    """Read what `save_segmenter` wrote; raises ModelError with file and cure."""
    path = Path(folder) / SEGMENTER
    if not path.is_file():
        raise ModelError(f"{path}: no segmenter there; train one on real patches first")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        values = json.loads(header["config"])
        config = build(SegmenterConfig, values, str(path))
        network = _UNet(config.channels, int(header["num_types"]))
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: not a segmenter of this version ({reason}); train it again") from None
    return Segmenter(network, int(header["num_types"]), config)


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels, 3), nn.ReLU(), _conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class _UNet(nn.Module):
    """Pixels `b 3 h w` -> logits `b k h/2 w/2`; the levels are joined by addition."""

    def __init__(self, channels: tuple[int, ...], num_types: int):
        super().__init__()
        steps = list(pairwise(channels))
        self.stem = nn.Sequential(nn.AvgPool2d(2), _conv(3, channels[0], 3), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.PixelUnshuffle(2), _conv(4 * fine, coarse, 1), nn.ReLU(), _Block(coarse), _Block(coarse))
            for fine, coarse in steps
        )
        self.up = nn.ModuleList(nn.Sequential(_conv(coarse, 4 * fine, 1), nn.PixelShuffle(2)) for fine, coarse in steps)
        self.join = nn.ModuleList(_Block(fine) for fine, _ in steps)
        self.head = nn.Conv2d(channels[0], num_types, 1)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h/2 w/2"]:
        levels = [self.stem(pixels)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = join(F.relu(levels.pop() + up(x)))
        return self.head(x)


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def _pixels(images: Tensor) -> Tensor:
    return images.movedim(-1, 1).to(torch.float32) / 127.5 - 1


def _batch(images: np.ndarray, maps: np.ndarray, step: int, config: SegmenterConfig) -> tuple[Tensor, Tensor]:
    drawn = [_draw(images, maps, n, config) for n in range(step * config.batch_size, (step + 1) * config.batch_size)]
    return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True))


def _draw(images: np.ndarray, maps: np.ndarray, n: int, config: SegmenterConfig) -> tuple[np.ndarray, np.ndarray]:
    """Sample n of a run: a random part of a random patch, turned, mirrored and restained."""
    rng = np.random.default_rng((config.seed, n))
    index, size = rng.integers(len(images)), config.size
    y, x = (rng.integers(edge - size + 1) for edge in images.shape[1:3])
    which = int(rng.integers(8))
    image, semantic_map = (dihedral(a[index, y : y + size, x : x + size], which) for a in (images, maps))
    return apply_stain(image, draw_stain(config.stain, rng)), semantic_map


def _type_weights(maps: np.ndarray, num_types: int, balance: float) -> Float[np.ndarray, " k"]:
    counts = np.bincount(maps.ravel(), minlength=256)[:num_types]
    weights = np.where(counts > 0, np.maximum(counts, 1) / counts.sum(), 1.0) ** -balance
    return (weights / (weights * counts).sum() * counts.sum()).astype(np.float32)


def _check(images: np.ndarray, maps: np.ndarray, num_types: int, config: SegmenterConfig) -> None:
    if images.shape[:3] != maps.shape:
        raise InputError(
            f"images {images.shape} and maps {maps.shape} differ in number or size; give one map per image"
        )
    if len(images) == 0 or (maps == UNLABELLED).all():
        raise InputError("no labelled patch to train the segmenter on")
    if (largest := int(maps[maps != UNLABELLED].max())) >= num_types:
        raise InputError(f"a map holds tissue id {largest}, but the segmenter was asked to know {num_types} types")
    if min(images.shape[1:3]) < config.size:
        raise ConfigError(f"patches are {images.shape[1:3]} px, smaller than segmenter size {config.size}")
