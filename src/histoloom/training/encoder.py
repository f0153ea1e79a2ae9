"""Train the small encoder without labels: two views of a patch shall give the same features, no two features the same.

Barlow Twins (Zbontar et al. 2021), the method behind the paper's RN50-BT. Views are turned, mirrored, restained and
cut at other places and scales; stain is shifted a little only, since a report must still see a wrong one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from histoloom.augmentation import dihedral
from histoloom.encoders.small import SMALL, SmallEncoder, SmallEncoderConfig, load_small_encoder
from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig, Progress, fit, identity_of
from histoloom.patches.store import Patches
from histoloom.stain import StainJitter, apply_stain, draw_stain


@dataclass(frozen=True)
class EncoderTraining:
    """How the small encoder is trained."""

    size: int = 96  # px, edge of a view; a multiple of the cells of features wastes no border
    zoom: tuple[float, float] = (0.8, 2.0)  # a view shows this many times its edge, as far as the patch goes
    projector: int = 512  # width of the layers between features and loss, which are thrown away
    redundancy: float = 0.01  # weight of the off-diagonal correlations
    start: str = SMALL  # encoder to begin with: the bundled one, a folder, `imagenet` (timm fetches it), or `random`
    model: SmallEncoderConfig = field(default_factory=SmallEncoderConfig)  # of `imagenet` and `random`
    stain: StainJitter = field(default_factory=lambda: StainJitter(scale=0.1, shift=0.015, brightness=0.03))
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=160, batch_size=64, learning_rate=5e-4, warmup_steps=24, weight_decay=0.01, average_decay=0.97
        )
    )

    def __post_init__(self):
        if self.size < 32:
            raise ConfigError(f"size {self.size} is smaller than the 32 px that an encoder needs")
        if not 0 < self.zoom[0] <= self.zoom[1] or self.projector < 1 or self.redundancy < 0:
            raise ConfigError("zoom must be positive and rise, projector 1 or more, redundancy not negative")
        if self.loop.batch_size < 2:
            raise ConfigError("batch_size must be 2 or more: features are compared within a batch")


def barlow_twins(a: Float[Tensor, "b p"], b: Float[Tensor, "b p"], redundancy: float) -> Float[Tensor, ""]:
    """Distance of the cross-correlation of both views from the identity (Zbontar et al. 2021, equations 1 and 2),
    divided by the width p."""
    correlation = _standardised(a).T @ _standardised(b) / len(a)
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return ((diagonal - 1).square().sum() + redundancy * off_diagonal) / len(correlation)


def starting_encoder(config: EncoderTraining) -> SmallEncoder:
    """The encoder before the first step, as `config.start` names it."""
    if config.start in ("imagenet", "random"):
        return SmallEncoder(config.model, pretrained=config.start == "imagenet")
    return load_small_encoder(config.start)


class EncoderObjective(nn.Module):
    """Batch of two views, uint8 `b h w 3` each -> loss."""

    def __init__(self, config: EncoderTraining):
        super().__init__()
        self.config, width = config, config.projector
        self.encoder = starting_encoder(config)
        self.projector = nn.Sequential(
            nn.Linear(self.encoder.config.dimensions, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        images = torch.cat([batch["first"], batch["second"]]).movedim(-1, 1)
        projected = self.projector(self.encoder(images.float() / 127.5 - 1)).float()
        first, second = projected.chunk(2)
        return {"loss": barlow_twins(first, second, self.config.redundancy)}


@dataclass(frozen=True)
class ViewSampler:
    """Sample n: two views of one random patch."""

    patches: Patches
    config: EncoderTraining

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.config.loop.seed, n))
        image = self.patches.images[rng.integers(len(self.patches))]
        return {"first": self._view(image, rng), "second": self._view(image, rng)}

    def _view(self, image: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
        size, (low, high) = self.config.size, self.config.zoom
        edge = min(round(size * np.exp(rng.uniform(np.log(low), np.log(high)))), *image.shape[:2])
        y, x = (int(rng.integers(length - edge + 1)) for length in image.shape[:2])
        window = Image.fromarray(image[y : y + edge, x : x + edge])
        view = np.asarray(window.resize((size, size), Image.Resampling.BILINEAR))
        return apply_stain(dihedral(view, int(rng.integers(8))), draw_stain(self.config.stain, rng))


def train_encoder(
    patches: Patches, config: EncoderTraining, folder: Path, on_step: Callable[[Progress], None] | None = None
) -> SmallEncoder:
    """Train on `patches`, resuming from `folder`; returns the averaged encoder in eval mode.

    Raises ConfigError for patches that are smaller than a view can be.
    """
    smallest = int(np.ceil(config.size * config.zoom[0]))
    if min(patches.images.shape[1:3]) < smallest:
        raise ConfigError(f"patches are {patches.images.shape[1:3]} px, smaller than the {smallest} px of a view")
    torch.manual_seed(config.loop.seed)
    averaged = fit(
        EncoderObjective(config),
        ViewSampler(patches, config),
        _collate,
        config.loop,
        folder,
        identity_of(config, patches=patches.fingerprint()),
        on_step,
    )
    return averaged.encoder.eval()


def _collate(samples: list[dict]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


def _standardised(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred / (centred.square().mean(0) + 1e-5).sqrt()
