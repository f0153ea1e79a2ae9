"""A DeepLabv3+ that learns to read maps off patches, from one training set or from several in turns."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from histoloom.config import check_numbers
from histoloom.encoders.encoder import short_name
from histoloom.encoders.small import SMALL, load_small_encoder, weights_path
from histoloom.errors import ConfigError, MissingExtraError, ModelError
from histoloom.evaluation.sources import ImageSet
from histoloom.evaluation.type_weights import labeled_loss, type_weights
from histoloom.fitting.loop import LoopConfig, fit
from histoloom.fitting.samples import draw_part, stack, to_pixels
from histoloom.precision import Precision, resolved
from histoloom.progress import SILENT, Bar
from histoloom.records import fingerprint
from histoloom.stain import StainJitter

STRIDE = 32  # px that the network halves five times at most
LEAST_STAGES, MOST_STAGES = 3, 5  # of the backbone of a DeepLabv3+; each halves the edge
ADAPTED_TO = 512  # images at most
RANDOM, IMAGENET = "random", "imagenet"


@dataclass(frozen=True, kw_only=True)
class DownstreamConfig:
    """One budget for all training sets."""

    backbone: str = "tu-tf_efficientnet_lite0"  # any encoder of segmentation-models-pytorch
    start: str = SMALL  # weights of the backbone: random, imagenet (downloaded), or those of a small encoder
    size: int = 192  # px, edge of the training crops; a multiple of 32
    steps: int = 400
    batch_size: int = 8
    learning_rate: float = 1e-3  # peak; warms up over a tenth of the steps, then falls as a cosine
    weight_decay: float = 0.01
    balance: float = 0.5  # loss weight of a type ~ share of its pixels ** -balance; 0 weighs all pixels equally
    in_turns: bool = True  # samples of several sources mixed; False: one source after the other, in equal shares
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    precision: Precision = "auto"  # of training; auto: bf16 where the hardware is faster in it
    stain: StainJitter = field(default_factory=lambda: StainJitter(shift=0.015))

    def __post_init__(self):
        check_numbers(self)
        if self.size < STRIDE or self.size % STRIDE:
            raise ConfigError(f"size {self.size} must be a multiple of {STRIDE}")
        if self.batch_size < 2 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("batch_size must be 2 or more; seeds must be one or more, all different")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"balance {self.balance} must be in [0, 1]")
        for seed in self.seeds:
            self.loop(seed)

    def identity(self) -> dict:
        """All that decides a network besides its data, for records and reports: no path, the weights by their content.

        Raises OSError for weights that cannot be read.
        """
        weights = weights_path(self.start)
        start = {"start": short_name(self.start), "start_weights": None if weights is None else fingerprint(weights)}
        return asdict(self) | start | {"precision": resolved(self.precision)}

    def loop(self, seed: int) -> LoopConfig:
        """How one network is trained, in terms of the training loop."""
        return LoopConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=self.steps // 10,
            weight_decay=self.weight_decay,
            average_decay=0.0,
            precision=self.precision,
            workers=0,
            seed=seed,
        )


class DeepLabObjective(nn.Module):
    """Batch of images `b h w 3` and maps `b h w`, uint8 -> cross-entropy; pixels of 255 do not count."""

    def __init__(self, network: nn.Module, weights: Float[np.ndarray, " k"]):
        super().__init__()
        self.network = network
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.network(to_pixels(batch["images"])).float()
        return {"loss": labeled_loss(logits, batch["maps"].long(), self.get_buffer("weights"))}


@dataclass(frozen=True)
class SourceSampler:
    """Sample n: a random part of a patch, turned, mirrored and restained; of the source whose turn it is."""

    sources: Sequence[ImageSet]
    config: DownstreamConfig
    seed: int

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.seed, n))
        number = len(self.sources)
        total = self.config.steps * self.config.batch_size
        source = self.sources[n % number if self.config.in_turns else n * number // total]
        size = min(self.config.size, *(edge // STRIDE * STRIDE for edge in source.images.shape[1:3]))
        index = int(rng.integers(len(source)))
        image, semantic_map = draw_part(source.images, index, size, self.config.stain, rng, source.maps)
        return {"images": image, "maps": semantic_map}


def train_deeplab(
    sources: Sequence[ImageSet], num_types: int, config: DownstreamConfig, seed: int, bar: Bar = SILENT
) -> nn.Module:
    """A DeepLabv3+ in eval mode, trained on samples of all `sources`.

    The same seed on the same machine gives the same network. `bar` counts steps. Raises ConfigError for an unknown
    backbone, ModelError for weights that are not there or not of the backbone, HistoloomError for a loss that is not
    finite.
    """
    weights = type_weights(np.concatenate([source.maps.ravel() for source in sources]), num_types, config.balance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_network(config, num_types)
        trained = fit(
            DeepLabObjective(network.train(), weights),
            SourceSampler(sources, config, seed),
            stack,
            config.loop(seed),
            on_step=lambda step: bar.advance(1, f"loss {step.losses['loss']:.3f}"),
        )
    assert isinstance(trained, DeepLabObjective)
    return trained.network.eval()


def make_network(config: DownstreamConfig, num_types: int) -> nn.Module:
    """A DeepLabv3+ before training.

    Where a small encoder gives the weights, the backbone ends with its last level, at 1/16 of the edge as a rule: a
    further stage would start at random, and costs more than all the others.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise MissingExtraError("segmentation-models-pytorch", "evaluate") from None
    named = config.start if config.start in (RANDOM, IMAGENET) else None
    encoder = None if named else load_small_encoder(config.start)
    if encoder is not None and config.backbone != f"tu-{encoder.config.backbone}":
        raise ConfigError(
            f"backbone {config.backbone}: {config.start} holds weights of {encoder.config.backbone}; use the "
            f"backbone tu-{encoder.config.backbone}, or another start"
        )
    stages: Any = MOST_STAGES if encoder is None else max(LEAST_STAGES, min(MOST_STAGES, 1 + encoder.config.levels[-1]))
    try:
        network: Any = smp.DeepLabV3Plus(
            config.backbone, stages, encoder_weights="imagenet" if named == IMAGENET else None, classes=num_types
        )
    except KeyError as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"backbone {config.backbone}: segmentation-models-pytorch does not have it ({reason})"
        ) from None
    except Exception as error:  # of whatever smp asked for weights
        if named != IMAGENET:
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"backbone {config.backbone}: its ImageNet weights are not available ({reason})") from None
    if encoder is not None:
        network.encoder.load_state_dict(cast(nn.Module, encoder.backbone).state_dict(), strict=False)
    return network


def adapted(network: nn.Module, images: UInt8[np.ndarray, "n h w 3"], seed: int, batch_size: int = 16) -> nn.Module:
    """A copy of a network whose batch norms take their statistics from `images`, at most 512 of them drawn by `seed`.

    Nothing is learned and no map is read, so unlabeled images do (AdaBN; Li et al. 2016, arXiv 1603.04779). A network
    without batch norms stays as it is. Images are padded as in `predict`. In eval mode.
    """
    chosen = np.random.default_rng(seed).permutation(len(images))[:ADAPTED_TO]
    # Batches count equally, and no norm takes statistics of one value: equal sizes, and a lone image twice.
    chosen = np.resize(chosen, max(2, len(chosen)))
    batches = np.array_split(chosen, -(-len(chosen) // batch_size))
    fresh = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):  # of dropout, which is at work while statistics are taken
        torch.manual_seed(seed)
        update_bn((_as_read(fresh, images[batch]) for batch in batches), fresh)
    return fresh.eval()


@torch.inference_mode()
def predict(
    network: nn.Module, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 16
) -> UInt8[np.ndarray, "n h w"]:
    """The likeliest type of every pixel; edges are padded to multiples of 32."""
    height, width = images.shape[1:3]
    found = []
    for start in range(0, len(images), batch_size):
        logits = network(_as_read(network, images[start : start + batch_size]))
        found.append(logits[:, :, :height, :width].argmax(1).to(torch.uint8).cpu().numpy())
    return np.concatenate(found)


def _as_read(network: nn.Module, images: UInt8[np.ndarray, "n h w 3"]) -> Tensor:
    """The images as a network reads them: on its device, edges padded to multiples of 32."""
    height, width = images.shape[1:3]
    pixels = to_pixels(torch.from_numpy(np.ascontiguousarray(images)).to(next(network.parameters()).device))
    return F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
