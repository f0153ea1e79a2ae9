"""A small segmenter that learns from real patches to read a map off an image: the judge of map fidelity.

A residual U-Net that reads the image at half its size and answers there; the answer is enlarged. It trains in a quarter
of an hour on one core and is fully convolutional, so it reads images of any size.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import build, check_numbers
from histoloom.errors import ConfigError, InputError, ModelError, TissueError
from histoloom.evaluation.type_weights import labeled_loss, type_weights
from histoloom.files import whole_file
from histoloom.fitting.loop import LoopConfig, fit, show_on
from histoloom.fitting.samples import draw_part, stack, to_pixels
from histoloom.progress import SILENT, Bar
from histoloom.stain import StainJitter
from histoloom.tensor_files import read_tensors, save_tensors
from histoloom.tissue import UNLABELLED, TissueTable

SEGMENTER = "segmenter.safetensors"
_FORMAT = 3  # of the file; until 2, borders lay half a pixel too far right and down
_LEARNED = "learned_from"  # tensor that holds the hashes of the training images
_HASH_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """Shape and training of the segmenter."""

    channels: tuple[int, ...] = (16, 32, 64, 128)  # at 1/2, 1/4, 1/8, 1/16 of the edge
    size: int = 192  # px, edge of the training crops; a multiple of 2 ** len(channels)
    steps: int = 800
    batch_size: int = 16
    learning_rate: float = 3e-3  # peak; warms up over a tenth of the steps, then falls as a cosine
    weight_decay: float = 0.02
    balance: float = 0.5  # loss weight of a type ~ share of its pixels ** -balance; 0 weighs all pixels equally
    stain: StainJitter = field(default_factory=StainJitter)
    seed: int = 0

    def __post_init__(self):
        check_numbers(self)
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ConfigError(f"segmenter channels {self.channels} must be two levels or more, each 1 or more")
        if self.size < 1 or self.size % 2 ** len(self.channels):
            raise ConfigError(f"segmenter size {self.size} must be a multiple of {2 ** len(self.channels)}")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"segmenter balance {self.balance} must be in [0, 1]")
        try:
            self.loop()
        except ConfigError as error:
            raise ConfigError(f"segmenter: {error}") from None

    def loop(self) -> LoopConfig:
        """How it is trained, in terms of the training loop."""
        return LoopConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=self.steps // 10,
            weight_decay=self.weight_decay,
            average_decay=0.0,
            precision="fp32",
            workers=0,
            seed=self.seed,
        )


class Segmenter:
    """A trained network, the number of types that it knows, and hashes of the images and maps that it learned from.

    `table` says what its types are; None where that was not recorded.
    """

    def __init__(
        self,
        network: nn.Module,
        num_types: int,
        config: SegmenterConfig,
        learned_from: frozenset[bytes],
        maps: str = "",
        table: TissueTable | None = None,
    ):
        self.network, self.num_types, self.config = network.eval(), num_types, config
        self.learned_from, self.maps, self.table = learned_from, maps, table

    @torch.inference_mode()
    def predict(self, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 16) -> UInt8[np.ndarray, "n h w"]:
        """The likeliest type of every pixel; images of any size."""
        maps = np.empty(images.shape[:3], np.uint8)
        for start in range(0, len(images), batch_size):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
            logits = self._logits(part.to(next(self.network.parameters()).device))
            maps[start : start + batch_size] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return maps

    @torch.inference_mode()
    def chances(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "k h w"]:
        """The probability of each type at every pixel of one image."""
        part = torch.from_numpy(image[None].copy())  # a picture that was read cannot be written to
        logits = self._logits(part.to(next(self.network.parameters()).device))
        return logits.float().softmax(1)[0].cpu().numpy()

    def num_learned(self, images: UInt8[np.ndarray, "n h w 3"]) -> int | None:
        """How many of these images it learned from; None if that is not recorded."""
        return sum(_hash(image) in self.learned_from for image in images) if self.learned_from else None

    def has_learned(self, images: UInt8[np.ndarray, "n h w 3"], semantic_maps: UInt8[np.ndarray, "n h w"]) -> bool:
        """Whether it learned from these images and maps, and from no others."""
        return self.learned_from == frozenset(map(_hash, images)) and self.maps == _hash(semantic_maps).hex()

    def _logits(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        stride = 2 ** len(self.config.channels)
        pixels = F.pad(to_pixels(images), (0, -width % stride, 0, -height % stride), mode="replicate")
        return _whole(self.network(pixels))[:, :, :height, :width]


class SegmenterObjective(nn.Module):
    """Batch of images `b h w 3` and maps `b h w`, uint8 -> cross-entropy; pixels of 255 do not count."""

    def __init__(self, network: nn.Module, weights: Float[np.ndarray, " k"]):
        super().__init__()
        self.network = network
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = _whole(self.network(to_pixels(batch["images"]).contiguous(memory_format=torch.channels_last)))
        return {"loss": labeled_loss(logits, batch["maps"].long(), self.get_buffer("weights"))}


def _whole(logits: Tensor) -> Tensor:
    """Logits at the size of the image, of a network that answers at half of it: to be compared with whole maps, since
    every second pixel of a map is half a pixel off the answer."""
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)


@dataclass(frozen=True, eq=False)
class MapSampler:
    """Sample n: a random part of a random patch and of its map, turned, mirrored and restained."""

    images: UInt8[np.ndarray, "n h w 3"]
    semantic_maps: UInt8[np.ndarray, "n h w"]
    config: SegmenterConfig

    def __call__(self, n: int) -> dict:
        rng = np.random.default_rng((self.config.seed, n))
        index = int(rng.integers(len(self.images)))
        image, semantic_map = draw_part(
            self.images, index, self.config.size, self.config.stain, rng, self.semantic_maps
        )
        return {"images": image, "maps": semantic_map}


def train_segmenter(
    images: UInt8[np.ndarray, "n h w 3"],
    semantic_maps: UInt8[np.ndarray, "n h w"],
    num_types: int,
    config: SegmenterConfig,
    bar: Bar = SILENT,
    table: TissueTable | None = None,
) -> Segmenter:
    """Learn to read `semantic_maps` off `images`; pixels of 255 do not count. The same seed gives the same segmenter.

    `bar` counts steps; `table` is what the segmenter will say of its types. Raises InputError for arrays that do not
    fit, ConfigError for patches smaller than `config.size`, HistoloomError for a loss that is not finite.
    """
    _check(images, semantic_maps, num_types, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _UNet(config.channels, num_types).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (missing in the stub)
        objective = SegmenterObjective(network, type_weights(semantic_maps, num_types, config.balance))
        trained = fit(objective, MapSampler(images, semantic_maps, config), stack, config.loop(), on_step=show_on(bar))
    assert isinstance(trained, SegmenterObjective)
    learned_from = frozenset(map(_hash, images))
    return Segmenter(trained.network, num_types, config, learned_from, _hash(semantic_maps).hex(), table)


def save_segmenter(segmenter: Segmenter, folder: Path | str) -> Path:
    """Write `segmenter.safetensors` into `folder`, with its configuration as JSON in the header; returns its path.

    Equal segmenters give equal bytes. Raises OutputError where the disk refuses.
    """
    path = Path(folder) / SEGMENTER
    about = {
        "format": _FORMAT,
        "num_types": segmenter.num_types,
        "config": asdict(segmenter.config),
        "maps": segmenter.maps,
    }
    if segmenter.table is not None:
        about["types"] = segmenter.table.to_rows()
    tensors = {name: value.cpu().contiguous() for name, value in segmenter.network.state_dict().items()}
    hashes = np.frombuffer(b"".join(sorted(segmenter.learned_from)), np.uint8).reshape(-1, _HASH_BYTES)
    tensors[_LEARNED] = torch.from_numpy(hashes.copy())
    with whole_file(path) as aside:
        save_tensors(tensors, aside, {"segmenter": json.dumps(about, sort_keys=True)})
    return path


def load_segmenter(folder: Path | str) -> Segmenter:
    """Read what `save_segmenter` wrote; raises ModelError with file and cure."""
    path = Path(folder) / SEGMENTER
    if not path.is_file():
        raise ModelError(f"{path}: no such file; name the folder of the segmenter of a run")
    try:
        tensors, header = read_tensors(path)
        about = json.loads(header["segmenter"])
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {_FORMAT}")
        config = build(SegmenterConfig, about["config"], str(path))
        learned_from = frozenset(row.tobytes() for row in tensors.pop(_LEARNED).numpy())
        network = _UNet(config.channels, int(about["num_types"]))
        network.load_state_dict(tensors)
        table = TissueTable.from_rows(about["types"]) if "types" in about else None
    except (OSError, ConfigError, TissueError, LookupError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: is not a segmenter of this version ({reason}); train it again") from None
    return Segmenter(network, int(about["num_types"]), config, learned_from, str(about.get("maps", "")), table)


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

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


def _hash(pixels: UInt8[np.ndarray, "..."]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()[:_HASH_BYTES]


def fitted(config: SegmenterConfig, edge: int) -> SegmenterConfig:
    """The config with windows that fit patches of `edge` px."""
    unit = 2 ** len(config.channels)
    return replace(config, size=min(config.size, edge // unit * unit))


def _check(images: np.ndarray, maps: np.ndarray, num_types: int, config: SegmenterConfig) -> None:
    if images.shape[:3] != maps.shape:
        raise InputError(
            f"images {images.shape} and maps {maps.shape} differ in number or size; give one map per image"
        )
    if len(images) == 0 or (maps == UNLABELLED).all():
        raise InputError("the maps have no labeled pixel, so the segmenter has nothing to learn")
    if (largest := int(maps[maps != UNLABELLED].max())) >= num_types:
        raise InputError(f"a map holds tissue id {largest}, but the segmenter has only {num_types} types")
    if min(images.shape[1:3]) < config.size:
        raise ConfigError(f"patches are {images.shape[1:3]} px, smaller than segmenter size {config.size}")
