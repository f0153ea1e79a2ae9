"""Is it useful? A DeepLabv3+ that learned from real, from synthetic, or from both patches, tested on real ones.

Equal steps for every training set, several seeds, one test set. "Mean IoU" is that of `map_fidelity`: pixels pooled
over all test patches (and seeds), one IoU per type, mean over the types present.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.augmentation import dihedral
from histoloom.config import check_numbers
from histoloom.errors import ConfigError, HistoloomError, InputError, MissingExtraError
from histoloom.evaluation.sources import ImageSet
from histoloom.metrics.map_fidelity import confusion, iou, mean_iou_interval, mean_over_present
from histoloom.precision import Precision, best_device, use_bf16
from histoloom.stain import StainJitter, apply_stain, draw_stain
from histoloom.tissue import UNLABELLED

REAL, SYNTHETIC, BOTH = "real", "synthetic", "both"


@dataclass(frozen=True)
class DownstreamConfig:
    """One budget for all training sets."""

    backbone: str = "resnet18"  # any encoder of segmentation-models-pytorch, with random weights
    size: int = 192  # px, edge of the training crops; a multiple of 32
    steps: int = 400
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seeds: tuple[int, ...] = (0, 1, 2)
    precision: Precision = "auto"  # of training; auto: bf16 where the hardware is faster in it
    stain: StainJitter = field(default_factory=lambda: StainJitter(shift=0.015))

    def __post_init__(self):
        check_numbers(self)
        if self.size < 32 or self.size % 32:
            raise ConfigError(f"size {self.size} must be a multiple of 32")
        if self.steps < 1 or self.batch_size < 2 or self.learning_rate <= 0 or not self.seeds:
            raise ConfigError("steps must be 1 or more, batch_size 2 or more, learning_rate positive, seeds not empty")


@dataclass(frozen=True)
class Downstream:
    """How one training set did: mean IoU with its 95 % interval over test cases, IoU per type (nan: not in the test
    set), mean IoU of each seed, test patches."""

    mean_iou: float
    low: float
    high: float
    of_type: tuple[float, ...]
    of_seed: tuple[float, ...]
    n: int


def downstream(
    real: ImageSet,
    fake: ImageSet,
    held: ImageSet,
    num_types: int,
    config: DownstreamConfig,
    on_step: Callable[[int], None] = lambda count: None,
) -> dict[str, Downstream]:
    """Train on `real`, on `fake` and on both (half of each batch's patches from each), test on `held`.

    Raises InputError for sides without maps, cases of `real` in `held`, or fakes woven from maps or crops of `held`.
    """
    check_sets(real, fake, held)
    trained_on = {REAL: [real], SYNTHETIC: [fake], BOTH: [real, fake]}
    results = {}
    for name, sources in trained_on.items():
        counts = []
        for seed in config.seeds:
            network = train_deeplab(sources, num_types, config, seed, on_step)
            counts.append(confusion(predict(network, held.images), held.semantic_maps, num_types))
        results[name] = pooled(counts, held.cases)
    return results


def train_deeplab(
    sources: list[ImageSet], num_types: int, config: DownstreamConfig, seed: int, on_step: Callable[[int], None]
) -> nn.Module:
    """A DeepLabv3+ in eval mode; samples come from all `sources` in turns. Same seed, same
    machine, same network."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise MissingExtraError("segmentation-models-pytorch", "evaluate") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = smp.DeepLabV3Plus(config.backbone, encoder_weights=None, classes=num_types)
        except KeyError as error:
            reason = " ".join(str(error).split())[:120]
            raise ConfigError(f"backbone {config.backbone}: segmentation-models-pytorch has none ({reason})") from None
        device, bf16 = best_device(), use_bf16(config.precision)
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps + 1, pct_start=0.1)
        for step in range(config.steps):
            images, maps = (part.to(device) for part in _batch(sources, step, config, seed))
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                logits = network(_pixels(images))
            loss = F.cross_entropy(logits.float(), maps.long(), ignore_index=UNLABELLED)
            if not torch.isfinite(loss):
                raise HistoloomError(f"the segmenter's loss is not finite at step {step + 1}; lower its learning_rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            on_step(1)
    return network.eval()


@torch.inference_mode()
def predict(
    network: nn.Module, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 16
) -> UInt8[np.ndarray, "n h w"]:
    """The likeliest type of every pixel; edges are padded to multiples of 32."""
    height, width = images.shape[1:3]
    device, found = next(network.parameters()).device, []
    for start in range(0, len(images), batch_size):
        pixels = _pixels(torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(device))
        padded = F.pad(pixels, (0, -width % 32, 0, -height % 32), mode="replicate")
        found.append(network(padded)[:, :, :height, :width].argmax(1).to(torch.uint8).cpu().numpy())
    return np.concatenate(found)


def pooled(counts: list[Int[np.ndarray, "n k k"]], cases: list[str]) -> Downstream:
    """The result of one training set from the confusion matrices of each seed, one per test patch."""
    whole = np.sum(counts, axis=0)
    low, high = mean_iou_interval(whole, cases)
    of_type = iou(whole.sum(axis=0))
    of_seed = tuple(mean_over_present(iou(c.sum(axis=0))) for c in counts)
    return Downstream(mean_over_present(of_type), low, high, tuple(map(float, of_type)), of_seed, len(cases))


def _batch(sources: list[ImageSet], step: int, config: DownstreamConfig, seed: int) -> tuple[Tensor, Tensor]:
    drawn = [_draw(sources, n, config, seed) for n in range(step * config.batch_size, (step + 1) * config.batch_size)]
    return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True))


def _draw(sources: list[ImageSet], n: int, config: DownstreamConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample n of a run: a part of a patch, turned, mirrored and restained."""
    rng = np.random.default_rng((seed, n))
    source = sources[n % len(sources)]
    index, which = int(rng.integers(len(source))), int(rng.integers(8))
    size = min(config.size, *(edge // 32 * 32 for edge in source.images.shape[1:3]))
    y, x = (int(rng.integers(edge - size + 1)) for edge in source.images.shape[1:3])
    image, semantic_map = (
        dihedral(a[index, y : y + size, x : x + size], which) for a in (source.images, source.semantic_maps)
    )
    return apply_stain(image, draw_stain(config.stain, rng)), semantic_map


def _pixels(images: Tensor) -> Tensor:
    return images.movedim(-1, 1).to(torch.float32) / 127.5 - 1


def check_sets(real: ImageSet, fake: ImageSet, held: ImageSet) -> None:
    """Raise InputError for sides without maps, cases of `real` in `held`, or fakes woven from maps or crops of `held`.

    A crop tells the name of the patch that it was cut from; one out of a folder of files tells its file alone.
    """
    for images in (real, fake, held):
        if images.semantic_maps is None:
            raise InputError(f"{images.where}: has no maps; segmenters learn from a dataset or from woven patches")
        if min(images.images.shape[1:3]) < 32:
            raise InputError(f"{images.where}: images are {images.images.shape[1:3]} px; 32 px are needed at least")
    if shared := sorted(set(real.cases) & set(held.cases)):
        raise InputError(f"{held.where}: case {shared[0]!r} is in the training images, too; split by case")
    tested = {*held.names, *held.cases}
    sources = {crop.source for crops in fake.crops for crop in crops}
    for what, names in (("the map of", set(fake.cases)), ("a crop of", sources)):
        if leaked := sorted(names & tested):
            raise InputError(
                f"{fake.where}: woven from {what} {leaked[0]!r} of the test images; weave from maps and crops of split "
                "train only"
            )
