"""The small encoder: the first levels of a timm network, bundled with the package, so that nothing is downloaded.

Its features are the mean and the standard deviation of each level's channels over the image; the deviation describes
texture. There are only 120 on purpose: a Fréchet distance needs more images than features. Its figures compare with
no published ones.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from histoloom.config import build, check_numbers
from histoloom.errors import ConfigError, MissingExtraError, ModelError
from histoloom.files import whole_file
from histoloom.tensor_files import read_tensors, save_tensors
from histoloom.weights import SMALL_ENCODER

ENCODER = "encoder.safetensors"
SMALL = "histoloom-small"  # name of the bundled one


@dataclass(frozen=True)
class SmallEncoderConfig:
    """Shape of the small encoder."""

    backbone: str = "tf_efficientnet_lite0"  # any convolutional network of timm
    levels: tuple[int, ...] = (1, 2, 3)  # of the backbone, which is cut after the last: 1/4, 1/8, 1/16 of the edge
    told: int = 20  # channels per level (the key of the file format); their mean and deviation are the features

    def __post_init__(self):
        check_numbers(self)
        if (
            len(self.levels) < 2
            or list(self.levels) != sorted(set(self.levels))
            or min(*self.levels, self.told - 1) < 0
        ):
            raise ConfigError(f"encoder needs at least two levels in ascending order, got {self.levels}, and told >= 1")

    @property
    def dimensions(self) -> int:
        """Number of features."""
        return 2 * self.told * len(self.levels)


class SmallEncoder(nn.Module):
    """Pixels in [-1, 1], `b 3 h w` with edges of at least 32 px -> features `b d`.

    With `pretrained`, timm downloads the backbone's ImageNet weights. Raises ConfigError for a backbone that timm does
    not know, ModelError where its weights are not available.
    """

    def __init__(self, config: SmallEncoderConfig, pretrained: bool = False):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise MissingExtraError("timm", "evaluate") from None
        if not timm.is_model(config.backbone):
            raise ConfigError(f"encoder backbone {config.backbone!r}: unknown to timm; see timm.list_models()")
        self.config = config
        try:
            self.backbone = timm.create_model(
                config.backbone, pretrained, features_only=True, feature_cls="getter", out_indices=config.levels
            )
        except Exception as error:  # of whatever timm asked for weights or levels
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"encoder backbone {config.backbone}, levels {config.levels}: {reason}") from None
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, config.told, 1, bias=False), nn.BatchNorm2d(config.told))
            for width in cast(Any, self.backbone.feature_info).channels()
        )

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        features = []
        levels = cast(nn.Module, self.backbone)(pixels.contiguous(memory_format=torch.channels_last))
        for level, head in zip(levels, self.heads, strict=True):
            channels = head(level).float().flatten(2)
            features += [channels.mean(2), (channels.var(2, correction=0) + 1e-4).sqrt()]
        return torch.cat(features, dim=1)


def weights_path(name: Path | str) -> Path | None:
    """The weights of the small encoder `name`, bundled or in a folder; None for the name of another encoder."""
    path = Path(SMALL_ENCODER if name == SMALL else name) / ENCODER
    return path if path.is_file() else None


def save_small_encoder(network: SmallEncoder, folder: Path | str) -> Path:
    """Write `encoder.safetensors` into `folder`: kernels in half precision, shape as JSON in the header."""
    path = Path(folder) / ENCODER
    # Running variances may exceed the range of half precision; kernels do not, and are nearly all of the file.
    tensors = {k: v.half() if v.ndim > 1 else v for k, v in network.state_dict().items()}
    header = {"config": json.dumps(asdict(network.config))}
    with whole_file(path) as aside:
        save_tensors({k: v.cpu().contiguous() for k, v in tensors.items()}, aside, header)
    return path


def load_small_encoder(folder: Path | str) -> SmallEncoder:
    """Load the encoder of a folder, or the bundled one by its name, in single precision and eval mode.

    Raises ModelError with the file and the cure.
    """
    path = weights_path(folder)
    if path is None:
        raise ModelError(
            f"{Path(folder) / ENCODER}: not found; train an encoder with `histoloom train-encoder`, or use another one"
        )
    try:
        tensors, header = read_tensors(path)
        network = SmallEncoder(build(SmallEncoderConfig, json.loads(header["config"]), str(path)))
        network.load_state_dict(tensors)
    except (OSError, KeyError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: is not an encoder of this version ({reason}); train it again") from None
    return network.eval()
