"""Train the small encoder without labels: two views of a patch should give equal features that repeat nothing.

Barlow Twins (Zbontar et al. 2021), the method behind the paper's RN50-BT. Views are flipped, rotated, restained, and
cropped at other places and scales. Stain changes only a little, because an evaluation must still notice a wrong one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from histoloom.augmentation import dihedral
from histoloom.config import check_numbers
from histoloom.encoders.encoder import as_encoder
from histoloom.encoders.small import SMALL, SmallEncoder, SmallEncoderConfig, load_small_encoder
from histoloom.errors import ConfigError
from histoloom.fitting.loop import LoopConfig, Step, fit, identity_of
from histoloom.fitting.samples import stack
from histoloom.stain import StainJitter, apply_stain, draw_stain


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """How the small encoder is trained."""

    size: int = 96  # px, edge of a view; a multiple of the stride of the features wastes no border
    zoom: tuple[float, float] = (0.8, 2.0)  # range of the edge that a view shows, in edges; limited by the patch
    projector: int = 512  # width of the layers between features and loss, which are discarded after training
    redundancy: float = 0.01  # weight of the off-diagonal correlations
    start: str = SMALL  # initial encoder: the bundled one, a folder, `imagenet` (timm downloads it), or `random`
    model: SmallEncoderConfig = field(default_factory=SmallEncoderConfig)  # for `imagenet` and `random`
    stain: StainJitter = field(default_factory=lambda: StainJitter(scale=0.1, shift=0.015, brightness=0.03))
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=160, batch_size=64, learning_rate=5e-4, warmup_steps=24, weight_decay=0.01, average_decay=0.97
        )
    )

    def __post_init__(self):
        check_numbers(self)
        if self.size < 32:
            raise ConfigError(f"size {self.size} is smaller than the 32 px that an encoder needs")
        if not 0 < self.zoom[0] <= self.zoom[1] or self.projector < 1 or not self.redundancy >= 0:
            raise ConfigError(
                f"zoom {self.zoom} must be positive and ascending, projector {self.projector} at least 1, redundancy "
                f"{self.redundancy} at least 0"
            )
        if self.loop.batch_size < 2:
            raise ConfigError("batch_size must be at least 2: the loss compares features within a batch")


def barlow_twins(a: Float[Tensor, "b p"], b: Float[Tensor, "b p"], redundancy: float) -> Float[Tensor, ""]:
    """Distance of the cross-correlation of both views from the identity (Zbontar et al. 2021, equations 1 and 2),
    divided by the width p."""
    correlation = _standardized(a).T @ _standardized(b) / len(a)
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


@dataclass(frozen=True, eq=False)
class ViewSampler:
    """Sample n: two views of one random image."""

    images: UInt8[np.ndarray, "n h w 3"]
    config: EncoderTraining

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.config.loop.seed, n))
        image = self.images[rng.integers(len(self.images))]
        return {"first": self._view(image, rng), "second": self._view(image, rng)}

    def _view(self, image: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
        size, (low, high) = self.config.size, self.config.zoom
        edge = min(round(size * np.exp(rng.uniform(np.log(low), np.log(high)))), *image.shape[:2])
        y, x = (int(rng.integers(length - edge + 1)) for length in image.shape[:2])
        window = Image.fromarray(image[y : y + edge, x : x + edge])
        view = np.asarray(window.resize((size, size), Image.Resampling.BILINEAR))
        return apply_stain(dihedral(view, int(rng.integers(8))), draw_stain(self.config.stain, rng))


def train_encoder(
    images: UInt8[np.ndarray, "n h w 3"],
    fingerprint: str,
    config: EncoderTraining,
    folder: Path,
    on_step: Callable[[Step], None] | None = None,
) -> SmallEncoder:
    """Train on `images`, resuming from `folder`, and return the averaged encoder in eval mode.

    `fingerprint` identifies the images: a run on other images is not resumed. Raises ConfigError for images that are
    smaller than a view.
    """
    smallest = int(np.ceil(config.size * config.zoom[0]))
    if min(images.shape[1:3]) < smallest:
        raise ConfigError(f"patches are {images.shape[1:3]} px, smaller than the {smallest} px of a view")
    torch.manual_seed(config.loop.seed)
    objective = EncoderObjective(config)
    start = as_encoder("start", objective.encoder).fingerprint  # the weights, wherever their folder is
    identity = identity_of(replace(config, start=start), patches=fingerprint)
    averaged = fit(objective, ViewSampler(images, config), stack, config.loop, folder, identity, on_step)
    assert isinstance(averaged, EncoderObjective)
    return averaged.encoder.eval()


def _standardized(features: Tensor) -> Tensor:
    centered = features - features.mean(0)
    return centered / (centered.square().mean(0) + 1e-5).sqrt()
