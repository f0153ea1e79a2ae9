"""The small encoder: a residual network that comes with the package, so that everything works without a download.

Its 128 features are few on purpose: a Fréchet distance needs more images than features. Its figures are the small
encoder's and compare with no published ones.
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

    channels: tuple[int, ...] = (48, 96, 160, 128)  # at 1/4, 1/8, 1/16, 1/32 of the edge; the last are the features
    blocks: int = 2  # residual blocks at each level

    def __post_init__(self):
        if len(self.channels) < 2 or min(self.channels) < 1 or self.blocks < 1:
            raise ConfigError(f"encoder channels {self.channels} need two levels at least, blocks {self.blocks} one")


class SmallEncoder(nn.Module):
    """Pixels in [-1, 1], `b 3 h w` with edges of 32 px at least, -> features `b d`: the mean over all places."""

    def __init__(self, config: SmallEncoderConfig):
        super().__init__()
        self.config = config
        first, *_ = config.channels
        levels = [nn.PixelUnshuffle(4), _conv(48, first, 3), nn.ReLU(), *(_Block(first) for _ in range(config.blocks))]
        for fine, coarse in pairwise(config.channels):
            levels += [nn.PixelUnshuffle(2), _conv(4 * fine, coarse, 1), nn.ReLU()]
            levels += [_Block(coarse) for _ in range(config.blocks)]
        self.levels = nn.Sequential(*levels)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        stride = 2 ** (len(self.config.channels) + 1)
        height, width = pixels.shape[2:]
        padded = F.pad(pixels, (0, -width % stride, 0, -height % stride), mode="reflect")
        return self.levels(padded.contiguous(memory_format=torch.channels_last)).mean((2, 3))


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
