"""The small encoder: a residual network that comes with the package, so that everything works without a download.

Its features are the mean and the spread, over all places, of what each level sees: spread tells texture. There are only
120, on purpose: a Fréchet distance needs more images than features. Its figures are the small encoder's and compare
with no published ones.
"""

import json
import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import build
from histoloom.errors import ConfigError, ModelError, OutputError

ENCODER = "encoder.safetensors"


@dataclass(frozen=True)
class SmallEncoderConfig:
    """Shape of the small encoder."""

    channels: tuple[int, ...] = (48, 96, 128)  # at 1/4, 1/8, 1/16 of the edge
    blocks: int = 2  # residual blocks at each level
    told: int = 20  # channels that each level tells of itself; mean and spread of them are the features

    def __post_init__(self):
        if len(self.channels) < 2 or min(*self.channels, self.blocks, self.told) < 1:
            raise ConfigError(f"encoder channels {self.channels} need two levels at least, blocks and told 1 or more")

    @property
    def dimensions(self) -> int:
        """Number of features."""
        return 2 * self.told * len(self.channels)


class SmallEncoder(nn.Module):
    """Pixels in [-1, 1], `b 3 h w` with edges of 32 px at least, -> features `b d`."""

    def __init__(self, config: SmallEncoderConfig):
        super().__init__()
        self.config = config
        stems = [(nn.PixelUnshuffle(4), _conv(48, config.channels[0], 3))]
        stems += [(nn.PixelUnshuffle(2), _conv(4 * fine, coarse, 1)) for fine, coarse in pairwise(config.channels)]
        self.levels = nn.ModuleList(
            nn.Sequential(*stem, nn.ReLU(), *(_Block(width) for _ in range(config.blocks)))
            for stem, width in zip(stems, config.channels, strict=True)
        )
        self.heads = nn.ModuleList(_conv(width, config.told, 1) for width in config.channels)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        stride = 2 ** (len(self.config.channels) + 1)
        height, width = pixels.shape[2:]
        padded = F.pad(pixels, (0, -width % stride, 0, -height % stride), mode="reflect")
        seen, features = padded.contiguous(memory_format=torch.channels_last), []
        for level, head in zip(self.levels, self.heads, strict=True):
            seen = level(seen)
            told = head(seen).float().flatten(2)
            features += [told.mean(2), (told.var(2, correction=0) + 1e-4).sqrt()]
        return torch.cat(features, dim=1)


def save_small_encoder(network: SmallEncoder, folder: Path | str) -> Path:
    """Write `encoder.safetensors` into `folder`: kernels in half precision, shape as JSON in the header."""
    path = Path(folder) / ENCODER
    aside = path.with_suffix(".partial")
    # Running variances may exceed what half precision holds; kernels do not, and are nearly all of the file.
    tensors = {k: v.half() if v.ndim > 1 else v for k, v in network.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.cpu().contiguous() for k, v in tensors.items()}, aside, {"config": json.dumps(asdict(network.config))}
        )
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path}: cannot write the encoder ({error}); free some space or name another folder"
        ) from None
    return path


def load_small_encoder(folder: Path | str) -> SmallEncoder:
    """Read what `save_small_encoder` wrote, in single precision and eval mode; raises ModelError with file and cure."""
    path = Path(folder) / ENCODER
    if not path.is_file():
        raise ModelError(f"{path}: no encoder there; train one with `histoloom train-encoder`, or take another encoder")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        network = SmallEncoder(build(SmallEncoderConfig, json.loads(header["config"]), str(path)))
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: not an encoder of this version ({reason}); train it again") from None
    return network.eval()


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels, 3), nn.ReLU(), _conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs))
