"""Distill the types of an encoder and its clusters into a small classifier, and measure its accuracy.

The paper (arXiv 2509.17847) reports 47 % top-1 over 100 types at about 85 % less cost than its foundation model.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from histoloom.augmentation import dihedral
from histoloom.config import check_numbers
from histoloom.discovery.classifier import Classifier, ClassifierConfig, ViT, Window
from histoloom.discovery.tree import TypeTree
from histoloom.discovery.windows import Assigned, ReadWindow
from histoloom.encoders.encoder import Encoder
from histoloom.errors import ConfigError, InputError
from histoloom.fitting.loop import LoopConfig, Step, fit, identity_of
from histoloom.fitting.samples import stack
from histoloom.progress import SILENT, Bar
from histoloom.stain import StainJitter, apply_stain, draw_stain

BINS = 15  # of confidence, for calibration
BATCH = 128  # windows per prediction when testing


@dataclass(frozen=True)
class Distillation:
    """How the classifier is trained."""

    val_share: float = 0.2  # share of the windows to test on, by case
    most_tested: int = 20_000  # maximum test windows, drawn by the seed if there are more
    balance: float = 0.5  # 0: windows as they are; 1: all types are drawn equally often
    stain: StainJitter = field(default_factory=lambda: StainJitter(scale=0.1, shift=0.015, brightness=0.03))
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=2000, batch_size=64, learning_rate=1e-3, weight_decay=0.05, average_decay=0.99
        )
    )

    def __post_init__(self):
        check_numbers(self)
        if not 0 < self.val_share < 1 or not 0 <= self.balance <= 1:
            raise ConfigError(f"val_share {self.val_share} must be in (0, 1), balance {self.balance} in [0, 1]")
        if self.most_tested < 1:
            raise ConfigError(f"most_tested {self.most_tested} must be at least 1")


@dataclass(frozen=True)
class LevelReport:
    """Accuracy at one level, on cases that training did not see."""

    types: int
    top1: float
    top5: float
    commonest: float  # top-1 of always predicting the most common type of the training windows
    calibration_error: float  # expected |accuracy - confidence| over bins of confidence
    reliability: list[tuple[float, float, int]]  # mean confidence, accuracy and windows of each occupied bin


@dataclass(frozen=True)
class Cost:
    """Cost of one prediction: multiply-adds, and windows per second of one processor core."""

    multiply_adds: int
    windows_per_core_second: float


class ClassifierObjective(nn.Module):
    """Batch of windows, uint8 `b h w 3`, and their types -> cross-entropy."""

    def __init__(self, network: ViT):
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.network(batch["windows"].movedim(-1, 1)).float()
        return {"loss": F.cross_entropy(logits, batch["types"])}


@dataclass(frozen=True, eq=False)
class TypeSampler:
    """Sample n: a window, rotated or flipped and slightly restained, and its type."""

    assigned: Assigned
    chances: Float[np.ndarray, " n"]  # cumulative probability of drawing each window
    read: ReadWindow
    config: Distillation

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.config.loop.seed, n))
        index = int(np.searchsorted(self.chances, rng.random(), side="right"))
        image = self.read(self.assigned.slides[index], *self.assigned.places[index].tolist())
        image = apply_stain(dihedral(image, int(rng.integers(8))), draw_stain(self.config.stain, rng))
        return {"windows": np.ascontiguousarray(image), "types": np.int64(self.assigned.types[index])}


def distill(
    assigned: Assigned,
    tree: TypeTree,
    read: ReadWindow,
    window: Window,
    config: Distillation,
    folder: Path,
    on_step: Callable[[Step], None] | None = None,
) -> Classifier:
    """Train on the windows of all cases that are not held out, resuming from `folder`; returns the averaged classifier.

    Raises InputError where there is only one case, or a type that is not in the tree.
    """
    if len(assigned) == 0 or assigned.types.max() >= len(tree.centroids):
        raise InputError(f"the windows are not assigned to these {len(tree.centroids)} types; cluster them again")
    trained = np.flatnonzero(~assigned.held_out(config.val_share, config.loop.seed))
    chances = np.zeros(len(assigned))
    chances[trained] = _chances(assigned.types[trained], config.balance)
    sampler = TypeSampler(assigned, np.cumsum(chances) / chances.sum(), read, config)
    torch.manual_seed(config.loop.seed)
    network = ViT(config.model, len(tree.centroids))
    marks = {"types": assigned.types.tobytes(), "places": assigned.places.tobytes(), "tree": tree.fingerprint.encode()}
    identity = identity_of(config, window=str(window), **{k: hashlib.sha256(v).hexdigest() for k, v in marks.items()})
    averaged = fit(ClassifierObjective(network), sampler, stack, config.loop, folder, identity, on_step)
    assert isinstance(averaged, ClassifierObjective)
    return Classifier(averaged.network.eval(), tree, window)


def probabilities_of(
    classifier: Classifier,
    assigned: Assigned,
    read: ReadWindow,
    indices: Int[np.ndarray, " m"],
    bar: Bar = SILENT,
) -> Float[np.ndarray, "m k"]:
    """The predictions of the classifier for the windows at `indices`."""
    found = []
    for start in range(0, len(indices), BATCH):
        some = indices[start : start + BATCH]
        windows = np.stack([read(assigned.slides[i], *assigned.places[i].tolist()) for i in some.tolist()])
        found.append(classifier(windows))
        bar.advance(len(some))
    return np.concatenate(found)


def report_level(
    probabilities: Float[np.ndarray, "n k"],
    types: Int[np.ndarray, " n"],
    trained: Int[np.ndarray, " m"],
    ancestors: Int[np.ndarray, " k"],
) -> LevelReport:
    """The report of the level at which each finest type belongs to the type in `ancestors`; probabilities are summed.

    `types` are the true finest types of the test windows, `trained` those of the training windows.
    """
    count = int(ancestors.max()) + 1
    summed = probabilities @ np.eye(count)[ancestors]
    true = ancestors[types]
    ranks = (summed > summed[np.arange(len(true)), true][:, None]).sum(1)
    confidence, right = summed.max(1), summed.argmax(1) == true
    error, bins = calibration(confidence, right)
    commonest = np.bincount(ancestors[trained], minlength=count).argmax()
    return LevelReport(
        count, float(right.mean()), float((ranks < 5).mean()), float((true == commonest).mean()), error, bins
    )


def calibration(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error over BINS equal bins (Naeini et al. 2015); confidence, accuracy, size of each."""
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    found = [
        (float(confidence[bins == i].mean()), float(right[bins == i].mean()), int((bins == i).sum()))
        for i in np.unique(bins)
    ]
    return sum(size * abs(accuracy - mean) for mean, accuracy, size in found) / len(confidence), found


def cost_of(model: Classifier | Encoder, windows: np.ndarray, seconds: float = 0.5) -> Cost:
    """The cost of one window, measured on `windows` for `seconds` of processor time."""
    with FlopCounterMode(display=False) as counted:
        model(windows[:1])
    model(windows[:8])
    start, count = time.process_time(), 0
    while (taken := time.process_time() - start) < seconds:
        model(windows)
        count += len(windows)
    return Cost(counted.get_total_flops() // 2, count / max(taken, 1e-9))


def _chances(types: Int[np.ndarray, " m"], balance: float) -> Float[np.ndarray, " m"]:
    return np.bincount(types)[types].astype(np.float64) ** -balance
